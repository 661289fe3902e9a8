"""What `mmd_test` takes and refuses, and that it can be repeated."""

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_test, relative_mmd_test
from gebm.evaluation.two_sample.nulls.null_sample import NullSample


def sample(n: int = 30, d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, d))


def test_the_same_call_gives_the_same_result_and_another_seed_other_permutations() -> None:
    x, y = sample(), sample(25, seed=1)
    assert mmd_test(x, y, seed=5) == mmd_test(x, y, seed=5)
    other = mmd_test(x, y, seed=6)
    assert other.threshold != mmd_test(x, y, seed=5).threshold
    assert other.statistic == pytest.approx(mmd_test(x, y, seed=5).statistic, abs=1e-7)


def test_arrays_tensors_dtypes_and_images_are_alike() -> None:
    rng = np.random.default_rng(0)
    x, y = (rng.integers(0, 256, size=(20, 3, 4, 4), dtype=np.uint8) for _ in range(2))
    expected = mmd_test(x.reshape(20, 48).astype(np.float64), y.reshape(20, 48).astype(np.float64))
    for convert in (lambda a: a, torch.from_numpy, lambda a: torch.from_numpy(a).half()):
        found = mmd_test(convert(x), convert(y))
        assert found.dimension == 48
        assert found.statistic == pytest.approx(expected.statistic, abs=1e-6)
        assert found.p_value == expected.p_value


def test_swapping_the_samples_does_not_change_the_statistic() -> None:
    x, y = sample(), sample(40, seed=1)
    assert mmd_test(x, y).statistic == pytest.approx(mmd_test(y, x).statistic, abs=1e-7)


def test_threshold_is_the_value_beyond_which_the_test_rejects() -> None:
    for seed in range(40):
        x, y = sample(20, seed=seed), sample(20, seed=seed + 100) + 0.35
        result = mmd_test(x, y, permutations=99, seed=seed)
        assert result.reject == (result.statistic > result.threshold)


def test_p_value_counts_the_observed_statistic_and_ties() -> None:
    resampled = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    assert NullSample(0.5, resampled, 0.0).p_value() == 1 / 5
    assert NullSample(0.4, resampled, 0.0).p_value() == 2 / 5
    assert NullSample(0.4 + 1e-9, resampled, 1e-8).p_value() == 2 / 5  # within rounding: a tie
    assert NullSample(0.0, resampled, 0.0).p_value() == 1.0


def test_a_level_between_two_p_values_is_rounded_down() -> None:
    """With 20 permutations the p-values are 1/21, 2/21, ...: only the first is at most 0.05."""
    resampled = torch.linspace(0, 1, 20, dtype=torch.float64)
    assert NullSample(1.1, resampled, 0.0).rejects(0.05)
    assert not NullSample(0.99, resampled, 0.0).rejects(0.05)
    assert NullSample(1.1, resampled, 0.0).threshold(0.05) == 1.0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_by_name(bad: float) -> None:
    y = sample(seed=1)
    y[4, 1] = bad
    with pytest.raises(InputError, match="y: 1 of 30 points hold NaN or infinity"):
        mmd_test(sample(), y)
    with pytest.raises(InputError, match="base: 1 of 30 points"):
        relative_mmd_test(sample(), sample(), y)


@pytest.mark.parametrize(
    ("x", "y", "options", "message"),
    [
        (sample(1), sample(), {}, "x: a test needs at least two points"),
        (sample(0), sample(), {}, "x: a test needs at least two points"),
        (sample(d=3), sample(d=4), {}, "x has dimension 3 and y has 4"),
        (sample()[:, 0], sample(), {}, r"passed as \(n, 1\)"),
        (sample() * 1j, sample(), {}, "real numbers"),
        (sample(20), sample(30), {"null": "sign_flip"}, "need pairs, but x has 20 points and y has 30"),
        (sample(), sample(), {"null": "magic"}, "'magic'; there are permutation, sign_flip"),
        (sample(), sample(), {"kernel": "cubic"}, "no kernel 'cubic'; there are gaussian"),
        (sample(), sample(), {"bandwidth": 0.0}, "bandwidth: must be a positive number or 'median'"),
        (sample(), sample(), {"bandwidth": "mean"}, "bandwidth: must be"),
        (sample(), sample(), {"level": 1.5}, "level: must be between 0 and 1"),
        (sample(), sample(), {"permutations": 18}, "18 are too few to reject at level 0.05; use 19 or more"),
    ],
)
def test_what_cannot_be_tested_is_one_clear_error(x: np.ndarray, y: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mmd_test(x, y, **options)
