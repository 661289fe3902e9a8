"""What a training run is, as the driver hands it to its workers."""

from __future__ import annotations

from dataclasses import dataclass

from gebm.trainer.model import ModelSettings
from gebm.trainer.settings import TrainerSettings


@dataclass(frozen=True)
class TrainingJob:
    """All that a worker must know; small, and the same for every worker."""

    run: str  # absolute URL
    data: str  # absolute URL of an indexed shard set
    validation: str | None  # absolute URL of another one, of the same shape
    run_digest: str
    model: ModelSettings
    settings: TrainerSettings
    seed: int
