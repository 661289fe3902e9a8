"""The curves of training, both phases on one axis."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gebm.evaluation.report import Block, Columns, ImageGrid, Line, Mark, Section, Text, Tone, draw_lines
from gebm.launch.report.contents import RunContents, SampleGrid
from gebm.launch.report.wording import missing, number
from gebm.trainer.settings import TrainerSettings

GRIDS_SHOWN = 6


class Curve(NamedTuple):
    """One figure: lines by the key of the metrics that they show."""

    title: str
    caption: str
    lines: tuple[tuple[str, str, Tone], ...]
    error: str | None = None
    """Key of the standard error of the first line, drawn as a band of two."""


_CURVES = (
    Curve(
        "Critic loss",
        "What the energy lowers: the loss of the objective `{objective}`.",
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
        "Log-partition against fresh draws",
        "The value that training tracks, and an estimate from prior draws of its own with two standard errors.",
        (
            ("log_partition_fresh", "fresh estimate", "reference"),
            ("log_partition_tracked", "tracked", "fourth"),
        ),
        "log_partition_fresh_error",
    ),
    Curve(
        "KALE, training and validation",
        "On equally many samples and the same generated ones. A growing distance of the two is memorisation.",
        (("kale_validation", "validation", "reference"), ("kale_train", "training", "second")),
    ),
    Curve(
        "KALE, training minus validation",
        "With two standard errors: above 0 by more, the energy knows its training samples by heart.",
        (("kale_gap", "training minus validation", "third"),),
        "kale_gap_error",
    ),
    Curve(
        "FID of a small sample",
        "Against validation samples, of the averaged generator, and in the energy phase of the model’s short chains. "
        "Few samples: comparable along the curve only.",
        (("fid", "FID", "first"),),
    ),
    Curve(
        "Gradient norms",
        "Before clipping.",
        (("energy_gradient_norm", "energy", "second"), ("base_gradient_norm", "generator", "first")),
    ),
    Curve(
        "Learning rates",
        "By the schedules of the recipe.",
        (("learning_rate_energy", "energy", "second"), ("learning_rate_base", "generator", "first")),
    ),
    Curve(
        "Negative log-likelihood of the generator",
        "Nats a point, in the phase of maximum likelihood: of the batch, and of the averaged generator.",
        (
            ("negative_log_likelihood", "batch", "fourth"),
            ("negative_log_likelihood_train", "training", "second"),
            ("negative_log_likelihood_validation", "validation", "reference"),
        ),
    ),
    Curve(
        "Gradient penalty",
        "Mean squared norm of the energy’s gradient, between real and generated samples, before its weight.",
        (("penalty", "penalty", "first"),),
    ),
    Curve(
        "Base loss",
        "What the generator lowers; the energy phase leaves it as it is.",
        (("base_loss", "base loss", "second"),),
    ),
)


_OF_LIKELIHOODS = "Minus the KALE bound: 0 where the energy sees no difference between real and generated samples."


def training_section(contents: RunContents) -> Section:
    """Small figures of what training saw, what had to be done to it, and samples on the way."""
    if not contents.metrics:
        absent = missing("No training metrics yet. This trains a model:", f"gebm train RECIPE --out {contents.run}")
        return Section("Training", (absent,))
    marks = phase_marks(contents.metrics)
    trainer = contents.recipe.trainer
    captions = {"Critic loss": _OF_LIKELIHOODS} if trainer.objective in ("kale", "donsker_varadhan") else {}
    drawn = (
        _draw(
            curve, contents.metrics, marks, captions.get(curve.title, curve.caption).format(objective=trainer.objective)
        )
        for curve in _CURVES
    )
    figures = tuple(figure for figure in drawn if figure is not None)
    phases = (
        (trainer.base.steps, "steps of maximum likelihood of the generator"),
        (trainer.joint.steps, "base steps of generator and energy together"),
        (trainer.energy.steps, "steps of the energy alone, on the averaged generator that is kept"),
    )
    lead = ", then ".join(f"{number(steps)} {words}" for steps, words in phases if steps)
    lead += f"; batches of {trainer.batch_size}."
    blocks: list[Block] = [Text(f"{event}.", "warning") for event in contents.events]
    if figures:
        blocks.append(Columns(figures, 300))
    if contents.grids:
        shown = [contents.grids[place] for place in _spread_over(len(contents.grids))]
        blocks.append(Text(_grid_words(trainer)))
        blocks.append(Columns(tuple(_picture(grid) for grid in shown), 230))
    return Section("Training", tuple(blocks), lead)


def _grid_words(trainer: TrainerSettings) -> str:
    """What the grids of samples show."""
    words = "The same latents through the averaged generator as training went on"
    if not trainer.energy.steps:
        return f"{words}."
    if trainer.energy.chain_steps:
        return f"{words}; in the energy phase, where it stands still, the chains that run beside it."
    return f"{words}; in the energy phase, where it stands still, from low to high energy."


def _spread_over(count: int) -> list[int]:
    """At most `GRIDS_SHOWN` places out of `count`, evenly, first and last among them."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, GRIDS_SHOWN))})


def _picture(grid: SampleGrid) -> ImageGrid:
    caption = f"After round {number(grid.round)}."
    return ImageGrid(grid.picture[None], 1, f"A grid of samples after round {grid.round}.", caption=caption)


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


def _draw(curve: Curve, metrics: list[dict[str, Any]], marks: list[Mark], caption: str) -> Block | None:
    lines: list[Line] = []
    last: list[str] = []
    for key, label, tone in curve.lines:
        # Readings at intervals are joined over the lines between them.
        known = [record for record in metrics if _value(record, key) is not None]
        if not known:
            continue
        rounds, values = [record["round"] for record in known], [_value(record, key) or 0.0 for record in known]
        band = None
        if curve.error is not None and key == curve.lines[0][0]:
            spread = 2 * np.array([record.get(curve.error) or 0.0 for record in known])
            band = (np.array(values) - spread, np.array(values) + spread)
        lines.append(Line(label, rounds, values, tone, band))
        last.append(f"{label} {number(values[-1])}")
    if not lines:
        return None
    return draw_lines(
        lines,
        title=curve.title,
        x_label="rounds",
        alt=f"{curve.title} over the rounds of training; at the end: {', '.join(last)}.",
        caption=caption,
        marks=marks,
        early_share=0.1,  # an untrained energy is off by orders of magnitude
    )


def _value(record: dict[str, Any], key: str) -> float | None:
    return energy_gap(record) if key == "energy_gap" else record.get(key)
