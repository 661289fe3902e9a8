"""Stopping a training run that has diverged, while its last good checkpoint is still there."""

from __future__ import annotations

import math

from gebm.cluster.errors import InputError


class TrainingDivergedError(InputError):
    """A loss or an energy is no number any more, or beyond all sense. Names the round; checkpoints are kept."""


def check(values: dict[str, float], *, round_number: int, energy_limit: float) -> None:
    """Raise `TrainingDivergedError` when a metric is not finite or a mean of `E + c` is beyond `energy_limit`.

    `E + c` and not `E`: a constant in `E` means nothing, and drifts.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingDivergedError(_message(name, value, round_number, "is not finite"))
    for name in values.keys() & {"energy_real", "energy_fake"}:
        level = values[name] + values["log_partition"]
        if abs(level) > energy_limit:
            what = f"is beyond trainer.energy_limit = {energy_limit:g}"
            raise TrainingDivergedError(_message(f"{name} + log_partition", level, round_number, what))


def _message(name: str, value: float, round_number: int, what: str) -> str:
    return (
        f"training diverged in round {round_number}: {name} = {value:g} {what}; the last good checkpoint is kept. "
        "Lower trainer.joint.energy_learning_rate and base_learning_rate, or raise trainer.joint.gradient_penalty"
    )
