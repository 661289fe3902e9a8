"""Kernels, their sums and bandwidths, and the precision they are computed in."""

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_test, samples
from gebm.evaluation.two_sample.bandwidth import median_bandwidth
from gebm.evaluation.two_sample.kernels import KERNELS, Kernel, KernelSum
from gebm.evaluation.two_sample.samples import prepare_rows
from gebm.evaluation.two_sample.tiles import kernel_diagonal, kernel_tile, kernel_tiles
from tests.evaluation.test_two_sample_agreement import brute_force, dense_kernel


def test_mmd_of_a_sum_of_kernels_is_the_sum_of_their_mmds() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 4)), rng.normal(size=(50, 4)) * 1.4
    result = mmd_test(x, y, kernel="gaussian+laplace+energy+polynomial", permutations=19)
    parts = zip(result.kernel.split("+"), result.bandwidth, strict=True)
    expected = [brute_force(x, y, name, s or 1.0) for name, s in parts]
    assert result.bandwidth[0] != result.bandwidth[1]  # each the median in its own norm
    assert result.bandwidth[2:] == (None, None)
    assert result.statistic == pytest.approx(
        sum(value for value, _ in expected), abs=1e-6 * max(s for _, s in expected)
    )


def test_one_kernel_at_several_bandwidths_is_their_sum() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(30, 3)) * 1.4
    widths = (0.5, 1.0, 2.0)
    result = mmd_test(x, y, bandwidth=widths, permutations=19)
    expected = sum(brute_force(x, y, "gaussian", s)[0] for s in widths)
    assert result.statistic == pytest.approx(expected, abs=1e-7)
    assert result.bandwidth == widths


@pytest.mark.parametrize("kernel", ["gaussian", "energy", "gaussian+linear+laplace", "polynomial+energy"])
def test_a_result_holds_the_kernel_that_repeats_it(kernel: str) -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(30, 3)), rng.normal(size=(20, 3))
    result = mmd_test(x, y, kernel=kernel, permutations=19)
    assert mmd_test(x, y, kernel=result.kernel, bandwidth=result.bandwidth, permutations=19) == result


@pytest.mark.parametrize(
    ("kernel", "bandwidth", "message"),
    [
        ("gaussian+cubic", "median", "no kernel 'cubic'"),
        ("gaussian+laplace", (1.0,), "one number for each of the 2 terms"),
        ("gaussian", (), "one number for each"),
        ("gaussian", (1.0, -1.0), "got -1.0 for kernel 'gaussian'"),
        ("gaussian+energy", (None, None), "got None for kernel 'gaussian'"),
    ],
)
def test_a_sum_that_cannot_be_is_one_clear_error(kernel: str, bandwidth: object, message: str) -> None:
    points = np.random.default_rng(0).normal(size=(10, 2))
    with pytest.raises(InputError, match=message):
        mmd_test(points, points, kernel=kernel, bandwidth=bandwidth)


@pytest.mark.parametrize("norm", ["gaussian", "laplace"])
def test_the_median_bandwidth_is_in_the_kernels_own_norm(norm: str) -> None:
    points = np.random.default_rng(3).normal(size=(203, 5))
    i, j = np.triu_indices(203, 1)  # an odd number of pairs
    difference = points[i] - points[j]
    distances = np.abs(difference).sum(1) if norm == "laplace" else np.sqrt((difference**2).sum(1))
    assert median_bandwidth(torch.from_numpy(points), norm) == pytest.approx(np.median(distances), rel=1e-12)


def test_the_median_bandwidth_keeps_its_digits_beside_outliers_and_among_duplicates() -> None:
    points = np.random.default_rng(4).normal(size=(150, 3))
    points[:10] += 1e7
    i, j = np.triu_indices(150, 1)
    distances = np.sort(np.sqrt(((points[i] - points[j]) ** 2).sum(1)))
    assert median_bandwidth(torch.from_numpy(points), "gaussian") == pytest.approx(
        distances[(len(i) - 1) // 2], rel=1e-9
    )
    points[20:] = points[20]
    assert median_bandwidth(torch.from_numpy(points[10:]), "gaussian") > 0.1  # of the pairs that differ


@pytest.fixture
def many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few points treated as many: float32 where the kernel allows it, and little for its errors to average over."""
    monkeypatch.setattr(samples, "FEW_POINTS", 0)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("case", ["plain", "far", "constant"])
@pytest.mark.usefixtures("many_points")
def test_ten_thousand_dimensions_agree_with_brute_force(name: str, case: str) -> None:
    """Also far from the origin and with constant features."""
    rng = np.random.default_rng(4)
    x, y = (rng.normal(size=(24, 10_000)).astype(np.float32) for _ in range(2))
    near = x, y
    if case == "far" and KERNELS[name].translation_invariant:
        x, y = x + np.float32(1e3), y + np.float32(1e3)
        near = x - np.float32(1e3), y - np.float32(1e3)
    if case == "constant":
        x[:, 100:], y[:, 100:] = 0.1, 0.1
        near = x, y
    width = 1e4 if name == "laplace" else 100.0
    result = mmd_test(x, y, kernel=name, bandwidth=width, permutations=19)
    expected, scale = brute_force(*near, name, result.bandwidth or 1.0)
    assert abs(result.statistic - expected) <= 1e-6 * scale


@pytest.mark.parametrize("name", ["gaussian", "laplace", "imq", "rational_quadratic"])
@pytest.mark.usefixtures("many_points")
def test_kernel_values_keep_single_precision_whatever_the_spread(name: str) -> None:
    """Two clusters, near to far apart: every entry within a few units in the last place."""
    rng = np.random.default_rng(5)
    for gap in (0.0, 10.0, 1e3, 1e6):
        points = rng.normal(size=(60, 8)) + np.where(np.arange(60) < 30, gap, -gap)[:, None]
        kernel = Kernel(name, 2.0, 8)
        rows = prepare_rows(torch.from_numpy(points), kernel)
        assert rows.precision == torch.float32
        expected = dense_kernel(points, points, name, 2.0)
        np.testing.assert_allclose(kernel_tile(rows, rows, kernel), expected, atol=3e-6 if gap == 0.0 else 1e-6)


def test_kernels_that_share_distances_do_not_disturb_each_other() -> None:
    points = torch.from_numpy(np.random.default_rng(6).normal(size=(30, 3)))
    kernels = [
        Kernel("gaussian", 1.0, 3),
        Kernel("laplace", 2.0, 3),
        Kernel("gaussian", 3.0, 3),
        Kernel("energy", 1.0, 3),
    ]
    both = KernelSum((kernels[0], kernels[1]))
    rows = prepare_rows(points, *kernels)
    tiles = list(kernel_tiles(rows, rows, [*kernels, both]))
    for kernel, tile in zip(kernels, tiles, strict=False):
        np.testing.assert_allclose(
            tile, dense_kernel(points.numpy(), points.numpy(), kernel.name, kernel.bandwidth), atol=1e-7
        )
    np.testing.assert_allclose(tiles[-1], tiles[0] + tiles[1], atol=1e-12)


@pytest.mark.parametrize("name", KERNELS)
def test_the_diagonal_is_that_of_the_kernel_matrix(name: str) -> None:
    points = np.random.default_rng(7).normal(size=(20, 3))
    kernel = Kernel(name, 1.3, 3)
    found = kernel_diagonal(prepare_rows(torch.from_numpy(points), kernel), kernel)
    np.testing.assert_allclose(found, dense_kernel(points, points, name, 1.3).diagonal(), atol=1e-12)
