"""Random draws of training, each a function of (seed, stage, step): no random state, whatever the workers."""

from __future__ import annotations

import torch
from torch import Tensor

from gebm.cluster.randomness import derive_seed


class GlobalNoise:
    """Draws for the global batch, of which a worker keeps its rows: the same noise for any number of workers."""

    def __init__(self, seed: int, batch_size: int, rows: Tensor, device: torch.device, dtype: torch.dtype):
        self.seed, self.batch_size, self.rows = seed, batch_size, rows
        self.device, self.dtype = device, dtype

    def _generator(self, stage: str, step: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, stage, step))

    def normal(self, stage: str, step: int, dimension: int) -> Tensor:
        """This worker's rows of `(batch_size, dimension)` standard normals."""
        draws = torch.randn(self.batch_size, dimension, generator=self._generator(stage, step))
        return draws[self.rows].to(self.device, self.dtype)

    def uniform(self, stage: str, step: int) -> Tensor:
        """This worker's rows of `(batch_size,)` uniforms on [0, 1)."""
        draws = torch.rand(self.batch_size, generator=self._generator(stage, step))
        return draws[self.rows].to(self.device, self.dtype)

    def labels(self, stage: str, step: int, classes: int | None) -> Tensor | None:
        """This worker's rows of `(batch_size,)` int64 labels, uniform over the classes; None without classes."""
        if classes is None:
            return None
        draws = torch.randint(classes, (self.batch_size,), generator=self._generator(stage, step))
        return draws[self.rows].to(self.device)
