"""Errors by which training ends and after which no group is started again."""

from __future__ import annotations

from gebm.cluster.errors import InputError
from gebm.trainer.guard import TrainingDivergedError

FINAL: dict[str, type[InputError]] = {"InputError": InputError, "TrainingDivergedError": TrainingDivergedError}
"""Errors of workers that would come again, by the name under which they go to the driver."""


class TrainingStopped(Exception):
    """Training was told to stop, and has: what was done is a checkpoint."""

    def __init__(self, round_number: int, rounds: int):
        super().__init__(
            f"training stopped at round {round_number:,} of {rounds:,}, of which there is a checkpoint; "
            "the same command goes on from there"
        )
        self.round = round_number
