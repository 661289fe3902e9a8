"""Tests over many kernels at once: MMDAgg's one-set form and FUSE."""

from math import log, sqrt

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import aggregated_mmd_test, mmd_test
from gebm.evaluation.two_sample.aggregated import fuse_statistics, mmdagg_statistics
from gebm.evaluation.two_sample.kernel_collections import fuse_kernels, mmdagg_kernels
from gebm.evaluation.two_sample.kernel_values import KernelValues
from gebm.evaluation.two_sample.kernels import Kernel
from tests.evaluation.test_two_sample_agreement import brute_force, dense_kernel


def two_samples(n: int = 80, m: int = 60, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 2)), rng.normal(size=(m, 2)) + shift


def values_of(mmd: np.ndarray, squares: np.ndarray) -> KernelValues:
    kernels = [Kernel("gaussian", 1.0, 2)] * len(mmd)
    rounding = torch.zeros(len(mmd), dtype=torch.float64)
    return KernelValues(kernels, torch.from_numpy(mmd), rounding, torch.from_numpy(squares), 0, 5, 5)


def test_mmdagg_takes_the_smallest_weighted_rank_p_value() -> None:
    rng = np.random.default_rng(0)
    mmd = rng.normal(size=(3, 20))
    mmd[1, :7] = mmd[1, 0]  # ties count
    found = mmdagg_statistics(values_of(mmd, np.ones(3)))
    for b in range(20):
        p = [(mmd[k] >= mmd[k, b]).sum() / 20 for k in range(3)]
        assert float(found[b]) == pytest.approx(-min(p) / (1 / 3), abs=1e-12)


def test_fuse_is_the_soft_maximum_of_normalised_statistics() -> None:
    rng = np.random.default_rng(1)
    mmd, squares, n = rng.normal(size=(4, 15)) * 0.1, rng.uniform(1, 30, size=4), 5
    found = fuse_statistics(values_of(mmd, squares), n)
    omega = sqrt(n * (n - 1))
    scaled = omega * mmd / np.sqrt(squares / (n * (n - 1)))[:, None]
    np.testing.assert_allclose(found, (logsumexp(scaled, axis=0) - log(4)) / omega, rtol=1e-12)


@pytest.mark.parametrize("method", ["mmdagg", "fuse"])
@pytest.mark.parametrize("null", ["permutation", "bins"])
def test_each_kernels_mmd_is_that_of_brute_force(method: str, null: str) -> None:
    x, y = two_samples(shift=0.4)
    result = aggregated_mmd_test(x, y, method=method, null=null, permutations=99, bandwidths=5)
    assert result.kernels == ("gaussian",) * 5 + ("laplace",) * 5
    for name, s, mmd in zip(result.kernels, result.bandwidths, result.mmd, strict=True):
        assert mmd == pytest.approx(brute_force(x, y, name, s)[0], abs=1e-9)


def test_one_kernel_alone_has_the_p_value_of_its_own_test() -> None:
    """Its rank among the labellings is what both methods aggregate, whatever they do with it."""
    x, y = two_samples(shift=0.25)
    for method in ("mmdagg", "fuse"):
        result = aggregated_mmd_test(x, y, method=method, null="permutation", permutations=199, bandwidths=1)
        assert len(result.kernels) == 2
        assert result.p_value >= min(result.p_values)
    alone = mmd_test(x, y, bandwidth=result.bandwidths[0], permutations=19_999)
    assert result.p_values[0] == pytest.approx(alone.p_value, abs=4.5 * (alone.p_value / 200) ** 0.5 + 1e-2)


def test_fuse_normalises_by_the_pooled_kernel() -> None:
    """Two kernels: the statistic from the stored kernel matrices, with n the smaller size."""
    x, y = two_samples(30, 20, shift=0.5)
    result = aggregated_mmd_test(x, y, method="fuse", null="permutation", permutations=39, bandwidths=1)
    pooled, omega, scaled = np.concatenate([x, y]), sqrt(20 * 19), []
    for name, s in zip(result.kernels, result.bandwidths, strict=True):
        k = dense_kernel(pooled, pooled, name, s)
        np.fill_diagonal(k, 0.0)
        scaled.append(omega * brute_force(x, y, name, s)[0] / sqrt((k**2).sum() / (20 * 19)))
    assert result.statistic == pytest.approx((logsumexp(scaled) - log(2)) / omega, rel=1e-9)


