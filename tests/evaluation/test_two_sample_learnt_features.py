"""Classifier tests and tests at learnt locations: exact by relabelling the tested half, and not blind."""

from itertools import combinations

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.learnt import (
    ClassifierSettings,
    DeepKernelSettings,
    LocationSettings,
    learnt_feature_test,
    optimise_locations,
    train_classifier,
)
from gebm.evaluation.two_sample.learnt.mean_difference import mean_difference_null

QUICK = {
    "c2st-s": ClassifierSettings(width=16, steps=300, learning_rate=5e-3),
    "c2st-l": ClassifierSettings(width=16, steps=300, learning_rate=5e-3),
    "me": LocationSettings(count=3, steps=60),
    "scf": LocationSettings(count=3, steps=60),
}


def rings(seed: int, n: int, radius: float) -> np.ndarray:
    """Points near a circle: no difference of means or covariances tells radii apart that noise makes up for."""
    rng = np.random.default_rng(seed)
    angle = rng.uniform(0, 2 * np.pi, size=n)
    return radius * np.stack([np.cos(angle), np.sin(angle)], 1) + rng.normal(size=(n, 2)) * np.sqrt(1.2 - radius**2 / 2)


@pytest.mark.parametrize("method", QUICK)
def test_every_method_tells_a_ring_from_a_cloud_of_the_same_mean_and_covariance(method: str) -> None:
    x, y = rings(0, 500, 0.0), rings(1, 500, 1.4)
    result = learnt_feature_test(x, y, method=method, settings=QUICK[method], permutations=199)
    assert result.reject and (result.n, result.trained_x) == (250, 250)
    assert result.statistic > result.threshold
    again = learnt_feature_test(x, y, method=method, settings=QUICK[method], permutations=199)
    assert (again.p_value, again.statistic) == (result.p_value, result.statistic)


def test_p_value_of_a_difference_of_means_is_that_of_all_relabellings() -> None:
    """5 against 4 points: 126 labellings, by Hotelling's T² with the total covariance. Monte Carlo within 4.5 standard
    errors: false-alarm rate 1e-5."""
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(5, 2)), rng.normal(size=(4, 2)) + 0.9
    pooled = np.concatenate([x, y])
    precision = np.linalg.inv(np.cov(pooled.T, ddof=0))
    values = []
    for chosen in combinations(range(9), 5):
        apart = pooled[list(chosen)].mean(0) - pooled[[i for i in range(9) if i not in chosen]].mean(0)
        values.append(apart @ precision @ apart)
    exact = np.mean(np.array(values) >= values[0] - 1e-12)
    null = mean_difference_null(torch.from_numpy(x), torch.from_numpy(y), 19_999, np.random.default_rng(0))
    assert null.observed == pytest.approx(values[0], rel=1e-9)
    assert abs(null.p_value() - exact) <= 4.5 * (exact * (1 - exact) / 19_999) ** 0.5 + 1e-4


def test_features_that_never_vary_reject_nothing() -> None:
    constant = torch.ones(10, 2)
    assert mean_difference_null(constant, constant, 19, np.random.default_rng(0)).p_value() == 1.0


def test_a_feature_twice_is_a_feature_once() -> None:
    rng = np.random.default_rng(4)
    x, y = (torch.from_numpy(rng.normal(size=(20, 1)) + shift) for shift in (0.0, 0.5))
    once = mean_difference_null(x, y, 99, np.random.default_rng(0))
    twice = mean_difference_null(torch.cat([x, x], 1), torch.cat([y, y], 1), 99, np.random.default_rng(0))
    assert twice.p_value() == once.p_value()


def test_a_classifier_says_which_class_and_how_probably() -> None:
    x, y = rings(0, 200, 0.0), rings(1, 100, 0.0) + 3.0
    side = train_classifier(x, y, kind="c2st-s", settings=QUICK["c2st-s"])
    probability = train_classifier(x, y, kind="c2st-l", settings=QUICK["c2st-l"])
    assert set(side.features(y).flatten().tolist()) <= {0.0, 1.0}
    assert side.features(y).mean() > 0.9 and side.features(x).mean() < 0.1
    assert torch.equal(probability.features(x) > 0.5, side.features(x) > 0.5)
    middle = torch.tensor([[1.5, 1.5]])
    assert 0.2 < float(probability.features(middle)) < 0.8  # twice as many points of x do not move the border


def test_classifiers_take_images() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(40, 1, 12, 12), dtype=np.uint8)
    y = rng.integers(0, 128, size=(40, 1, 12, 12), dtype=np.uint8)
    settings = ClassifierSettings(steps=20)
    assert learnt_feature_test(x, y, method="c2st-l", settings=settings, permutations=99).reject


@pytest.mark.parametrize("kind", ["me", "scf"])
def test_learning_separates_the_training_half_better(kind: str) -> None:
    x, y = rings(0, 300, 0.0), rings(1, 300, 1.4)

    def separation(steps: int) -> float:
        learnt = optimise_locations(x, y, kind=kind, settings=LocationSettings(steps=steps, learning_rate=0.05))
        apart = learnt.features(x) - learnt.features(y)
        regular = torch.cov(apart.T) + 1e-4 * torch.eye(apart.shape[1], dtype=apart.dtype)
        return float(apart.mean(0) @ torch.linalg.solve(regular, apart.mean(0)))

    assert separation(100) > 1.2 * separation(1)


def test_features_at_locations_are_those_of_their_formulas() -> None:
    x, y = rings(0, 30, 0.0), rings(1, 30, 1.4)
    learnt = optimise_locations(x, y, kind="scf", settings=QUICK["scf"])
    points = (x - learnt.centre.numpy()) / learnt.width
    waves = points @ learnt.places.numpy().T
    window = np.exp(-np.square(points).sum(1, keepdims=True) / 2)
    np.testing.assert_allclose(
        learnt.features(x), window * np.concatenate([np.sin(waves), np.cos(waves)], 1), atol=1e-9
    )
    learnt = optimise_locations(x, y, kind="me", settings=QUICK["me"])
    apart = (x - learnt.centre.numpy())[:, None] - learnt.places.numpy()[None]
    bumps = np.exp(-np.square(apart).sum(-1) / (2 * learnt.width**2))
    np.testing.assert_allclose(learnt.features(x), bumps, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "c2st"}, "method: no method 'c2st'"),
        ({"method": "me", "settings": ClassifierSettings()}, "takes LocationSettings, got ClassifierSettings"),
        ({"method": "c2st-l", "settings": DeepKernelSettings()}, "takes ClassifierSettings, got DeepKernelSettings"),
        ({"method": "me", "permutations": 18}, "too few to reject"),
        ({"method": "me", "train_share": 0.99}, "fewer than two points"),
    ],
)
def test_what_cannot_be_is_one_clear_error(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        learnt_feature_test(rings(0, 20, 0.0), rings(1, 20, 1.0), **options)


def test_settings_that_cannot_train_are_refused_by_name() -> None:
    with pytest.raises(InputError, match="steps: must be positive"):
        ClassifierSettings(steps=0)
    with pytest.raises(InputError, match="count: must be positive"):
        LocationSettings(count=0)
