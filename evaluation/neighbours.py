"""Precision, recall, density and coverage: do generated samples lie among the real ones, and are all of those reached?

Precision and recall as in Kynkäänniemi et al. (NeurIPS 2019), by torch-fidelity's conventions: k = 3, balls closed.
Density and coverage as in Naeem et al. (ICML 2020), by those of the package `prdc`: k = 5, balls open. Neighbours are
found by tiles of the distance matrix, which is never stored, in float64.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError

PRECISION_NEIGHBOURS = 3
DENSITY_NEIGHBOURS = 5
TILE = 1024


class PrecisionRecall(NamedTuple):
    """Shares: of generated samples in a ball of a real one, and of real samples in a ball of a generated one."""

    precision: float
    recall: float


class DensityCoverage(NamedTuple):
    """How many real balls a generated sample lies in, over k; the share of real balls with a generated sample."""

    density: float
    coverage: float


def precision_recall(
    real: np.ndarray, generated: np.ndarray, k: int = PRECISION_NEIGHBOURS, *, nearest: torch.Tensor | None = None
) -> PrecisionRecall:
    """Of features `(n, d)` and `(m, d)`; a ball reaches to the k-th neighbour of its centre in the centre's own set.

    nearest: what `neighbours_of` says of the real ones, of at least k, where it is known.

    Raises:
        InputError: a set with no more than k samples.
    """
    x, y = _centred(real, generated)
    around_real = (nearest_squared(x, k) if nearest is None else nearest)[:, k - 1]
    among_real, _ = _balls(y, x, around_real, closed=True)
    among_generated, _ = _balls(x, y, nearest_squared(y, k)[:, k - 1], closed=True)
    return PrecisionRecall(
        float((among_real > 0).double().mean()),
        float((among_generated > 0).double().mean()),
    )


def density_coverage(
    real: np.ndarray, generated: np.ndarray, k: int = DENSITY_NEIGHBOURS, *, nearest: torch.Tensor | None = None
) -> DensityCoverage:
    """Of features `(n, d)` and `(m, d)`; the balls are those of real samples. nearest: as for `precision_recall`.

    Raises:
        InputError: no more than k real samples.
    """
    x, y = _centred(real, generated)
    around_real = (nearest_squared(x, k) if nearest is None else nearest)[:, k - 1]
    balls, reached = _balls(y, x, around_real, closed=False)
    return DensityCoverage(float(balls.sum()) / (k * len(y)), float(reached.double().mean()))


def neighbours_of(real: np.ndarray, k: int) -> torch.Tensor:
    """`nearest_squared` of the real samples, to be handed to the metrics of several generated sets."""
    return nearest_squared(_centred(real, real[:0])[0], k)


def nearest_squared(points: torch.Tensor, k: int) -> torch.Tensor:
    """Squared distances of points `(n, d)` to their k nearest other points, `(n, k)`, ascending.

    Raises:
        InputError: no more than k points.
    """
    if len(points) <= k:
        raise InputError(f"{len(points)} samples: the {k} nearest neighbours of one need at least {k + 1}")
    nearest = torch.full((len(points), k), torch.inf, dtype=points.dtype)
    for rows, columns, squared in _tiles(points, points):
        if rows == columns:
            squared.fill_diagonal_(torch.inf)
        of_both = torch.cat([nearest[rows], squared.topk(min(k, squared.shape[1]), largest=False).values], 1)
        nearest[rows] = of_both.topk(k, largest=False).values  # sorted
    return nearest


def _balls(
    points: torch.Tensor, centres: torch.Tensor, squared_radii: torch.Tensor, *, closed: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """For every point how many balls it lies in, `(m,)`, and for every ball whether a point lies in it, `(n,)`."""
    counts = torch.zeros(len(points), dtype=torch.int64)
    reached = torch.zeros(len(centres), dtype=torch.bool)
    for rows, columns, squared in _tiles(points, centres):
        radii = squared_radii[columns]
        within = squared <= radii if closed else squared < radii
        counts[rows] += within.sum(1)
        reached[columns] |= within.any(0)
    return counts, reached


def _tiles(a: torch.Tensor, b: torch.Tensor) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Squared distances of all pairs of rows, block by block."""
    norms_a, norms_b = a.square().sum(1), b.square().sum(1)
    for i in range(0, len(a), TILE):
        rows = slice(i, min(i + TILE, len(a)))
        for j in range(0, len(b), TILE):
            columns = slice(j, min(j + TILE, len(b)))
            tile = norms_a[rows, None] + norms_b[columns]
            yield rows, columns, tile.addmm_(a[rows], b[columns].T, alpha=-2.0).clamp_(min=0.0)


def _centred(real: np.ndarray, generated: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Both in float64, moved so that the real ones' mean is 0: norms then take few digits from distances."""
    x, y = (torch.from_numpy(np.ascontiguousarray(side, dtype=np.float64)) for side in (real, generated))
    mean = x.mean(0)
    return x - mean, y - mean
