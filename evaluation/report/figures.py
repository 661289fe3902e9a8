"""Small drawings in one style, as SVG that takes its colours and fonts from the page.

matplotlib cannot name a CSS variable, so every tone is drawn in a stand-in colour, which is replaced in the
finished SVG by `var(--tone)`: one drawing is readable in light and in dark mode. Titles and legends are left to
the page, where they wrap.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from numpy.typing import ArrayLike

from gebm.evaluation.report.blocks import Figure, Tone

# Colours that appear nowhere else in what matplotlib writes.
STAND_INS: dict[str, str] = {
    "ink": "#010203",
    "muted": "#010204",
    "rule": "#010205",
    "plain": "#010206",
    "reference": "#010207",
    "first": "#010208",
    "second": "#010209",
    "third": "#01020a",
    "fourth": "#01020b",
    "good": "#01020c",
    "bad": "#01020d",
}
WIDTH, HEIGHT = 360, 210  # points of the view box: about the pixels of a phone's width, so that 12 reads as 12
TOO_WIDE = 2.0  # see `_settled_limits`
FEW_POINTS = 200  # of a cloud
MOST_POINTS = 600  # of a line: more than the drawing has columns


class Line(NamedTuple):
    """A curve `y` over `x`, both `(n,)`, with an optional band `(low, high)` around it."""

    label: str
    x: ArrayLike
    y: ArrayLike
    tone: Tone = "plain"
    band: tuple[ArrayLike, ArrayLike] | None = None


class Values(NamedTuple):
    """A sample of numbers `(n,)` whose distribution is shown."""

    label: str
    values: ArrayLike
    tone: Tone = "plain"


class Points(NamedTuple):
    """A cloud of points at `x`, `y`, both `(n,)`."""

    label: str
    x: ArrayLike
    y: ArrayLike
    tone: Tone = "plain"


class Mark(NamedTuple):
    """A vertical line at `x` where something begins that `label` names."""

    x: float
    label: str


class Interval(NamedTuple):
    """A value with its interval; `low` and `high` may be None where none is known."""

    label: str
    value: float
    low: float | None
    high: float | None
    tone: Tone = "plain"


def draw_lines(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    alt: str,
    caption: str = "",
    logarithmic: bool = False,
    level: float | None = None,
    marks: Sequence[Mark] = (),
    early_share: float = 0.0,
) -> Figure:
    """Curves over a common axis. Points that are not finite break the line. `level`: a dashed horizontal.

    `early_share`: where the first values, at most this share of them, are so far off that the rest would be flat,
    the axis is left to the rest, and the caption says so.
    """
    with _axes() as (drawing, axes):
        for line in lines:
            x, y = thin(np.asarray(line.x, float)), thin(np.asarray(line.y, float))
            axes.plot(x, np.where(np.isfinite(y), y, np.nan), color=STAND_INS[line.tone], linewidth=1.6)
            if line.band:
                low, high = (thin(np.asarray(side, float)) for side in line.band)
                axes.fill_between(x, low, high, color=STAND_INS[line.tone], alpha=0.16, linewidth=0)
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(numticks=5))
            axes.yaxis.set_minor_locator(NullLocator())
        if level is not None:
            axes.axhline(level, color=STAND_INS["muted"], linewidth=1, dashes=(3, 3))
        ends = [x for line in lines for x in _ends(line.x)]
        for mark in marks:
            if ends and mark.x < min(ends):
                continue  # before all that is drawn
            axes.axvline(mark.x, color=STAND_INS["muted"], linewidth=1, dashes=(2, 3))
            place = axes.get_xaxis_transform()
            axes.text(mark.x, 1.02, f" {mark.label}", transform=place, color=STAND_INS["muted"], fontsize=11)
        if early_share and (limits := _settled_limits(lines, early_share)) is not None:
            axes.set_ylim(*limits)
            caption = f"{caption} The first values lie beyond the axis.".strip()
        if ends:
            axes.set_xlim(min(ends), max(ends) if max(ends) > min(ends) else min(ends) + 1)
        axes.set_xlabel(x_label)
        svg = _to_svg(drawing)
    legend = tuple((line.label, line.tone) for line in lines) if len(lines) > 1 else ()
    return Figure(svg, title, alt, caption, legend)


def draw_histograms(
    samples: Sequence[Values], *, title: str, x_label: str, alt: str, caption: str = "", bins: int = 40
) -> Figure:
    """Densities over common bins, drawn as steps. The outer 0.1% of values on each side lie beyond the axis."""
    finite = [np.asarray(s.values, float)[np.isfinite(np.asarray(s.values, float))] for s in samples]
    pooled = np.concatenate(finite)
    with _axes() as (drawing, axes):
        if len(pooled):
            low, high = np.quantile(pooled, [0.001, 0.999])
            edges = np.linspace(low, high if high > low else low + 1.0, bins + 1)
            for sample, values in zip(samples, finite, strict=True):
                heights, _ = np.histogram(values, edges)
                shares = heights / max(len(values), 1)
                axes.stairs(shares, edges, color=STAND_INS[sample.tone], fill=True, alpha=0.14, linewidth=0)
                axes.stairs(shares, edges, color=STAND_INS[sample.tone], linewidth=1.6)
        axes.set_xlabel(x_label)
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
        svg = _to_svg(drawing)
    return Figure(svg, title, alt, caption, tuple((s.label, s.tone) for s in samples))


def draw_points(
    clouds: Sequence[Points],
    *,
    title: str,
    x_label: str,
    y_label: str = "",
    alt: str,
    caption: str = "",
    limits: tuple[tuple[float, float], tuple[float, float]] | None = None,
) -> Figure:
    """Clouds of points in one plane, the first lowest. `limits`: of x and y; what lies beyond is not seen."""
    with _axes(height=WIDTH * 0.8) as (drawing, axes):
        for cloud in clouds:
            x, y = np.asarray(cloud.x, float), np.asarray(cloud.y, float)
            few = len(x) < FEW_POINTS  # which would be lost on the page
            axes.scatter(
                x, y, s=14 if few else 5, color=STAND_INS[cloud.tone], alpha=0.7 if few else 0.45, linewidths=0
            )
        if limits is not None:
            axes.set_xlim(*limits[0])
            axes.set_ylim(*limits[1])
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        svg = _to_svg(drawing)
    legend = tuple((cloud.label, cloud.tone) for cloud in clouds) if len(clouds) > 1 else ()
    return Figure(svg, title, alt, caption, legend)


def draw_intervals(
    intervals: Sequence[Interval],
    *,
    title: str,
    x_label: str,
    alt: str,
    caption: str = "",
    level: float | None = None,
) -> Figure:
    """Values with their intervals, one a row, names on the left; `level`: a dashed vertical to compare with."""
    with _axes(height=64 + 34 * len(intervals)) as (drawing, axes):
        for row, item in enumerate(reversed(intervals)):
            colour = STAND_INS[item.tone]
            if item.low is not None and item.high is not None:
                axes.plot([item.low, item.high], [row, row], color=colour, linewidth=5, alpha=0.35)
            axes.plot([item.value], [row], "o", color=colour, markersize=8)
        axes.set_yticks(range(len(intervals)), [item.label for item in reversed(intervals)])
        axes.tick_params(axis="y", labelcolor=STAND_INS["ink"])
        axes.set_ylim(-0.6, len(intervals) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x", color=STAND_INS["rule"], linewidth=0.8)
        if level is not None:
            axes.axvline(level, color=STAND_INS["muted"], linewidth=1, dashes=(3, 3))
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.0), high + 0.06 * (high - min(low, 0.0)))
        axes.set_xlabel(x_label)
        svg = _to_svg(drawing)
    return Figure(svg, title, alt, caption)


def _ends(values: ArrayLike) -> tuple[float, ...]:
    array = np.asarray(values, float)
    return (float(array.min()), float(array.max())) if array.size else ()


def _settled_limits(lines: Sequence[Line], early_share: float) -> tuple[float, float] | None:
    """Limits for the y axis that leave out the first `early_share` of the points; None where all may be shown.

    All are shown unless they span more than `TOO_WIDE` times what the others do. Late values are never left out.
    """
    everything = [np.asarray(line.y, float) for line in lines]
    later = [values[math.ceil(early_share * len(values)) :] for values in everything]
    whole, rest = (np.concatenate([v[np.isfinite(v)] for v in part] or [[]]) for part in (everything, later))
    if len(rest) < 2 or np.ptp(whole) <= TOO_WIDE * np.ptp(rest):
        return None
    margin = 0.08 * np.ptp(rest) or 1.0
    return float(rest.min() - margin), float(rest.max() + margin)


def thin(values: np.ndarray) -> np.ndarray:
    """Every k-th value, and the last, so that at most `MOST_POINTS` + 1 are left."""
    stride = math.ceil(len(values) / MOST_POINTS) if len(values) else 1
    kept = values[::stride]
    return kept if len(values) == 0 or (len(values) - 1) % stride == 0 else np.append(kept, values[-1])


@contextmanager
def _axes(height: float = HEIGHT) -> Iterator[tuple[Drawing, Axes]]:
    """A bare drawing in the page's style; the settings of matplotlib are left as they were."""
    style: dict[Any, Any] = {
        "svg.fonttype": "none",  # text stays text: it is set in the reader's font and can be searched
        "svg.hashsalt": "report",  # the same drawing gives the same bytes
        "font.size": 12,
        "axes.edgecolor": STAND_INS["muted"],
        "axes.labelcolor": STAND_INS["muted"],
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.axisbelow": True,
        "grid.color": STAND_INS["rule"],
        "grid.linewidth": 0.8,
        "xtick.color": STAND_INS["muted"],
        "ytick.color": STAND_INS["muted"],
        "ytick.major.size": 0,
        "xtick.major.size": 3,
        "axes.unicode_minus": True,
        "axes.formatter.limits": (-3, 5),
    }
    with matplotlib.rc_context(style):
        drawing = Drawing(figsize=(WIDTH / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(drawing)
        axes = drawing.add_subplot()
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        axes.yaxis.set_major_locator(MaxNLocator(4))
        yield drawing, axes


def _to_svg(drawing: Drawing) -> str:
    """The `<svg>` element alone, its colours and fonts taken from the page's style sheet."""
    buffer = io.StringIO()
    drawing.savefig(
        buffer,
        format="svg",
        transparent=True,
        metadata={"Creator": None, "Date": None, "Format": None, "Type": None},
    )
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].strip()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href", "href")
    svg = svg.replace(' xmlns="http://www.w3.org/2000/svg"', "").replace(' version="1.1"', "")
    for tone, stand_in in STAND_INS.items():
        svg = svg.replace(stand_in, f"var(--{tone})")
    # Size and weight stay as drawn, the family is the page's. matplotlib's own style sheet would reach the whole page.
    svg = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--sans)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--sans)", svg)
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)
    return re.sub(r"\n\s*", "\n", svg)
