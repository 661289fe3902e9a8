"""From blocks to HTML: one file without scripts, without network, readable at any width."""

from __future__ import annotations

import re
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from gebm.evaluation.report.blocks import Figure, Page


def render_page(page: Page) -> str:
    """The page as a complete HTML document. All text is escaped; only the drawings of `figures.py` are not."""
    here = files("gebm.evaluation.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    numbers = iter(range(1_000_000))
    environment.filters["rich"] = _rich
    # Ids that two drawings share would make one take the other's clip paths and markers.
    environment.filters["drawing"] = lambda figure: _drawing(figure, f"d{next(numbers)}-")
    template = environment.from_string((here / "page.html").read_text(encoding="utf-8"))
    css = Markup((here / "page.css").read_text(encoding="utf-8"))
    return template.render(page=page, css=css)


def _rich(text: str) -> Markup:
    """Escaped text in which `backticks` mark code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _drawing(figure: Figure, prefix: str) -> Markup:
    """The figure's SVG with ids of its own, and its description for screen readers."""
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}\1"', figure.svg)
    svg = svg.replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    opening = f'<svg role="img" aria-label="{escape(figure.alt)}"'
    return Markup(svg.replace("<svg", opening, 1))
