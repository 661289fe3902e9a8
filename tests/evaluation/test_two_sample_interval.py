"""The confidence interval on MMD² itself."""

import numpy as np
import pytest
import torch
from scipy.stats import binom

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_interval
from gebm.evaluation.two_sample.interval import group_sums, leave_one_out
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.samples import prepare_rows
from tests.evaluation.test_two_sample_agreement import brute_force

TRIALS = 500


def true_mmd2(shift: float, spread: float, s: float) -> float:
    """MMD² between N(0, 1) and N(shift, spread²) under the Gaussian kernel."""

    def mean_kernel(a: float, b: float, variance: float) -> float:
        return s / (s**2 + variance) ** 0.5 * np.exp(-((a - b) ** 2) / (2 * (s**2 + variance)))

    own = mean_kernel(0, 0, 2.0) + mean_kernel(shift, shift, 2 * spread**2)
    return own - 2 * mean_kernel(0, shift, 1 + spread**2)


def test_leaving_out_a_group_agrees_with_a_test_without_it() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 3)), rng.normal(size=(17, 3)) + 0.5
    groups = np.concatenate([np.arange(23) % 4, 4 + np.arange(17) % 4])
    kernel = Kernel("gaussian", 1.5, 3)
    rows = prepare_rows(torch.from_numpy(np.concatenate([x, y])), kernel)
    sums = group_sums(rows, kernel, torch.from_numpy(groups), 8)
    estimate, left_out = leave_one_out(sums, torch.bincount(torch.from_numpy(groups)).double())
    assert estimate == pytest.approx(brute_force(x, y, "gaussian", 1.5)[0], abs=1e-12)
    for g in range(4):
        kept = x[groups[:23] != g], y[groups[23:] != 4 + g]
        assert float(left_out[g]) == pytest.approx(brute_force(*kept, "gaussian", 1.5)[0], abs=1e-12)


def test_group_sums_over_many_tiles_agree_with_one() -> None:
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1300, 2)), rng.normal(size=(900, 2)) + 0.3
    result = mmd_interval(x, y)
    assert result.estimate == pytest.approx(brute_force(x, y, "gaussian", result.bandwidth)[0], abs=1e-7)
    assert result.low < result.estimate < result.high


@pytest.mark.parametrize(("shift", "spread", "n", "m"), [(0.8, 1.0, 80, 80), (0.4, 1.5, 120, 60), (0.0, 1.0, 60, 60)])
def test_the_interval_holds_the_true_mmd(shift: float, spread: float, n: int, m: int) -> None:
    """500 trials. The bound is that of a coverage of 0.93, left at a rate of 1e-3: the interval is asymptotic."""
    truth, held = true_mmd2(shift, spread, 1.0), 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, n])
        x, y = rng.normal(size=(n, 1)), shift + spread * rng.normal(size=(m, 1))
        result = mmd_interval(x, y, bandwidth=1.0, seed=trial)
        held += result.low <= truth <= result.high
    assert held >= binom.ppf(1e-3, TRIALS, 0.93)
    if truth > 0:
        assert held < TRIALS  # an interval of all numbers would hold it too


def test_more_points_make_the_interval_narrower() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(1600, 2)), rng.normal(size=(1600, 2)) + 0.5
    few, many = mmd_interval(x[:400], y[:400]), mmd_interval(x, y)
    assert 0.3 < many.standard_error / few.standard_error < 0.75
    assert mmd_interval(x, y, confidence=0.5).high < many.high


def test_an_interval_does_not_go_below_zero_and_repeats_by_its_seed() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2))
    result = mmd_interval(x, y, seed=1)
    assert result.low == 0.0
    assert result == mmd_interval(x, y, seed=1)
    assert result != mmd_interval(x, y, seed=2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 1}, "groups: 30 points of x and 20 of y cannot be split into 1 groups"),
        ({"groups": 11}, "cannot be split into 11 groups"),
        ({"confidence": 1.0}, "confidence: must be between 0 and 1"),
        ({"kernel": "cubic"}, "no kernel 'cubic'"),
    ],
)
def test_what_cannot_be_is_one_clear_error(options: dict, message: str) -> None:
    rng = np.random.default_rng(4)
    with pytest.raises(InputError, match=message):
        mmd_interval(rng.normal(size=(30, 2)), rng.normal(size=(20, 2)), **options)
