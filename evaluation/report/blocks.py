"""What a page can hold. Plain values: `page.html` decides how each kind looks.

Every string is text, not HTML: it is escaped, and only `backticks` in it are set as code.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import numpy as np

from gebm.evaluation.report.tiles import column_lefts, tile_png_uri

Tone = Literal["plain", "reference", "first", "second", "third", "fourth", "good", "bad"]
"""A meaning, not a colour: the style sheet gives it one colour in light and one in dark mode."""


@dataclass(frozen=True)
class Text:
    """A paragraph. `kind` "missing" marks a part of the page that could not be made, "warning" a caveat."""

    text: str
    kind: Literal["body", "note", "missing", "warning"] = "body"
    template: ClassVar[str] = "text"


@dataclass(frozen=True)
class Verdict:
    """The answer of the whole page, in one sentence, and what it rests on."""

    label: str
    sentence: str
    evidence: str
    tone: Tone = "plain"
    template: ClassVar[str] = "verdict"


@dataclass(frozen=True)
class KeyFigure:
    """One number to remember: `value` large, `label` above it, `note` below."""

    label: str
    value: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class KeyFigures:
    """A row of key figures that wraps on narrow screens."""

    items: tuple[KeyFigure, ...]
    template: ClassVar[str] = "key_figures"


@dataclass(frozen=True)
class Column:
    """Head of a table column. Numbers are aligned right, words left."""

    name: str
    align: Literal["left", "right"] = "left"


@dataclass(frozen=True)
class Cell:
    """A table cell; `note` is set small below the text."""

    text: str
    note: str = ""
    tone: Tone = "plain"


@dataclass(frozen=True)
class Table:
    """Rows of cells under column heads.

    On a narrow screen the table scrolls inside its own box, or, with `narrow="cards"`, every row becomes a
    card that repeats the column names. `marked` are the indices of rows that stand out.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    narrow: Literal["scroll", "cards"] = "scroll"
    marked: frozenset[int] = frozenset()
    template: ClassVar[str] = "table"

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.columns):
                raise ValueError(f"row {number} has {len(row)} cells for {len(self.columns)} columns")


@dataclass(frozen=True)
class Bar:
    """One bar: `value` sets its length against the longest, `text` is what is written beside it."""

    label: str
    value: float
    text: str
    tone: Tone = "plain"


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from zero."""

    items: tuple[Bar, ...]
    caption: str = ""
    template: ClassVar[str] = "bars"

    def width(self, bar: Bar) -> float:
        """Length of `bar` in percent of the longest bar."""
        longest = max((item.value for item in self.items), default=0.0)
        return 100.0 * bar.value / longest if longest > 0 else 0.0


@dataclass(frozen=True)
class Head:
    """A name over `span` columns of an image grid."""

    text: str
    span: int


@dataclass(frozen=True)
class ImageGrid:
    """Images as one picture with crisp pixels.

    `images`: uint8 `(n, channels, height, width)`, one or three channels, filled in row by row, `columns` a row;
    `gap_after`: column numbers (from 1) after which a wider gap is left; `heads`: names over the columns.
    `title` and `tone` stand above it, `caption` below; `alt` says what is to be seen, for those who cannot see.
    """

    images: np.ndarray
    columns: int
    alt: str
    title: str = ""
    caption: str = ""
    tone: Tone = "plain"
    gap_after: tuple[int, ...] = ()
    heads: tuple[Head, ...] = ()
    template: ClassVar[str] = "image_grid"

    def head_widths(self) -> list[float]:
        """For each head the percent of the picture's width up to where the next one begins."""
        width = self.images.shape[3]
        lefts = column_lefts(self.columns, width, self.gap_after)
        full = lefts[-1] + width
        starts = [sum(head.span for head in self.heads[:number]) for number in range(len(self.heads))]
        edges = [lefts[start] for start in starts] + [full]
        return [100 * (right - left) / full for left, right in pairwise(edges)]

    def uri(self) -> str:
        """The picture as a `data:` address."""
        return tile_png_uri(self.images, self.columns, self.gap_after)


@dataclass(frozen=True)
class Figure:
    """A drawing as inline SVG (see `figures.py`) with its legend, title, caption and description."""

    svg: str
    title: str
    alt: str
    caption: str = ""
    legend: tuple[tuple[str, Tone], ...] = ()
    template: ClassVar[str] = "figure"


@dataclass(frozen=True)
class Columns:
    """Blocks side by side where the screen is wide enough, below each other where it is not.

    `least_width`: the width in pixels below which a column would rather move to the next line.
    """

    blocks: tuple[Block, ...]
    least_width: int = 300
    template: ClassVar[str] = "columns"


@dataclass(frozen=True)
class Fold:
    """Blocks that are folded away until the reader opens them."""

    summary: str
    blocks: tuple[Block, ...]
    template: ClassVar[str] = "fold"


Block = Text | Verdict | KeyFigures | Table | Bars | ImageGrid | Figure | Columns | Fold


@dataclass(frozen=True)
class Section:
    """A titled part of the page; `lead` is the sentence under the title."""

    title: str
    blocks: tuple[Block, ...]
    lead: str = ""

    @property
    def anchor(self) -> str:
        """The section's address within the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    """The whole page: `opening` blocks come before the list of contents, `footer` at the end."""

    title: str
    subtitle: str
    opening: tuple[Block, ...]
    sections: tuple[Section, ...]
    kicker: str = ""
    footer: str = ""
