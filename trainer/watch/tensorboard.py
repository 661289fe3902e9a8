"""A run's metrics for TensorBoard: event files in `tensorboard/` of the run.

Object stores cannot append: there the events are written to a temporary directory and published with each checkpoint.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gebm.cluster import storage


class TensorBoardWriter:
    """Writes the records of one run from `round_number` on; what an earlier process wrote beyond it is void."""

    def __init__(self, run: str, round_number: int):
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self._url = storage.join(run, "tensorboard")
        local = storage.local_path(self._url)
        self._temporary = tempfile.TemporaryDirectory() if local is None else None
        self._folder = Path(self._temporary.name) if self._temporary is not None else local
        self._writer = SummaryWriter(str(self._folder), purge_step=round_number + 1)

    def write(self, record: dict[str, Any], picture: np.ndarray | None = None) -> None:
        """All numbers of a record as scalars, its event as text, `picture` `(height, width, 4)` as the grid."""
        round_number = record["round"]
        for name, value in record.items():
            if isinstance(value, (int, float)) and name not in ("round", "rounds"):
                self._writer.add_scalar(name, value, round_number)
        if "event" in record:
            self._writer.add_text("event", record["event"], round_number)
        if picture is not None:
            self._writer.add_image("samples", picture, round_number, dataformats="HWC")
        self._writer.flush()

    def publish(self) -> None:
        """Bring what was written so far to storage that is not local."""
        if self._temporary is None or self._folder is None:
            return
        for file in self._folder.iterdir():
            storage.write_bytes_atomic(storage.join(self._url, file.name), file.read_bytes())

    def close(self) -> None:
        """Write and publish the last of it."""
        self._writer.close()
        self.publish()
        if self._temporary is not None:
            self._temporary.cleanup()
