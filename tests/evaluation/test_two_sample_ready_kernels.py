"""Kernels that are ready when a test gets them: weighted terms, terms that see the last columns of a row only."""

import pickle
from math import sqrt

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_interval, mmd_test, relative_mmd_test, witness_of_samples
from gebm.evaluation.two_sample.kernels import Kernel, KernelSum

EPS, FEATURES, POINTS = 0.3, 4, 2
DEEP = KernelSum(
    (
        Kernel("gaussian", sqrt(0.5), FEATURES + POINTS, weight=1 - EPS),
        Kernel("gaussian", sqrt(0.5), FEATURES + POINTS, weight=EPS, tail=POINTS),
    )
)


def deep_kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`[(1 - eps) exp(-‖phi - phi'‖²) + eps] exp(-‖x - x'‖²)` on rows that hold phi and then x."""
    squares = np.square(a[:, None, :] - b[None, :, :])
    features, points = squares[..., :FEATURES].sum(-1), squares[..., FEATURES:].sum(-1)
    return ((1 - EPS) * np.exp(-features) + EPS) * np.exp(-points)


def rows(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(n, 6)) * 0.6, rng.normal(size=(m, 6)) * 0.5
    return x + 3.0, y + 3.0


@pytest.mark.parametrize(("n", "m"), [(60, 45), (700, 500)])
def test_a_kernel_of_weighted_terms_gives_the_mmd_of_its_formula(n: int, m: int) -> None:
    x, y = rows(n, m)
    xx, yy, xy = deep_kernel(x, x), deep_kernel(y, y), deep_kernel(x, y)
    within = (xx.sum() - n) / (n * (n - 1)) + (yy.sum() - m) / (m * (m - 1))
    for null in ("permutation", "bins"):
        result = mmd_test(x, y, kernel=DEEP, null=null, permutations=19)
        assert result.statistic == pytest.approx(within - 2 * xy.mean(), abs=1e-7)
    biased = mmd_test(x, y, kernel=DEEP, statistic="biased", permutations=19)
    assert biased.statistic == pytest.approx(xx.mean() + yy.mean() - 2 * xy.mean(), abs=1e-7)
    assert result.kernel == "gaussian+gaussian" and result.bandwidth == (sqrt(0.5), sqrt(0.5))
    assert mmd_interval(x, y, kernel=DEEP).estimate == pytest.approx(within - 2 * xy.mean(), abs=1e-7)
    at_x = witness_of_samples(x, y, kernel=DEEP).at_x
    np.testing.assert_allclose(at_x, (xx.sum(1) - 1) / (n - 1) - xy.mean(1), atol=1e-6)


def test_every_null_and_the_relative_test_take_a_ready_kernel() -> None:
    x, y = rows(40, 40)
    h = deep_kernel(x, x) + deep_kernel(y, y) - deep_kernel(x, y) - deep_kernel(y, x)
    paired = (h.sum() - np.trace(h)) / (40 * 39)
    for null in ("sign_flip", "spectrum"):
        result = mmd_test(x, y, kernel=DEEP, null=null, statistic="paired", permutations=19)
        assert result.statistic == pytest.approx(paired, abs=1e-9)
    result = mmd_test(x, y, kernel=DEEP, null="auto", permutations=19, budget_seconds=5)
    assert result.null == "permutation"
    assert relative_mmd_test(x, y, y[::-1].copy(), kernel=DEEP, permutations=19).kernel == "gaussian+gaussian"


def test_a_ready_kernel_can_be_sent_to_a_worker() -> None:
    assert pickle.loads(pickle.dumps(DEEP)) == DEEP


def test_a_ready_kernel_does_not_take_other_points_or_another_bandwidth() -> None:
    x, y = rows(10, 10)
    with pytest.raises(InputError, match="made for rows of 6 numbers, but the samples have 5"):
        mmd_test(x[:, 1:], y[:, 1:], kernel=DEEP)
    with pytest.raises(InputError, match="has its own; leave out 2"):
        mmd_test(x, y, kernel=DEEP, bandwidth=2.0)
