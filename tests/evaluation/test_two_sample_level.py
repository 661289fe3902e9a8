"""False alarms: every exact null rejects P = Q no more often than it says, whatever the data."""

from collections.abc import Callable
from math import comb

import numpy as np
import pytest
import torch
from scipy.stats import binom, chisquare

from gebm.evaluation.two_sample import mmd_test, relative_mmd_test
from gebm.evaluation.two_sample.nulls.permutation import random_labels
from tests.benchmarks.two_sample_level import FORMS, cauchy, discrete, gaussian, measure

TRIALS = 1500
# A test that is right leaves these bounds with probability 1e-3 (two-sided), for each parameter set below.
LOW, HIGH = binom.ppf([0.0005, 0.9995], TRIALS, 0.05)

Draw = Callable[[np.random.Generator, int], np.ndarray]


EXACT_FORMS = [(name, n, m) for name, form in FORMS.items() if form.exact for n, m in form.sizes]


@pytest.mark.parametrize("data", ["gaussian", "discrete"])
@pytest.mark.parametrize(("form", "n", "m"), EXACT_FORMS)
def test_every_exact_form_holds_its_level(form: str, n: int, m: int, data: str) -> None:
    """300 repetitions of what `python -m tests.benchmarks.two_sample_level` does 2,000 times. A form that is right
    leaves its interval with probability 1e-3; on discrete data, where ties make it conservative, more rarely."""
    size = measure(form, data, n, m, repetitions=300)
    assert size.holds, size


@pytest.mark.parametrize(("n", "m"), [(3, 3), (2, 5), (5, 2), (1, 19)])
def test_every_labelling_is_as_likely_as_any_other(n: int, m: int) -> None:
    """Chi-squared over all `C(n + m, n)` labellings; false-alarm rate 1e-4 each."""
    is_x = torch.arange(n + m) < n
    labels, position = random_labels(is_x, 20_000, np.random.default_rng(0))
    assert (labels[position] == is_x).all()
    assert (labels.sum(1) == n).all()
    drawn = np.delete(labels.numpy(), position, axis=0)
    codes = drawn @ (1 << np.arange(n + m))
    labellings, counts = np.unique(codes, return_counts=True)
    assert len(labellings) == comb(n + m, n)
    assert chisquare(counts).pvalue > 1e-4


@pytest.mark.parametrize(("ones", "count"), [(2, 3000), (40, 3000), (900, 3000), (1500, 3000), (2990, 3000)])
def test_labellings_of_many_points_have_the_right_number_of_ones_in_random_places(ones: int, count: int) -> None:
    """Each place is one in a share of the labellings, and so is each pair of neighbours: 5 standard errors."""
    is_x = torch.arange(count) < ones
    labels, position = random_labels(is_x, 1000, np.random.default_rng(1))
    labels = np.delete(labels.numpy(), position, axis=0).astype(int)
    assert (labels.sum(1) == ones).all()
    share = ones / count
    halves = labels[:, : count // 2].sum(1)  # hypergeometric
    spread = (ones * 0.25 * (count - ones) / (count - 1)) ** 0.5
    assert abs(halves.mean() - ones / 2) < 5 * spread / 1000**0.5
    assert 0.75 < (halves - ones / 2).std() / spread < 1.25
    both = (labels[:, 1:] * labels[:, :-1]).sum() / labels[:, 1:].size
    assert abs(both - share**2) < 0.02 * share + 1e-5


@pytest.mark.parametrize("draw", [gaussian, cauchy, discrete])
@pytest.mark.parametrize(("null", "n", "m"), [("permutation", 14, 9), ("sign_flip", 12, 12)])
def test_exact_nulls_hold_their_level(draw: Draw, null: str, n: int, m: int) -> None:
    rejections = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, 1])
        result = mmd_test(draw(rng, n), draw(rng, m), null=null, permutations=39, seed=trial)
        rejections += result.reject
        assert result.reject == (result.p_value <= 0.05)
    assert rejections <= HIGH
    if draw is not discrete:  # ties make the test conservative
        assert rejections >= LOW


@pytest.mark.parametrize("kernel", ["laplace", "energy", "polynomial"])
def test_level_does_not_depend_on_the_kernel(kernel: str) -> None:
    rejections = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, 2])
        x, y = gaussian(rng, 10), gaussian(rng, 12)
        rejections += mmd_test(x, y, kernel=kernel, permutations=19, seed=trial).reject
    assert LOW <= rejections <= HIGH


def test_relative_sign_flips_hold_their_level_when_both_generators_have_one_law() -> None:
    exact = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, 3])
        x, model, base = rng.normal(size=(15, 2)), rng.normal(size=(15, 2)) + 1, rng.normal(size=(15, 2)) + 1
        exact += relative_mmd_test(x, model, base, permutations=39, seed=trial).sign_flip_p_value <= 0.05
    assert LOW <= exact <= HIGH


def test_relative_normal_null_is_close_to_its_level_at_the_boundary() -> None:
    """Model and base equally far on opposite sides, n = 80. The normal null is not exact: over 6,000 draws
    its size was 0.048. The bounds are those of a size of 0.045 to 0.06, left at a rate of 1e-3."""
    rejections = 0
    for trial in range(TRIALS):
        rng = np.random.default_rng([trial, 4])
        x, model, base = (rng.normal((shift, 0.0), size=(80, 2)) for shift in (0.0, 0.7, -0.7))
        rejections += relative_mmd_test(x, model, base, permutations=19, seed=trial).reject
    assert binom.ppf(5e-4, TRIALS, 0.045) <= rejections <= binom.ppf(1 - 5e-4, TRIALS, 0.06)


@pytest.mark.parametrize("null", ["permutation", "sign_flip"])
def test_constant_samples_give_p_value_one(null: str) -> None:
    for seed in range(20):
        result = mmd_test(np.full((30, 4), 7.7), np.full((30, 4), 7.7), null=null, permutations=99, seed=seed)
        assert result.p_value == 1.0
        assert result.statistic == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("null", ["permutation", "sign_flip"])
def test_a_difference_is_found(null: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 5)), rng.normal(size=(200, 5)) + 0.4
    for kernel in ("gaussian", "laplace", "imq", "rational_quadratic", "energy", "polynomial", "linear"):
        result = mmd_test(x, y, kernel=kernel, null=null, permutations=199)
        assert result.p_value == 0.005
        assert result.reject
        assert result.statistic > result.threshold


def test_a_difference_in_shape_alone_is_found() -> None:
    """Normal against uniform with equal means and variances: a kernel narrower than the data sees it."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(1000, 2)), rng.uniform(-(3**0.5), 3**0.5, size=(800, 2))
    assert mmd_test(x, y, bandwidth=0.5, permutations=199).p_value == 0.005
    assert not mmd_test(x, y, kernel="linear", permutations=199).reject
