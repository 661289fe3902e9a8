"""Held-out likelihood of a model with a density, beside that of its base."""

from __future__ import annotations

from gebm.evaluation.report import (
    Block,
    Cell,
    Column,
    Columns,
    Interval,
    KeyFigure,
    Section,
    Table,
    Text,
    Tone,
    draw_intervals,
)
from gebm.launch.report.formats import Likelihood
from gebm.launch.report.wording import number


def likelihood_section(found: Likelihood) -> Section:
    """A table of both, their difference with its bound drawn, and what was concluded from it."""
    c = found.log_partition
    rows = (
        (Cell("Generator", tone="first"), Cell(number(found.base, 4)), Cell(number(found.base_error))),
        (
            Cell("Model", "with the log-partition, whose error is apart", "second"),
            Cell(number(found.model, 4)),
            Cell(number(found.model_error)),
        ),
        (
            Cell("Model minus generator", "paired, point by point"),
            Cell(number(found.difference)),
            Cell(number(found.difference_error)),
        ),
        (
            Cell("Log-partition c", f"{number(c.draws)} draws, worth {number(c.effective_draws)} of equal weight"),
            Cell(number(c.value)),
            Cell(number(c.standard_error)),
        ),
    )
    columns = (Column("Nats a point"), Column("Value", "right"), Column("Std. error", "right"))
    blocks: tuple[Block, ...] = (
        Columns((Table(columns, rows, narrow="cards"), _difference_figure(found)), 330),
        Text(_verdict_words(found), "body" if found.better else "warning"),
    )
    lead = (
        f"Negative log-likelihood of {number(found.points)} held-out points; lower is better. The base has a density, "
        "so the model is a normalised density too."
    )
    return Section("Likelihood", blocks, lead)


def likelihood_figure(found: Likelihood) -> KeyFigure:
    """The difference of both, among the numbers to remember."""
    bound = f"nats a point, model minus generator: lower is better; upper bound {number(found.difference_upper)}"
    return KeyFigure("Negative log-likelihood", number(found.difference), bound, "good" if found.better else "plain")


def _difference_figure(found: Likelihood) -> Block:
    tone: Tone = "good" if found.better else "plain"
    reach = found.difference_upper - found.difference
    return draw_intervals(
        [Interval("", found.difference, found.difference - reach, found.difference_upper, tone)],
        title="Model minus generator",
        x_label="nats a point; left of the dashed line the model is better",
        alt=f"The difference {number(found.difference)} with its bounds up to {number(found.difference_upper)}, "
        "and a line at 0.",
        caption=f"Bounds for the held-out points and for the log-partition, at level {found.level:g} together.",
        level=0.0,
    )


def _verdict_words(found: Likelihood) -> str:
    bound = f"the upper bound of the difference is {number(found.difference_upper)}"
    if found.better:
        return f"The model is better than its generator: {bound}, below 0."
    if found.difference_upper < 0:
        draws = number(found.log_partition.effective_draws)
        return f"Not decided: {bound}, but the log-partition rests on no more than {draws} effective draws."
    return f"Not shown to be better than its generator: {bound}, not below 0."
