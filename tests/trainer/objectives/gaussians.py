"""Two Gaussians on the line, as evenly weighted quantiles: means over them are integrals, without sampling noise."""

from typing import NamedTuple

import torch
from torch import Tensor


class Gaussian(NamedTuple):
    mean: float
    deviation: float

    def quantiles(self, count: int) -> Tensor:
        """The `(i - 1/2) / count` quantiles, `(count,)` float64."""
        levels = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        return self.mean + self.deviation * torch.special.ndtri(levels)

    def log_density(self, x: Tensor) -> Tensor:
        return torch.distributions.Normal(self.mean, self.deviation).log_prob(x)


P, Q = Gaussian(0.6, 0.9), Gaussian(0.0, 1.0)
