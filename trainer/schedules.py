"""Learning-rate schedules: pure functions of the step of a phase.

A rate is `learning_rate * factor`, the factor 1 at its highest. Only `plateau` has a memory, the readings of a
validation metric: a value of its own, which the training state keeps.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from gebm.cluster.settings import StrictModel

Shape = Literal["constant", "linear", "exponential", "cosine", "step", "plateau"]
Share = Annotated[float, Field(ge=0.0, le=1.0)]

# Which keys each shape reads: others would be silently without effect.
_READ: dict[Shape, set[str]] = {
    "constant": set(),
    "linear": {"final"},
    "exponential": {"final"},
    "cosine": {"final"},
    "step": {"factor", "every", "times"},
    "plateau": {"factor", "metric", "patience", "threshold", "times"},
}


class Schedule(StrictModel):
    """How a learning rate moves over the steps of its phase, `t` of `n` done, `s = t / n`.

    constant: 1. linear: `1 - (1 - final) s`. exponential: `final ^ s`. cosine:
    `final + (1 - final) (1 + cos(pi s)) / 2`. step: `factor ^ min(floor(t / every), times)`; the reference of Arbel,
    Zhou and Gretton (2021) has factor 0.8, every 5,000 base steps, 30 times. plateau: `factor ^ k`, `k` the number of
    times, at most `times`, that the validation metric went `patience` readings without getting better.
    Over the first `warmup` steps all of them are multiplied by `(t + 1) / warmup`.
    """

    shape: Shape
    warmup: NonNegativeInt = 0  # steps
    final: Share = 0.0  # share of the rate that is left at the end of the phase; exponential: more than 0
    factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.8
    every: PositiveInt = 5000  # steps
    times: NonNegativeInt = 30
    metric: Literal["fid", "kid", "kale"] = "fid"  # on validation data; KALE is better when higher
    patience: PositiveInt = 3  # readings
    threshold: Share = 0.01  # a reading counts as better when it beats the best by this share of its size

    @model_validator(mode="after")
    def _no_key_without_effect(self) -> Schedule:
        fields = type(self).model_fields
        given = {name for name in fields if getattr(self, name) != fields[name].default}
        if idle := given - _READ[self.shape] - {"shape", "warmup"}:
            raise ValueError(f"a {self.shape} schedule does not read {', '.join(sorted(idle))}; leave it out")
        if self.shape == "exponential" and self.final <= 0.0:
            raise ValueError("an exponential schedule needs final above 0: it never gets to 0")
        return self


class Plateau(NamedTuple):
    """What a plateau schedule remembers."""

    best: float | None = None
    """The best reading so far, None before the first."""
    waited: int = 0
    """Readings since then, or since the last reduction."""
    reductions: int = 0
    """How often the rate was lowered."""


NO_READING = Plateau()


def rate_factor(schedule: Schedule, step: int, steps: int, plateau: Plateau = NO_READING) -> float:
    """The factor of the learning rate at step `step`, from 0, of a phase of `steps`."""
    warm = min(1.0, (step + 1) / schedule.warmup) if schedule.warmup else 1.0
    return warm * _shape_factor(schedule, step, steps, plateau)


def _shape_factor(schedule: Schedule, step: int, steps: int, plateau: Plateau) -> float:
    share = step / steps
    match schedule.shape:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - (1.0 - schedule.final) * share
        case "exponential":
            return schedule.final**share
        case "cosine":
            return schedule.final + (1.0 - schedule.final) * (1.0 + math.cos(math.pi * share)) / 2.0
        case "step":
            return schedule.factor ** min(step // schedule.every, schedule.times)
        case "plateau":
            return schedule.factor**plateau.reductions


def after_reading(schedule: Schedule, plateau: Plateau, value: float) -> Plateau:
    """The memory of a plateau schedule after its metric read `value`.

    After a reduction the wait begins anew; the best reading stays what it was.
    """
    if plateau.best is None or _better(schedule, value, plateau.best):
        return Plateau(value, 0, plateau.reductions)
    waited = plateau.waited + 1
    if waited < schedule.patience:
        return Plateau(plateau.best, waited, plateau.reductions)
    return Plateau(plateau.best, 0, min(plateau.reductions + 1, schedule.times))


def _better(schedule: Schedule, value: float, best: float) -> bool:
    margin = schedule.threshold * abs(best)
    return value > best + margin if schedule.metric == "kale" else value < best - margin
