"""Fréchet distance of feature distributions, from streaming statistics (Heusel et al. 2017).

Statistics are count, mean and centred scatter in float64; they merge and subtract (Chan, Golub, LeVeque
1979), so any grouping of the same features gives the same distance, and memory is `O(d²)` whatever the number
of images.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from gebm.cluster.errors import InputError

# Squared ratio of the Cholesky factor's diagonal entries below which a covariance counts as singular and is
# treated by its eigendecomposition instead.
SMALLEST_PIVOT = 1e-10


@dataclass(frozen=True)
class FrechetStatistics:
    """Count, mean and scatter of features.

    Attributes:
        count: how many features.
        mean: `(d,)` float64.
        scatter: `(d, d)` float64, the sum of `(f - mean)(f - mean)ᵀ`.
    """

    count: int
    mean: np.ndarray
    scatter: np.ndarray

    @staticmethod
    def of(features: np.ndarray) -> "FrechetStatistics":
        """Statistics of features `(n, d)`, n >= 0.

        Raises:
            InputError: not a matrix, or NaN or infinity among the features.
        """
        values = np.asarray(features, dtype=np.float64)
        if values.ndim != 2:
            raise InputError(f"features: must be a matrix (n, d), got shape {values.shape}")
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            raise InputError(f"features: {int((~finite).sum())} of {len(values)} hold NaN or infinity")
        if len(values) == 0:
            return FrechetStatistics.empty(values.shape[1])
        mean = values.mean(axis=0)
        centred = values - mean
        return FrechetStatistics(len(values), mean, centred.T @ centred)

    @staticmethod
    def empty(dimension: int) -> "FrechetStatistics":
        """Statistics of no features: the neutral element of `merge`."""
        return FrechetStatistics(0, np.zeros(dimension), np.zeros((dimension, dimension)))

    @property
    def dimension(self) -> int:
        return len(self.mean)

    @property
    def covariance(self) -> np.ndarray:
        """`scatter / (count - 1)`, `(d, d)`.

        Raises:
            InputError: fewer than two features.
        """
        if self.count < 2:
            raise InputError(f"a covariance needs at least two samples, got {self.count}")
        return self.scatter / (self.count - 1)

    def merge(self, other: "FrechetStatistics") -> "FrechetStatistics":
        """Statistics of both sets of features together."""
        if self.count == 0 or other.count == 0:
            return self if other.count == 0 else other
        count = self.count + other.count
        difference = other.mean - self.mean
        mean = self.mean + difference * (other.count / count)
        between = np.outer(difference, difference) * (self.count * other.count / count)
        return FrechetStatistics(count, mean, self.scatter + other.scatter + between)

    def subtract(self, part: "FrechetStatistics") -> "FrechetStatistics":
        """Statistics of the features without those of `part`, which must be among them."""
        count = self.count - part.count
        if count <= 0:
            return FrechetStatistics.empty(self.dimension)
        mean = self.mean + (self.mean - part.mean) * (part.count / count)
        difference = part.mean - mean
        between = np.outer(difference, difference) * (count * part.count / self.count)
        return FrechetStatistics(count, mean, self.scatter - part.scatter - between)


def merge_all(parts: Iterable[FrechetStatistics]) -> FrechetStatistics:
    """All parts merged, in their order."""
    first, *others = parts
    for part in others:
        first = first.merge(part)
    return first


class Moments(Protocol):
    """Mean `(d,)` and covariance `(d, d)`, float64, however they were come by."""

    @property
    def mean(self) -> np.ndarray: ...

    @property
    def covariance(self) -> np.ndarray: ...

    @property
    def dimension(self) -> int: ...


def covariance_root(statistics: Moments) -> torch.Tensor:
    """`L`, `(d, r)` float64, with `L Lᵀ` the covariance; `r < d` when it is singular.

    The Cholesky factor, or, when that does not exist or is close to singular, `V sqrt(Λ)` of the
    eigendecomposition without the directions in which the features do not vary.
    """
    covariance = torch.from_numpy(statistics.covariance)
    factor, failure = torch.linalg.cholesky_ex(covariance)
    if int(failure) == 0:
        pivots = factor.diagonal().square()
        if float(pivots.min()) > SMALLEST_PIVOT * float(pivots.max()):
            return factor
    eigenvalues, vectors = torch.linalg.eigh(covariance)
    keep = eigenvalues > len(eigenvalues) * torch.finfo(torch.float64).eps * eigenvalues.max().clamp(min=0.0)
    return vectors[:, keep] * eigenvalues[keep].sqrt()


def frechet_distance(a: Moments, b: Moments, *, root_of_b: torch.Tensor | None = None) -> float:
    """`‖μ_a - μ_b‖² + tr S_a + tr S_b - 2 Σ sqrt(eig(S_a S_b))`.

    The eigenvalues of `S_a S_b` are those of the symmetric `Lᵀ S_a L`, `S_b = L Lᵀ`, so they are real and, up
    to rounding, not negative; no matrix square root is taken.

    Args:
        a: statistics of one set.
        b: statistics of the other.
        root_of_b: `covariance_root(b)`, if b is compared with several.

    Raises:
        InputError: different dimensions, or fewer than two features on a side.
    """
    if a.dimension != b.dimension:
        raise InputError(f"features of dimension {a.dimension} and {b.dimension} cannot be compared")
    covariance_a, covariance_b = a.covariance, b.covariance
    root = covariance_root(b) if root_of_b is None else root_of_b
    product = root.T @ torch.from_numpy(covariance_a) @ root
    eigenvalues = torch.linalg.eigvalsh((product + product.T) / 2)
    difference = a.mean - b.mean
    overlap = float(eigenvalues.clamp(min=0.0).sqrt().sum())
    distance = difference @ difference + np.trace(covariance_a) + np.trace(covariance_b) - 2.0 * overlap
    return max(float(distance), 0.0)
