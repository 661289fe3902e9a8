"""Pairs of distributions on which the power of two-sample tests is compared (Liu et al., ICML 2020)."""

import numpy as np

Pair = tuple[np.ndarray, np.ndarray]


def blob(rng: np.random.Generator, per_blob: int) -> Pair:
    """`9 per_blob` points of each sample, from nine blobs around {0, 1, 2}².

    X: covariance `0.03 I`. Y: as the published code draws it, `N(0, I)` rows times the Cholesky factor L of the
    covariance that it names, so that the covariance is `LᵀL`.
    """
    count = 9 * per_blob
    x = rng.normal(size=(count, 2)) * np.sqrt(0.03) + rng.integers(0, 3, size=(count, 2))
    cells = rng.integers(0, 3, size=(count, 2))
    factors = np.stack([np.linalg.cholesky(named_covariance(i)) for i in range(9)])[3 * cells[:, 0] + cells[:, 1]]
    y = np.einsum("ni,nij->nj", rng.normal(size=(count, 2)), factors) + cells
    return x.astype(np.float32), y.astype(np.float32)


def named_covariance(i: int) -> np.ndarray:
    """`[[0.03, c], [c, 0.03]]` of blob i."""
    c = -0.02 - 0.002 * i if i < 4 else 0.0 if i == 4 else 0.02 + 0.002 * (i - 5)
    return np.array([[0.03, c], [c, 0.03]])


def hdgm(rng: np.random.Generator, per_cluster: int, dimension: int) -> Pair:
    """Two Gaussian clusters of exactly so many points each, means 0 and ½; in Y the first two coordinates are
    correlated, by ½ in the first cluster and -½ in the second."""
    means = np.repeat([0.0, 0.5], per_cluster)[:, None]
    x, y = rng.normal(size=(2, 2 * per_cluster, dimension))
    correlation = np.repeat([0.5, -0.5], per_cluster)
    y[:, 1] = correlation * y[:, 0] + np.sqrt(0.75) * y[:, 1]
    return (x + means).astype(np.float32), (y + means).astype(np.float32)
