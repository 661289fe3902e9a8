"""What rank 0 writes of a run while it goes on: lines of metrics, TensorBoard, grids."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from gebm.trainer.guard import rollback_records
from gebm.trainer.metrics import MetricsWriter
from gebm.trainer.state import TrainingState
from gebm.trainer.watch.grids import drop_grids_after, write_grid
from gebm.trainer.watch.tensorboard import TensorBoardWriter

if TYPE_CHECKING:
    from gebm.trainer.job import TrainingJob

Post = Callable[[dict[str, Any]], None]


class Keeper:
    """Writes from one state on. What a run that was interrupted or rolled back wrote beyond that state is dropped.

    `post` takes the records as they are written.
    """

    def __init__(self, job: TrainingJob, state: TrainingState, post: Post):
        self.job, self.post = job, post
        self._metrics = MetricsWriter(job.run, state.round)
        drop_grids_after(job.run, state.round)
        self._tensorboard = TensorBoardWriter(job.run, state.round) if job.settings.watch.tensorboard else None
        for record in rollback_records(state.rollbacks, state.round, state.phase, job.settings.rollback_factor):
            self._metrics.write(record)
            if self._tensorboard is not None:
                self._tensorboard.write(record)

    def write(self, record: dict[str, Any], timings: dict[str, Any], picture: np.ndarray | None) -> None:
        """Keep and post the line of a round, and its grid."""
        self._metrics.write(record, timings)
        if picture is not None:
            write_grid(self.job.run, record["round"], picture)
        if self._tensorboard is not None:
            self._tensorboard.write(record | timings, picture)
        self.post(record | timings | {"rounds": self.job.settings.rounds})

    def begin_segment(self, round_number: int) -> None:
        """What comes now comes after the checkpoint of `round_number`: a run that goes on from there drops it whole."""
        if self._tensorboard is not None:
            self._tensorboard.publish()
        self._metrics.next_segment(round_number)

    def close(self) -> None:
        """Nothing more comes."""
        if self._tensorboard is not None:
            self._tensorboard.close()
