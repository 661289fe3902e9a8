"""The page builder: one file, no network, no scripts, nothing of the caller's text taken for HTML."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from PIL import Image

from gebm.evaluation.report import (
    Bar,
    Bars,
    Cell,
    Column,
    Columns,
    Figure,
    Fold,
    Head,
    ImageGrid,
    Interval,
    KeyFigure,
    KeyFigures,
    Line,
    Mark,
    Page,
    Section,
    Table,
    Text,
    Values,
    Verdict,
    draw_histograms,
    draw_intervals,
    draw_lines,
    render_page,
)
from gebm.evaluation.report.figures import MOST_POINTS, STAND_INS, thin
from gebm.evaluation.report.tiles import tile

VOID = {"meta", "link", "img", "br"}


class Outline(HTMLParser):
    """Checks that tags close in order; collects ids, images, headings, links and addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: list[str] = []
        self.anchors: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.tags.append(tag)
        if "id" in given:
            self.ids.append(given["id"])
        if tag == "img":
            self.images.append(given)
        for key in ("src", "href"):
            value = given.get(key) or ""
            if value.startswith("#"):
                self.anchors.append(value[1:])
            elif value and not value.startswith("data:"):
                self.outside.append(value)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> closes something else"


def outline(html: str) -> Outline:
    parsed = Outline()
    parsed.feed(html)
    assert parsed.open == []
    return parsed


def grey_images(count: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 1, size, size), dtype=np.uint8)


def figures() -> tuple[Figure, ...]:
    x = list(range(50))
    y = np.random.default_rng(0).normal(size=50)
    return (
        draw_lines(
            [Line("a", x, y, "first", (y - 1, y + 1)), Line("b", x, y + 1, "second")],
            title="Curves",
            x_label="steps",
            alt="two curves",
            marks=[Mark(20, "second phase")],
        ),
        draw_histograms([Values("a", y, "reference")], title="Histogram", x_label="x", alt="a histogram"),
        draw_intervals(
            [Interval("ratio", 0.7, 0.6, 0.8, "good")], title="Ratio", x_label="ratio", alt="an interval", level=1
        ),
    )


def page_with_everything(text: str = "words") -> Page:
    table = Table((Column(text), Column("n", "right")), ((Cell(text, text, "good"), Cell("1")),), caption=text)
    grid = ImageGrid(grey_images(8), 4, text, text, text, gap_after=(1,), heads=(Head(text, 1), Head(text, 3)))
    blocks = (
        Text(text),
        Verdict(text, text, text, "bad"),
        KeyFigures((KeyFigure(text, text, text),)),
        table,
        Bars((Bar(text, 2.0, text), Bar(text, 1.0, text)), text),
        Columns((grid, *figures())),
        Fold(text, (table,)),
    )
    return Page(text, text, blocks, (Section("One part", blocks, text), Section("Two", blocks), Section("3", blocks)))


def test_a_page_with_every_kind_of_block_is_well_formed_and_self_contained():
    html = render_page(page_with_everything())
    parsed = outline(html)
    assert parsed.outside == []
    assert "script" not in parsed.tags and "@import" not in html and "url(http" not in html
    assert not re.search(r"\bhttps?://", html)
    assert 'name="viewport" content="width=device-width, initial-scale=1"' in html


def test_ids_are_unique_and_every_link_within_the_page_leads_somewhere():
    parsed = outline(render_page(page_with_everything()))
    assert len(parsed.ids) == len(set(parsed.ids)) > 20
    assert parsed.anchors and set(parsed.anchors) <= set(parsed.ids)


def test_text_is_never_taken_for_html():
    nasty = '<script>alert("x")</script> & `a<b` \' "'
    html = render_page(page_with_everything(nasty))
    parsed = outline(html)
    assert "script" not in parsed.tags
    assert "<code>a&lt;b</code>" in html


def test_every_picture_says_what_is_to_be_seen():
    html = render_page(page_with_everything("what is seen"))
    parsed = outline(html)
    assert parsed.images and all(image["alt"] == "what is seen" for image in parsed.images)
    drawings = re.findall(r"<svg[^>]*>", html)
    assert len(drawings) == 12
    assert all('role="img"' in tag and re.search('aria-label="[^"]+"', tag) for tag in drawings)


