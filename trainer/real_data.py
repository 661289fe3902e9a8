"""Real batches as the networks see them: a function of the number of the global batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gebm.cluster.lanes import LaneReader
from gebm.trainer.model import from_stored


class RealBatch(NamedTuple):
    """This worker's rows of a global batch."""

    images: Tensor
    """`(n, channels, height, width)` in [-1, 1], or vectors `(n, d)` as they are."""
    labels: Tensor | None
    """int64 `(n,)`, None unless the model is conditional."""


RealData = Callable[[int], RealBatch]
"""From the number of a global batch to this worker's rows of it."""


def real_data(reader: LaneReader, *, device: torch.device, dtype: torch.dtype, conditional: bool) -> RealData:
    """The batches of `reader`, on `device`, with labels when the model is `conditional`."""

    def batch(number: int) -> RealBatch:
        read = reader.batch(number)
        labels = None
        if conditional:
            assert read.labels is not None  # check_job refuses a set without labels
            labels = torch.from_numpy(read.labels).to(device, non_blocking=True)
        return RealBatch(as_network_input(read.images, device, dtype), labels)

    return batch


def as_network_input(stored: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 images `(n, channels, height, width)` to floats in [-1, 1], float vectors `(n, d)` as they are."""
    values = from_stored(torch.from_numpy(stored).to(device, non_blocking=True), dtype)
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values
