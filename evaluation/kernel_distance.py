"""Kernel inception distance by the conventions of torch-fidelity (Bińkowski et al., ICLR 2018).

The kernel is `(xᵀy/d + 1)³`; MMD² is averaged over subsets drawn without replacement, with all m² cross
terms.
"""

from typing import NamedTuple

import numpy as np

from gebm.cluster.errors import InputError

SUBSETS = 100
SUBSET_SIZE = 1000
SEED = 2020


class KernelDistance(NamedTuple):
    """KID, its standard deviation over subsets (ddof 0), and how large the subsets were."""

    mean: float
    std: float
    subsets: int
    subset_size: int


def polynomial_mmd2(x: np.ndarray, y: np.ndarray) -> float:
    """`MMD²_u` of equally many features `(m, d)` under `(xᵀy/d + 1)³`, in float64."""
    m, dimension = x.shape
    x, y = x.astype(np.float64), y.astype(np.float64)

    def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a @ b.T / dimension + 1.0) ** 3

    def off_diagonal_sum(a: np.ndarray) -> float:
        values = kernel(a, a)
        return float(values.sum() - np.trace(values))

    within = off_diagonal_sum(x) + off_diagonal_sum(y)
    return within / (m * (m - 1)) - 2.0 * float(kernel(x, y).sum()) / m**2


def kernel_distance(
    features_1: np.ndarray,
    features_2: np.ndarray,
    *,
    subsets: int = SUBSETS,
    subset_size: int = SUBSET_SIZE,
    seed: int = SEED,
) -> KernelDistance:
    """KID of two sets of features `(n, d)` and `(m, d)`.

    Where a side has fewer than `subset_size` features, subsets have the size of the smaller side
    (torch-fidelity refuses). Where both sides are exactly as large as a subset, all subsets are the same: one
    is evaluated.

    Args:
        features_1: generated.
        features_2: real.
        subsets: how many.
        subset_size: features in each, from either side.
        seed: of the subsets, drawn as torch-fidelity draws them.

    Raises:
        InputError: different dimensions, fewer than two features, NaN or infinity.
    """
    for side in (features_1, features_2):
        if side.ndim != 2 or len(side) < 2 or not np.isfinite(side).all():
            raise InputError(
                f"KID needs at least two finite features a side, got an array of shape {side.shape}"
                + (" with NaN or infinity" if not np.isfinite(side).all() else "")
            )
    if features_1.shape[1] != features_2.shape[1]:
        raise InputError(f"features of dimension {features_1.shape[1]} and {features_2.shape[1]} cannot be compared")
    size = min(subset_size, len(features_1), len(features_2))
    if len(features_1) == len(features_2) == size:
        return KernelDistance(polynomial_mmd2(features_1, features_2), 0.0, 1, size)
    rng = np.random.RandomState(seed)
    values = [
        polynomial_mmd2(
            features_1[rng.choice(len(features_1), size, replace=False)],
            features_2[rng.choice(len(features_2), size, replace=False)],
        )
        for _ in range(subsets)
    ]
    return KernelDistance(float(np.mean(values)), float(np.std(values)), subsets, size)
