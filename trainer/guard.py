"""Noticing that a training run has diverged, and what is remembered of it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from gebm.cluster.errors import InputError
from gebm.trainer.settings import Phase

ADVICE: dict[Phase, str] = {
    "base": "Lower trainer.base.learning_rate",
    "joint": "Lower trainer.joint.energy_learning_rate and base_learning_rate, or raise trainer.joint.gradient_penalty",
    "energy": "Lower trainer.energy.learning_rate, or raise trainer.energy.gradient_penalty",
}


class TrainingDivergedError(InputError):
    """A loss or an energy is no number any more, or beyond all sense. Names the round; checkpoints are kept."""

    reason: str
    round_number: int

    @classmethod
    def because(cls, reason: str, round_number: int, phase: Phase) -> TrainingDivergedError:
        """The error with its message."""
        error = cls(
            f"training diverged in round {round_number}: {reason}; the last good checkpoint is kept. {ADVICE[phase]}"
        )
        error.reason, error.round_number = reason, round_number
        return error


class Rollback(NamedTuple):
    """A return to an earlier round, after which all learning rates are lower."""

    diverged: int
    """The round in which training diverged."""
    to: int
    """The round of the checkpoint that it went back to."""
    reason: str

    def record(self, phase: Phase, learning_rate_scale: float) -> dict[str, Any]:
        """The line of metrics that tells of it, with the sentence for whoever watches."""
        return {
            "phase": phase,
            "round": self.to,
            "event": (
                f"training diverged in round {self.diverged} ({self.reason}); back at round {self.to} with "
                f"learning rates times {learning_rate_scale:g}"
            ),
            "rolled_back_from": self.diverged,
            "learning_rate_scale": learning_rate_scale,
        }


def rollback_records(
    rollbacks: tuple[Rollback, ...], round_number: int, phase: Phase, factor: float
) -> list[dict[str, Any]]:
    """The lines of metrics of the roll-backs to just this round: they begin the segment that comes after it."""
    return [
        rollback.record(phase, factor**number)
        for number, rollback in enumerate(rollbacks, 1)
        if rollback.to == round_number
    ]


def check_values(values: dict[str, float], *, round_number: int, phase: Phase, energy_limit: float) -> None:
    """Raise `TrainingDivergedError` when a metric is not finite or a mean of `E + c` is beyond `energy_limit`.

    `E + c` and not `E`: a constant in `E` means nothing, and drifts.
    """
    for name, value in values.items():
        if not math.isfinite(value):
            raise TrainingDivergedError.because(f"{name} = {value:g} is not finite", round_number, phase)
    for name in ("energy_real", "energy_fake"):
        level = values[name] + values["log_partition"] if name in values else 0.0
        if abs(level) > energy_limit:
            reason = f"{name} + log_partition = {level:g} is beyond trainer.energy_limit = {energy_limit:g}"
            raise TrainingDivergedError.because(reason, round_number, phase)


def check_weights(networks: dict[str, torch.nn.Module], *, round_number: int, phase: Phase) -> None:
    """Raise `TrainingDivergedError` when a weight is not finite: such a checkpoint would be no good to go back to.

    A round's metrics are taken before its last step, so they may all be numbers when the weights are none.
    """
    for name, network in networks.items():
        if not all(bool(tensor.isfinite().all()) for tensor in network.state_dict().values()):
            raise TrainingDivergedError.because(f"weights of the network {name} are not finite", round_number, phase)
