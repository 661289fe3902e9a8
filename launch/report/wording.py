"""How numbers and missing parts are written in a report."""

from __future__ import annotations

import math
from typing import Any

from gebm.evaluation.report import Text


def number(value: Any, digits: int = 3) -> str:
    """A number with that many significant digits, thousands separated; a dash for none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if not math.isfinite(value):
        return "∞" if value > 0 else "−∞"
    size = abs(value)
    if size != 0 and not 1e-4 <= size < 1e7:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}".replace("-", "−")
    decimals = digits if size == 0 else max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:,.{decimals}f}".replace("-", "−")


def fixed(value: float, decimals: int = 2) -> str:
    """A number with that many decimals, for the ends of an interval."""
    return f"{value:,.{decimals}f}".replace("-", "−")


def p_value(value: Any) -> str:
    """A p-value; below 0.0001 only that it is below."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return "< 0.0001" if value < 1e-4 else number(float(value), 2)


def p_words(value: Any) -> str:
    """`p = 0.012` or `p < 0.0001`."""
    text = p_value(value)
    return f"p {text}" if text.startswith("<") else f"p = {text}"


def duration(seconds: float) -> str:
    """Seconds as a reader says them: `41 s`, `6 min 12 s`, `3 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"


def missing(what: str, command: str) -> Text:
    """The sentence that stands where a part of the report could not be made, and what makes it."""
    return Text(f"{what} `{command}`", "missing")
