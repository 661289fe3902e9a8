"""The curves of training, both phases on one axis."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any, NamedTuple

from gebm.evaluation.report import Block, Columns, Line, Mark, Section, Tone, draw_lines
from gebm.launch.report.contents import RunContents
from gebm.launch.report.wording import missing, number


class Curve(NamedTuple):
    """One figure: lines by the key of the metrics that they show."""

    title: str
    caption: str
    lines: tuple[tuple[str, str, Tone], ...]


_CURVES = (
    Curve(
        "Critic loss",
        "Minus the KALE bound: 0 where the energy sees no difference between real and generated images.",
        (("critic_loss", "critic loss", "second"),),
    ),
    Curve(
        "Energy of the batch",
        "Lower is likelier; the distance of the two is the gap.",
        (("energy_real", "real", "reference"), ("energy_fake", "generated", "first")),
    ),
    Curve(
        "Energy gap",
        "Generated minus real: what is left for the energy to tell apart.",
        (("energy_gap", "energy gap", "third"),),
    ),
    Curve(
        "Log-partition",
        "The tracked value follows the log-mean-exp of each batch.",
        (
            ("log_mean_exp", "log-mean-exp of the batch", "reference"),
            ("log_partition", "tracked", "fourth"),
        ),
    ),
    Curve(
        "Gradient penalty",
        "Mean squared norm of the energy’s gradient, between real and generated images, before its weight.",
        (("penalty", "penalty", "first"),),
    ),
    Curve(
        "Base loss",
        "What the generator lowers; the energy phase leaves it as it is.",
        (("base_loss", "base loss", "second"),),
    ),
)


def training_section(contents: RunContents) -> Section:
    """Small figures: critic loss, energies and their gap, log-partition, penalty, base loss."""
    if not contents.metrics:
        absent = missing("No training metrics yet. This trains a model:", f"gebm train RECIPE --out {contents.run}")
        return Section("Training", (absent,))
    marks = phase_marks(contents.metrics)
    drawn = (_draw(curve, contents.metrics, marks) for curve in _CURVES)
    figures = tuple(figure for figure in drawn if figure is not None)
    trainer = contents.recipe.trainer
    lead = (
        f"{number(trainer.joint.steps)} base steps of generator and energy together, then "
        f"{number(trainer.energy.steps)} steps of the energy alone, on the averaged generator that is kept; "
        f"batches of {trainer.batch_size}."
    )
    return Section("Training", (Columns(figures, 300),) if figures else (), lead)


def phase_marks(metrics: list[dict[str, Any]]) -> list[Mark]:
    """Where each phase after the first begins: behind the last round of the one before."""
    return [
        Mark(before["round"], f"{after['phase']} phase")
        for before, after in pairwise(metrics)
        if before["phase"] != after["phase"]
    ]


def energy_gap(record: dict[str, Any]) -> float | None:
    """`E(generated) - E(real)` of a record."""
    fake, real = record.get("energy_fake"), record.get("energy_real")
    return None if fake is None or real is None else fake - real


def _draw(curve: Curve, metrics: list[dict[str, Any]], marks: list[Mark]) -> Block | None:
    rounds = [record["round"] for record in metrics]
    lines: list[Line] = []
    last: list[str] = []
    for key, label, tone in curve.lines:
        values = [energy_gap(record) if key == "energy_gap" else record.get(key) for record in metrics]
        if any(value is not None for value in values):
            lines.append(Line(label, rounds, [math.nan if v is None else v for v in values], tone))
            last.append(f"{label} {number(next(v for v in reversed(values) if v is not None))}")
    if not lines:
        return None
    return draw_lines(
        lines,
        title=curve.title,
        x_label="rounds",
        alt=f"{curve.title} over the rounds of training; at the end: {', '.join(last)}.",
        caption=curve.caption,
        marks=marks,
        early_share=0.1,  # an untrained energy is off by orders of magnitude
    )
