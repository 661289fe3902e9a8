"""The paired delete-group jackknife."""

import numpy as np
import pytest
from scipy.stats import binom

from gebm.cluster.errors import InputError
from gebm.evaluation.frechet import FrechetStatistics, frechet_distance, merge_all
from gebm.evaluation.jackknife import jackknife_interval, paired_jackknife, split_into_groups


def test_standard_error_of_a_mean_is_the_classical_one() -> None:
    values = np.random.default_rng(0).normal(size=40)
    left_out = [float(np.delete(values, i).mean()) for i in range(40)]
    interval = jackknife_interval(float(values.mean()), left_out)
    assert interval.standard_error == pytest.approx(values.std(ddof=1) / 40**0.5, rel=1e-9)
    assert interval.bias_corrected == pytest.approx(values.mean(), rel=1e-9)
    assert interval.low < values.mean() < interval.high


def test_bias_correction_turns_the_biased_variance_into_the_unbiased_one() -> None:
    values = np.random.default_rng(1).normal(size=30)
    left_out = [float(np.delete(values, i).var()) for i in range(30)]
    interval = jackknife_interval(float(values.var()), left_out)
    assert interval.bias_corrected == pytest.approx(values.var(ddof=1), rel=1e-9)


def test_groups_are_a_partition_and_alike_for_samples_of_one_size() -> None:
    rows = np.arange(103, dtype=float)[:, None] * np.ones((1, 2))
    groups = split_into_groups(rows, 20, seed=3)
    assert [group.count for group in groups] == [6] * 3 + [5] * 17
    whole = merge_all(groups)
    np.testing.assert_allclose(whole.mean, rows.mean(0))
    again = split_into_groups(rows + 1000.0, 20, seed=3)
    for group, other in zip(groups, again, strict=True):
        np.testing.assert_allclose(other.mean - group.mean, 1000.0)


def test_groups_that_cannot_be_made_are_refused() -> None:
    with pytest.raises(InputError, match="30 samples cannot be split into 20 groups"):
        split_into_groups(np.zeros((30, 2)), 20, seed=0)


def test_interval_of_a_relative_fid_covers_it_as_often_as_it_says() -> None:
    """250 draws at n = 300, d = 2, 95% intervals; false-alarm rate 1e-4 if coverage is 0.94 or more."""
    truth_of = {"base": 1.0, "model": 0.7}
    truth = 0.7**2  # equal covariances: FID is the squared distance of the means

    def ratio(real: FrechetStatistics, model: FrechetStatistics, base: FrechetStatistics) -> float:
        return frechet_distance(model, real) / frechet_distance(base, real)

    covered, trials = 0, 250
    for trial in range(trials):
        rng = np.random.default_rng(trial)
        real = rng.normal(size=(300, 2))
        noise = rng.normal(size=(300, 2))  # the model starts from the same latents as its base
        sides = [real] + [
            0.8 * noise + 0.6 * rng.normal(size=(300, 2)) + [truth_of[side], 0] for side in ("model", "base")
        ]
        interval = paired_jackknife(ratio, *(split_into_groups(side, 10, trial) for side in sides))
        covered += interval.low <= truth <= interval.high
    assert covered >= binom.ppf(1e-4, trials, 0.94)
