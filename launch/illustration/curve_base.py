"""Generators whose law is known: a mixture on the line, and points along a curve in the plane, from one latent.

They come to training as foreign bases (`[model.foreign] generator = "gebm.launch.illustration.curve_base:..."`):
where they put their mass is chosen, so that what the energy does about it can be checked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.stats import norm
from torch import Tensor, nn

from gebm.launch.data.toy import CURVES, MIXTURES

KNOTS = 4097  # of the tables: the gaps are far below what is drawn or counted
FARTHEST = 6.0  # standard deviations from its mean at which a component's quantile table ends


class MixtureBase(nn.Module):
    """Latents `(n, 1)`, standard normal, to points `(n, 1)`: the components of `mixture` with other `weights`.

    The map is the quantile function `F^{-1}(Phi(z))`, interpolated. Raises `ValueError` unless there is one positive
    weight for each component and they add up to 1.
    """

    points: Tensor
    probabilities: Tensor

    def __init__(self, mixture: str, weights: Sequence[float]):
        super().__init__()
        components = MIXTURES[mixture]
        if len(weights) != len(components) or min(weights) <= 0 or abs(sum(weights) - 1) > 1e-6:
            raise ValueError(f"weights {list(weights)} are not {len(components)} positive shares of 1")
        _, means, deviations = np.array(components).T
        points = np.linspace((means - FARTHEST * deviations).min(), (means + FARTHEST * deviations).max(), KNOTS)
        cumulative = norm.cdf((points[:, None] - means) / deviations) @ np.array(weights)
        # float64: the tails of the table are closer together than float32 can tell apart.
        self.register_buffer("points", torch.from_numpy(points))
        self.register_buffer("probabilities", torch.from_numpy(cumulative))

    def forward(self, latent: Tensor) -> Tensor:
        quantile = torch.special.ndtr(latent[:, 0].double()).contiguous()
        after = torch.searchsorted(self.probabilities.double(), quantile).clamp(1, KNOTS - 1)
        low, high = self.probabilities.double()[after - 1], self.probabilities.double()[after]
        share = ((quantile - low) / (high - low).clamp_min(1e-300)).clamp(0, 1)
        return torch.lerp(self.points.double()[after - 1], self.points.double()[after], share)[:, None].to(latent.dtype)


class CurveBase(nn.Module):
    """Latents `(n, 1)`, standard normal, to points `(n, 2)`: a curve of the toy data, position `t = Phi(z)` uniform.

    The curve is stretched by `scale` and moved by `shift`, (x, y) each: other values than 1 and 0 are a wrong
    support. Both are parameters, so that training that is allowed to move the base can put it right.
    """

    knots: Tensor

    def __init__(self, curve: str, scale: Sequence[float] = (1.0, 1.0), shift: Sequence[float] = (0.0, 0.0)):
        super().__init__()
        x, y = CURVES[curve](np.linspace(0.0, 1.0, KNOTS))
        self.register_buffer("knots", torch.from_numpy(np.stack([x, y], axis=1)).float())
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float32))
        self.shift = nn.Parameter(torch.tensor(shift, dtype=torch.float32))

    def forward(self, latent: Tensor) -> Tensor:
        place = torch.special.ndtr(latent[:, 0]) * (KNOTS - 1)
        before = place.detach().floor().long().clamp(0, KNOTS - 2)
        share = (place - before)[:, None]
        return torch.lerp(self.knots[before], self.knots[before + 1], share) * self.scale + self.shift
