"""MMD² by tiles against a float64 brute force on the stored kernel matrix."""

from itertools import combinations, product

import numpy as np
import pytest
import torch

from gebm.evaluation.two_sample import mmd_test
from gebm.evaluation.two_sample.kernels import KERNELS, Kernel
from gebm.evaluation.two_sample.samples import prepare_rows
from gebm.evaluation.two_sample.tiles import (
    BAND,
    cross_sums,
    labelled_sums,
    manhattan_tile,
    row_blocks,
    signed_sums,
    upper_tiles,
)

TRANSLATION_INVARIANT = [name for name, family in KERNELS.items() if family.translation_invariant]


def dense_kernel(x: np.ndarray, y: np.ndarray, name: str, s: float) -> np.ndarray:
    """The kernels of MATH section 4, written out, in float64 by differences."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    blocks = [x[i : i + 200, None, :] - y[None, :, :] for i in range(0, len(x), 200)]
    distance = np.concatenate([np.sqrt(np.square(block).sum(-1)) for block in blocks])
    manhattan = np.concatenate([np.abs(block).sum(-1) for block in blocks])
    return {
        "gaussian": lambda: np.exp(-(distance**2) / (2 * s**2)),
        "laplace": lambda: np.exp(-manhattan / s),
        "imq": lambda: (1 + distance**2 / s**2) ** -0.5,
        "rational_quadratic": lambda: 1 / (1 + distance**2 / (2 * s**2)),
        "energy": lambda: -distance,
        "polynomial": lambda: (x @ y.T / x.shape[1] + 1) ** 3,
        "linear": lambda: x @ y.T,
    }[name]()


def brute_force(x: np.ndarray, y: np.ndarray, name: str, s: float) -> tuple[float, float]:
    """MMD²_u and the largest kernel value in size."""
    xx, yy, xy = (dense_kernel(a, b, name, s) for a, b in ((x, x), (y, y), (x, y)))
    n, m = len(x), len(y)
    within = (xx.sum() - np.trace(xx)) / (n * (n - 1)) + (yy.sum() - np.trace(yy)) / (m * (m - 1))
    return within - 2 * xy.mean(), float(np.abs(xy).max())


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(("n", "m", "d"), [(700, 500, 5), (60, 90, 300), (40, 30, 1)])
def test_statistic_agrees_with_brute_force(name: str, n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 1.3 + 0.2
    for dtype in (np.float32, np.float64):
        a, b = x.astype(dtype), y.astype(dtype)
        result = mmd_test(a, b, kernel=name, permutations=19)
        expected, scale = brute_force(a, b, name, result.bandwidth or 1.0)
        assert abs(result.statistic - expected) <= 1e-6 * scale
        assert (result.bandwidth is not None) == KERNELS[name].scaled


@pytest.mark.parametrize("name", TRANSLATION_INVARIANT)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistic_agrees_with_brute_force_far_from_the_origin(name: str, dtype: type) -> None:
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(300, 12)) + 1e4).astype(dtype)
    y = (rng.normal(size=(200, 12)) * 1.2 + 1e4).astype(dtype)
    result = mmd_test(x, y, kernel=name, permutations=19)
    near = (x - dtype(1e4), y - dtype(1e4))  # exact: the numbers are within a factor of two of each other
    expected, scale = brute_force(*near, name, result.bandwidth or 1.0)
    assert abs(result.statistic - expected) <= 1e-6 * scale
    assert abs(result.statistic - expected) <= 1e-3 * abs(result.threshold)


@pytest.mark.parametrize("name", ["gaussian", "imq", "rational_quadratic", "energy"])
def test_two_clusters_far_apart_keep_their_digits(name: str) -> None:
    rng = np.random.default_rng(2)
    centres = np.where(rng.integers(0, 2, size=(200, 1)), 3e4, -3e4)
    x, y = rng.normal(size=(200, 8)) + centres, rng.normal(size=(200, 8)) * 1.5 + centres
    result = mmd_test(x, y, kernel=name, bandwidth=2.0, permutations=19)
    expected, scale = brute_force(x, y, name, 2.0)
    assert abs(result.statistic - expected) <= 1e-6 * scale


@pytest.mark.parametrize("name", ["gaussian", "energy"])
def test_duplicates_are_at_distance_zero(name: str) -> None:
    rng = np.random.default_rng(3)
    x, y = rng.integers(0, 3, size=(150, 20)) + 500.0, rng.integers(0, 2, size=(100, 20)) + 500.0
    x[50:] = x[:100]
    result = mmd_test(x, y, kernel=name, permutations=19)
    expected, scale = brute_force(x, y, name, result.bandwidth or 1.0)
    assert abs(result.statistic - expected) <= 1e-6 * scale


def test_sums_of_all_labellings_agree_with_the_stored_kernel_over_many_tiles() -> None:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(2500, 3))  # three blocks of rows
    labels = rng.integers(0, 2, size=(7, 2500)).astype(np.uint8)
    kernel = Kernel("gaussian", 1.5, 3)
    sums = labelled_sums(prepare_rows(torch.from_numpy(points), kernel), kernel, torch.from_numpy(labels))
    dense = dense_kernel(points, points, "gaussian", 1.5)
    np.fill_diagonal(dense, 0.0)
    a = labels.astype(np.float64)
    np.testing.assert_allclose(sums.within, np.einsum("pi,ij,pj->p", a, dense, a, optimize=True), rtol=1e-7)
    np.testing.assert_allclose(sums.touching, a @ dense.sum(1), rtol=1e-7)
    np.testing.assert_allclose(sums.total, dense.sum(), rtol=1e-7)


def test_sums_of_all_sign_vectors_agree_with_the_stored_kernel_over_many_tiles() -> None:
    rng = np.random.default_rng(5)
    u, v = rng.normal(size=(1300, 3)), rng.normal(size=(1300, 3)) + 0.5
    signs = (2 * rng.integers(0, 2, size=(6, 1300)) - 1).astype(np.int8)
    signs[0] = 1
    kernel = Kernel("gaussian", 1.5, 3)
    rows = [prepare_rows(torch.from_numpy(side), kernel) for side in (u, v)]
    forms = signed_sums(*rows, kernel, torch.from_numpy(signs)).forms
    uu, vv, uv = (dense_kernel(a, b, "gaussian", 1.5) for a, b in ((u, u), (v, v), (u, v)))
    h = uu + vv - uv - uv.T
    np.fill_diagonal(h, 0.0)
    expected = np.einsum("pi,ij,pj->p", signs.astype(float), h, signs.astype(float), optimize=True)
    np.testing.assert_allclose(forms, expected, atol=1e-7 * np.abs(h).sum())


@pytest.mark.parametrize("blocks", [1, BAND, 2 * BAND + 3])
def test_upper_tiles_are_each_pair_of_row_blocks_once(blocks: int) -> None:
    """Band by band, so that few row blocks are in use at a time."""
    count = 10 * blocks - 3
    places = [(rows.start, columns.start) for rows, columns in upper_tiles(count, size=10)]
    starts = [block.start for block in row_blocks(count, size=10)]
    assert sorted(places) == [(i, j) for i in starts for j in starts if i <= j]
    bands = [i // (10 * BAND) for i, _ in places]
    assert bands == sorted(bands)


@pytest.mark.parametrize("shape", [(200, 7), (5, 80, 3), (3, 4)])
def test_manhattan_distances_are_those_of_a_loop_over_pairs(shape: tuple[int, ...]) -> None:
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0))
    expected = torch.cdist(a.double(), b.double(), p=1.0)
    torch.testing.assert_close(manhattan_tile(a, b).double(), expected, rtol=1e-6, atol=1e-6)
    same = manhattan_tile(a, a.clone())
    assert (same.diagonal(dim1=-2, dim2=-1) == 0.0).all()


def test_weighted_row_and_column_sums_agree_with_the_stored_kernel() -> None:
    rng = np.random.default_rng(6)
    a, b, w = rng.normal(size=(1100, 2)), rng.normal(size=(1100, 2)), rng.normal(size=(1100, 3))
    kernel = Kernel("imq", 1.0, 2)
    rows = [prepare_rows(torch.from_numpy(side), kernel) for side in (a, b)]
    by_row, by_column = cross_sums(*rows, kernel, torch.from_numpy(w), torch.from_numpy(w))
    dense = dense_kernel(a, b, "imq", 1.0)
    np.fill_diagonal(dense, 0.0)
    np.testing.assert_allclose(by_row, dense @ w, atol=1e-3)
    np.testing.assert_allclose(by_column, dense.T @ w, atol=1e-3)


def test_permutation_p_value_is_that_of_all_relabellings() -> None:
    """5 against 4 points: 126 labellings. Monte Carlo within 4.5 standard errors: false-alarm rate 1e-5."""
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(5, 2)), rng.normal(size=(4, 2)) + 0.8
    result = mmd_test(x, y, permutations=19_999)
    pooled = np.concatenate([x, y])
    values = []
    for chosen in combinations(range(9), 5):
        rest = [i for i in range(9) if i not in chosen]
        values.append(brute_force(pooled[list(chosen)], pooled[rest], "gaussian", result.bandwidth)[0])
    exact = np.mean(np.array(values) >= values[0] - 1e-12)
    assert abs(result.p_value - exact) <= 4.5 * (exact * (1 - exact) / 19_999) ** 0.5 + 1e-4


def test_sign_flip_p_value_is_that_of_mmd_on_all_swapped_samples() -> None:
    """7 pairs: 128 swaps. Monte Carlo within 4.5 standard errors: false-alarm rate 1e-5."""
    rng = np.random.default_rng(8)
    x, y = rng.normal(size=(7, 2)), rng.normal(size=(7, 2)) + 0.8
    result = mmd_test(x, y, null="sign_flip", permutations=19_999)
    values = []
    for swap in product([False, True], repeat=7):
        mask = np.array(swap)[:, None]
        swapped = np.where(mask, y, x), np.where(mask, x, y)
        values.append(brute_force(*swapped, "gaussian", result.bandwidth)[0])
    exact = np.mean(np.array(values) >= values[0] - 1e-12)
    assert abs(result.p_value - exact) <= 4.5 * (exact * (1 - exact) / 19_999) ** 0.5 + 1e-4
    cross = np.trace(dense_kernel(x, y, "gaussian", result.bandwidth))
    xy = dense_kernel(x, y, "gaussian", result.bandwidth).sum()
    paired = values[0] + 2 * xy / 49 - 2 * (xy - cross) / 42  # the same with the cross terms i = j left out
    assert result.statistic == pytest.approx(paired, abs=1e-7)
