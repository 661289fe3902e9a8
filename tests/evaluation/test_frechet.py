"""Fréchet statistics and distance against float64 restatements, closed forms and torch-fidelity."""

import numpy as np
import pytest
import scipy.linalg
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.frechet import FrechetStatistics, frechet_distance, merge_all


def features(count: int, dimension: int, seed: int, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(dimension, dimension)) / dimension**0.5
    return (rng.normal(size=(count, dimension)) @ mixing + shift).astype(np.float32)


def restated(x: np.ndarray, y: np.ndarray) -> float:
    """The formula as it is written, on all features at once in float64."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    s_x, s_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(s_x @ s_y)
    difference = x.mean(0) - y.mean(0)
    return float(difference @ difference + np.trace(s_x) + np.trace(s_y) - 2 * np.trace(root.real))


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_distance_agrees_with_a_float64_restatement_for_any_grouping(offset: float) -> None:
    x, y = features(600, 24, 1, offset), features(500, 24, 2, offset + 0.2)
    expected = restated(x, y)
    for sizes in ([600], [1, 599], [100] * 6, [7, 0, 93, 200, 300]):
        parts = np.split(x, np.cumsum(sizes)[:-1])
        statistics = merge_all(FrechetStatistics.of(part) for part in parts)
        assert statistics.count == 600
        assert frechet_distance(statistics, FrechetStatistics.of(y)) == pytest.approx(expected, rel=1e-9)


def test_subtracting_a_part_is_the_same_as_never_having_had_it() -> None:
    x, part = features(300, 10, 1, 5.0), features(40, 10, 2, -3.0)
    whole = FrechetStatistics.of(np.concatenate([x, part]))
    left = whole.subtract(FrechetStatistics.of(part))
    expected = FrechetStatistics.of(x)
    assert left.count == 300
    np.testing.assert_allclose(left.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(left.scatter, expected.scatter, rtol=1e-9, atol=1e-9)


def test_distance_of_diagonal_gaussians_is_the_closed_form() -> None:
    s_a, s_b, mean = np.array([1.0, 4.0, 0.25]), np.array([9.0, 1.0, 0.25]), np.array([1.0, -2.0, 0.0])
    a = FrechetStatistics(11, np.zeros(3), np.diag(s_a) * 10)
    b = FrechetStatistics(11, mean, np.diag(s_b) * 10)
    expected = 5.0 + np.square(np.sqrt(s_a) - np.sqrt(s_b)).sum()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-12)


def test_distance_agrees_with_torch_fidelity() -> None:
    from gebm.evaluation.extractors import torch_fidelity_registry  # noqa: F401  makes it importable

    from torch_fidelity.metric_fid import (  # isort: skip
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    x, y = features(400, 64, 1), features(400, 64, 2, 0.1)
    peer = fid_statistics_to_metric(
        *(fid_features_to_statistics(torch.from_numpy(side)) for side in (x, y)), verbose=False
    )[KEY_METRIC_FID]
    ours = frechet_distance(FrechetStatistics.of(x), FrechetStatistics.of(y))
    assert ours == pytest.approx(peer, rel=1e-4)


def test_a_set_has_distance_zero_to_itself() -> None:
    for count in (500, 20):  # with a regular and with a singular covariance
        x = FrechetStatistics.of(features(count, 32, 1))
        assert frechet_distance(x, x) == pytest.approx(0.0, abs=1e-6 * np.trace(x.covariance))


def test_fewer_images_than_dimensions_give_the_value_of_the_restatement() -> None:
    x, y = features(20, 32, 1), features(25, 32, 2, 0.5)
    ours = frechet_distance(FrechetStatistics.of(x), FrechetStatistics.of(y))
    assert ours == pytest.approx(restated(x, y), rel=1e-6)


def test_constant_images_have_the_distance_of_a_point_mass() -> None:
    point = FrechetStatistics.of(np.full((50, 8), 3.0))
    y = FrechetStatistics.of(features(200, 8, 2))
    expected = np.square(3.0 - y.mean).sum() + np.trace(y.covariance)
    assert frechet_distance(point, y) == pytest.approx(expected, rel=1e-12)
    assert frechet_distance(y, point) == pytest.approx(expected, rel=1e-12)


def test_what_has_no_distance_is_a_clear_error() -> None:
    good = FrechetStatistics.of(features(10, 4, 1))
    with pytest.raises(InputError, match="at least two samples, got 1"):
        frechet_distance(FrechetStatistics.of(features(1, 4, 1)), good)
    with pytest.raises(InputError, match="dimension 4 and 5"):
        frechet_distance(good, FrechetStatistics.of(features(10, 5, 1)))
    bad = features(10, 4, 1)
    bad[3, 2] = np.nan
    with pytest.raises(InputError, match="1 of 10 hold NaN"):
        FrechetStatistics.of(bad)
