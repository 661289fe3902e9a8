"""Real batches as the networks see them: a function of the number of the global batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gebm.cluster.lanes import LaneReader
from gebm.trainer.model import from_stored
from gebm.trainer.noise import GlobalNoise


class RealBatch(NamedTuple):
    """This worker's rows of a global batch."""

    images: Tensor
    """`(n, channels, height, width)` in [-1, 1], or vectors `(n, d)` as they are."""
    labels: Tensor | None
    """int64 `(n,)`, None unless the model is conditional."""


RealData = Callable[[int], RealBatch]
"""From the number of a global batch to this worker's rows of it."""


def real_data(
    reader: LaneReader,
    *,
    device: torch.device,
    dtype: torch.dtype,
    conditional: bool,
    flips: GlobalNoise | None = None,
) -> RealData:
    """The batches of `reader`, on `device`, with labels when the model is `conditional`.

    flips: draws that decide which images are mirrored, each with probability 1/2; None: images as they are stored.
    """

    def batch(number: int) -> RealBatch:
        read = reader.batch(number)
        labels = None
        if conditional:
            assert read.labels is not None  # check_job refuses a set without labels
            labels = torch.from_numpy(read.labels).to(device, non_blocking=True)
        images = as_network_input(read.images, device, dtype)
        if flips is not None:
            images = flip_rows(images, flips.uniform("flip", number) < 0.5)
        return RealBatch(images, labels)

    return batch


def as_network_input(stored: np.ndarray, device: torch.device, dtype: torch.dtype) -> Tensor:
    """uint8 images `(n, channels, height, width)` to floats in [-1, 1], float vectors `(n, d)` as they are."""
    values = from_stored(torch.from_numpy(stored).to(device, non_blocking=True), dtype)
    return values.contiguous(memory_format=torch.channels_last) if values.dim() == 4 else values


def flip_rows(images: Tensor, chosen: Tensor) -> Tensor:
    """Images `(n, channels, height, width)`, those of `chosen`, bool `(n,)`, mirrored left to right."""
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)
