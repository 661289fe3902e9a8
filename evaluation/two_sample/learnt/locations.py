"""ME and SCF: mean embeddings and smoothed characteristic functions at a few learnt locations (Jitkrittum et al. 2016).

ME: `f_j(z) = exp(-‖z - t_j‖²/(2 s²))` at locations t_j. SCF: `f_j(z) = exp(-‖z/s‖²/2) (sin, cos)(z·v_j/s)` at
frequencies v_j. Locations and width maximise the statistic of the training half, `lambda = n w' (S + gamma I)^(-1) w`,
`w` the mean and S the covariance of `f(x_i) - f(y_i)`.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.bandwidth import median_bandwidth
from gebm.evaluation.two_sample.samples import Sample, as_sample, as_samples

REGULARISATION = 1e-4


@dataclass(frozen=True)
class LocationSettings:
    """How locations are learnt.

    Attributes:
        count: J.
        steps: of Adam.
        learning_rate: of Adam; of ME's locations, in units of the points' spread.
    """

    count: int = 5
    steps: int = 300
    learning_rate: float = 0.05

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"{name}: must be positive, got {value}")


@dataclass(frozen=True)
class Locations:
    """Where the samples are compared.

    Attributes:
        kind: `me` or `scf`.
        centre: `(d,)`, that is taken from points first: the mean of the training points.
        places: `(J, d)`, locations or frequencies.
        width: s.
    """

    kind: Literal["me", "scf"]
    centre: torch.Tensor
    places: torch.Tensor
    width: float

    def features(self, points: Sample, device: str | torch.device | None = None) -> torch.Tensor:
        """`(n, J)` for `me`, `(n, 2J)` for `scf`, float64."""
        flat = as_sample(points, "points", device, fewest=1).to(torch.float64) - self.centre
        return _features(self.kind, flat, self.places, torch.tensor(self.width, dtype=torch.float64))


def optimise_locations(
    x: Sample,
    y: Sample,
    *,
    kind: Literal["me", "scf"],
    settings: LocationSettings | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Locations:
    """Locations that tell `x` from `y` best, by Adam on lambda from points of the training half (ME) or random
    frequencies (SCF).

    Args:
        x: `(n, d)`, or images, which are flattened.
        y: `(m, d)`; pairs are made of as many points as the smaller sample has.
        kind: `me` or `scf`.
        settings: None for the defaults.
        seed: of where it starts.
        device: where to compute; None for that of `x`.

    Raises:
        InputError: samples that cannot be compared.
    """
    settings = settings or LocationSettings()
    points_x, points_y = (side.to(torch.float64) for side in as_samples({"x": x, "y": y}, device))
    n, rng = min(len(points_x), len(points_y)), np.random.default_rng(derive_seed(seed, "two_sample_learnt", kind))
    points_x, points_y = (
        side[torch.from_numpy(rng.permutation(len(side))[:n]).to(side.device)] for side in (points_x, points_y)
    )
    pooled = torch.cat([points_x, points_y])
    centre = pooled.mean(0)
    pooled = (pooled - centre)[torch.from_numpy(rng.permutation(2 * n)).to(pooled.device)]
    width = median_bandwidth(pooled, "gaussian")
    if kind == "me":
        start = pooled[torch.arange(settings.count, device=pooled.device) % (2 * n)].clone()
    else:
        start = torch.from_numpy(rng.normal(size=(settings.count, pooled.shape[1]))).to(pooled.device)
    places = start.requires_grad_()
    log_width = torch.tensor(np.log(width), dtype=torch.float64, device=pooled.device, requires_grad=True)
    # A step of Adam is of the size of its rate, whatever the gradient.
    spread = float(pooled.std()) or 1.0 if kind == "me" else 1.0
    rate = settings.learning_rate
    optimiser = torch.optim.Adam([{"params": [places], "lr": rate * spread}, {"params": [log_width], "lr": rate}])
    for _ in range(settings.steps):
        apart = [_features(kind, side - centre, places, log_width.exp()) for side in (points_x, points_y)]
        optimiser.zero_grad()
        (-_separation(apart[0] - apart[1])).backward()
        optimiser.step()
    return Locations(kind, centre, places.detach(), float(log_width.detach().exp()))


def _features(kind: str, points: torch.Tensor, places: torch.Tensor, width: torch.Tensor) -> torch.Tensor:
    if kind == "me":
        squared = torch.cdist(points, places, compute_mode="donot_use_mm_for_euclid_dist").square()
        return torch.exp(-0.5 * squared / width**2)
    scaled = points / width
    angles = scaled @ places.T
    return torch.exp(-0.5 * scaled.square().sum(1, keepdim=True)) * torch.cat([angles.sin(), angles.cos()], 1)


def _separation(apart: torch.Tensor) -> torch.Tensor:
    """`n w' (S + gamma I)^(-1) w` of rows `f(x_i) - f(y_i)`."""
    mean = apart.mean(0)
    residuals = apart - mean
    covariance = residuals.T @ residuals / (len(apart) - 1)
    regular = covariance + REGULARISATION * torch.eye(len(mean), dtype=apart.dtype, device=apart.device)
    return len(apart) * mean @ torch.linalg.solve(regular, mean)
