"""What a worker works with from its start to its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gebm.cluster.lanes import LaneReader
from gebm.trainer.checkpoints.saver import Saver
from gebm.trainer.council import Council
from gebm.trainer.workers import Workers

if TYPE_CHECKING:
    from gebm.trainer.job import TrainingJob


@dataclass(frozen=True)
class Kit:
    """One a worker."""

    job: TrainingJob
    workers: Workers
    reader: LaneReader
    council: Council
    saver: Saver