def test_bandwidths_of_mmdagg_span_the_pooled_distances() -> None:
    points = np.random.default_rng(2).normal(size=(50, 3)) * 100
    kernels = mmdagg_kernels(torch.from_numpy(points), 10)
    i, j = np.triu_indices(50, 1)
    euclidean = np.sqrt(((points[i] - points[j]) ** 2).sum(1))
    manhattan = np.abs(points[i] - points[j]).sum(1)
    gaussian, laplace = ([k.bandwidth for k in kernels if k.name == name] for name in ("gaussian", "laplace"))
    np.testing.assert_allclose(gaussian, np.geomspace(euclidean.min() / 2, euclidean.max() * 2, 10) / sqrt(2))
    np.testing.assert_allclose(laplace, np.geomspace(manhattan.min() / 2, manhattan.max() * 2, 10))


def test_near_duplicates_do_not_set_the_smallest_bandwidth_of_mmdagg() -> None:
    points = np.random.default_rng(3).normal(size=(50, 1))
    points[1] = points[0] + 1e-9
    i, j = np.triu_indices(50, 1)
    smallest = np.quantile(np.abs(points[i] - points[j]), 0.05)
    assert mmdagg_kernels(torch.from_numpy(points), 3)[3].bandwidth == pytest.approx(smallest / 2)


def test_bandwidths_of_fuse_span_the_quantiles() -> None:
    points = np.random.default_rng(4).normal(size=(50, 3))
    kernels = fuse_kernels(torch.from_numpy(points), 10)
    i, j = np.triu_indices(50, 1)
    manhattan = np.abs(points[i] - points[j]).sum(1)
    low, high = np.quantile(manhattan, [0.05, 0.95])
    found = [k.bandwidth for k in kernels if k.name == "laplace"]
    np.testing.assert_allclose(found, np.linspace(low / 2, high * 2, 10) / sqrt(2))


@pytest.mark.parametrize("method", ["mmdagg", "fuse"])
@pytest.mark.parametrize("null", ["permutation", "bins"])
def test_equal_points_are_no_difference(method: str, null: str) -> None:
    result = aggregated_mmd_test(
        np.full((20, 3), 7.7), np.full((20, 3), 7.7), method=method, null=null, permutations=99
    )
    assert result.p_value == 1.0


@pytest.mark.parametrize("method", ["mmdagg", "fuse"])
def test_a_fine_difference_is_found_that_the_median_bandwidth_misses(method: str) -> None:
    """Lattices whose points are blurred along one axis or the other: seen at a twentieth of their spacing."""

    def lattice(rng: np.random.Generator, stretch: tuple[float, float]) -> np.ndarray:
        return rng.integers(0, 3, size=(250, 2)) + rng.normal(size=(250, 2)) * stretch

    found = missed = 0
    for seed in range(8):
        rng = np.random.default_rng([seed, 5])
        x, y = lattice(rng, (0.02, 0.06)), lattice(rng, (0.06, 0.02))
        result = aggregated_mmd_test(x, y, method=method, permutations=199)
        assert result.reject == (result.statistic > result.threshold)
        found += result.reject
        missed += not mmd_test(x, y, permutations=199).reject
    assert found == 8
    assert missed >= 6
    assert result == aggregated_mmd_test(x, y, method=method, permutations=199)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "max"}, "no method 'max'; there are mmdagg, fuse"),
        ({"null": "spectrum"}, "has an exact null, bins, permutation, and none 'spectrum'"),
        ({"bandwidths": 0}, "bandwidths: must be at least 1"),
        ({"permutations": 18}, "18 are too few to reject at level 0.05"),
        ({"level": 0.0}, "level: must be between 0 and 1"),
        ({"bins": 5}, "too few for level"),
    ],
)
def test_what_cannot_be_is_one_clear_error(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        aggregated_mmd_test(*two_samples(), **options)