def test_headings_step_down_one_level_at_a_time():
    headings = [tag for tag in outline(render_page(page_with_everything())).tags if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1", "h2", "h2", "h2"]


def test_the_same_page_gives_the_same_bytes():
    assert render_page(page_with_everything()) == render_page(page_with_everything())


def test_figures_take_every_colour_and_font_from_the_page():
    for figure in figures():
        assert not set(re.findall("#[0-9a-f]{6}", figure.svg)) & set(STAND_INS.values())
        painted = re.findall(r"(?:fill|stroke): ?([^;\"]+)", figure.svg)
        assert painted and all(paint.startswith(("var(--", "none")) for paint in painted)
        assert "<text" in figure.svg and "DejaVu" not in figure.svg


def test_figures_leave_the_settings_of_matplotlib_as_they_were():
    before = dict(matplotlib.rcParams)
    figures()
    assert dict(matplotlib.rcParams) == before


def test_every_tone_of_a_figure_has_a_colour_in_light_and_in_dark_mode():
    html = render_page(page_with_everything())
    light, dark = html.split("prefers-color-scheme: dark", 1)
    for tone in STAND_INS:
        assert f"--{tone}: #" in light and f"--{tone}: #" in dark.split("}\n}")[0]


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two colours `#rrggbb`."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("mode", [0, 1], ids=["light", "dark"])
def test_text_has_the_contrast_that_wcag_asks_for(mode):
    css = render_page(Page("", "", (), ())).split("<style>")[1]
    blocks = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", blocks[mode]))
    for ground in ("paper", "sheet", "wash"):
        for text in ("ink", "muted", "reference", "first", "second", "third", "fourth", "good", "bad"):
            assert contrast(colours[text], colours[ground]) >= 4.5, f"{text} on {ground}"


def test_lines_with_more_points_than_can_be_seen_are_thinned_and_keep_their_end():
    noise = np.random.default_rng(0).normal(size=50_000)
    figure = draw_lines([Line("a", np.arange(50_000), noise)], title="", x_label="", alt="")
    assert len(figure.svg) < 60 * MOST_POINTS  # bytes; all 50,000 points would take a megabyte
    for count in (0, 1, 599, 600, 601, 50_000):
        kept = thin(noise[:count])
        assert len(kept) <= MOST_POINTS + 1
        assert count == 0 or (kept[0] == noise[0] and kept[-1] == noise[count - 1])


def test_a_far_off_beginning_does_not_flatten_the_rest_and_a_far_off_end_is_always_shown():
    start = [1000.0, 500.0, *np.linspace(1, 2, 98)]

    def caption(y: list[float], early_share: float = 0.1) -> str:
        line = Line("a", range(100), y)
        return draw_lines([line], title="", x_label="", alt="", caption="Loss.", early_share=early_share).caption

    assert caption(start) == "Loss. The first values lie beyond the axis."
    assert caption(start, 0.0) == caption(start[::-1]) == caption([1.0, *start[2:], 1.0]) == "Loss."


def test_a_mark_before_all_that_is_drawn_is_left_out():
    line = Line("a", [260, 300], [0.0, 1.0])
    marks = [Mark(250, "energy phase"), Mark(280, "later phase")]
    svg = draw_lines([line], title="", x_label="", alt="", marks=marks).svg
    assert "later phase" in svg and "energy phase" not in svg


def test_figures_bear_values_that_are_not_finite_and_samples_without_spread():
    figures = [draw_lines([Line("a", [0, 1, 2], [0.0, np.inf, np.nan])], title="", x_label="", alt="")]
    for values in ([np.nan], [1.0, 1.0], [-np.inf, 0.0, np.inf]):
        figures.append(draw_histograms([Values("a", values)], title="", x_label="", alt=""))
    for figure in figures:
        ElementTree.fromstring(figure.svg)
        assert "NaN" not in figure.svg and "nan" not in figure.svg and "inf" not in figure.svg.lower()


def test_a_histogram_of_everything_not_finite_is_empty_and_not_an_error():
    assert "<svg" in draw_histograms([Values("a", [])], title="", x_label="", alt="").svg


@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_grid_shows_every_pixel_in_its_place(channels):
    images = np.random.default_rng(1).integers(0, 256, (5, channels, 16, 16), dtype=np.uint8)
    uri = ImageGrid(images, 3, "five images", gap_after=(1,)).uri()
    picture = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/png;base64,")))).convert("RGBA")
    )
    step = picture.shape[0] // 33  # two rows of 16 and a gap of 1
    small = picture[::step, ::step]
    assert (picture == small.repeat(step, 0).repeat(step, 1)).all()
    lefts = (0, 19, 36)
    for number, image in enumerate(images):
        top, left = 17 * (number // 3), lefts[number % 3]
        seen = small[top : top + 16, left : left + 16]
        assert (seen[..., :3] == image.transpose(1, 2, 0)).all() and (seen[..., 3] == 255).all()
    assert (small[:, 16:19, 3] == 0).all(), "gaps are transparent"
    assert (small[17:, lefts[2] : lefts[2] + 16, 3] == 0).all(), "no sixth image"


def test_heads_of_an_image_grid_stand_over_their_columns():
    grid = ImageGrid(grey_images(4, 16), 4, "", gap_after=(1,), heads=(Head("a", 1), Head("b", 3)))
    width = 4 * 16 + 3 + 2
    assert grid.head_widths() == pytest.approx([100 * 19 / width, 100 * (width - 19) / width])


def test_grids_of_many_images_stay_light():
    assert max(tile(grey_images(64, 256), 8).shape) > 2000
    assert len(ImageGrid(np.zeros((64, 1, 256, 256), np.uint8), 8, "").uri()) < 20_000


def test_images_of_another_kind_are_refused():
    for wrong in (np.zeros((2, 1, 4, 4)), np.zeros((2, 2, 4, 4), np.uint8), np.zeros((0, 1, 4, 4), np.uint8)):
        with pytest.raises(ValueError, match="expected uint8"):
            tile(wrong, 2)


def test_a_row_with_too_few_cells_is_refused():
    with pytest.raises(ValueError, match="row 1 has 1 cells for 2 columns"):
        Table((Column("a"), Column("b")), ((Cell("1"), Cell("2")), (Cell("1"),)))
