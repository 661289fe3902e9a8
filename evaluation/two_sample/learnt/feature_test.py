"""Classifier tests and tests at learnt locations: learn features on one half, compare their means on the other."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.learnt.classifier import Classifier, ClassifierSettings, train_classifier
from gebm.evaluation.two_sample.learnt.locations import Locations, LocationSettings, optimise_locations
from gebm.evaluation.two_sample.learnt.mean_difference import mean_difference_null
from gebm.evaluation.two_sample.learnt.split import split_samples
from gebm.evaluation.two_sample.mmd import check_permutations, check_settings
from gebm.evaluation.two_sample.samples import Sample, as_samples

FEATURE_TESTS = ("c2st-s", "c2st-l", "me", "scf")


@dataclass(frozen=True)
class FeatureTestResult:
    """The test on one half of the points, and what was learnt on the other.

    Attributes:
        statistic: the whitened squared difference of the features' means.
        p_value: exact in finite samples.
        reject: whether `p_value <= level`.
        threshold: the test rejects when the statistic exceeds it.
        method: `c2st-s`, `c2st-l`, `me` or `scf`.
        n: points of `x` that were tested.
        m: points of `y` that were tested.
        trained_x: points of `x` that were learnt on.
        trained_y: points of `y`.
        permutations: how many random labellings.
        level: the level tested at.
        seed: of everything random.
        learnt: what makes the features.
    """

    statistic: float
    p_value: float
    reject: bool
    threshold: float
    method: str
    n: int
    m: int
    trained_x: int
    trained_y: int
    permutations: int
    level: float
    seed: int
    learnt: Classifier | Locations


def learnt_feature_test(
    x: Sample,
    y: Sample,
    *,
    method: Literal["c2st-s", "c2st-l", "me", "scf"],
    settings: ClassifierSettings | LocationSettings | None = None,
    train_share: float = 0.5,
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> FeatureTestResult:
    """Test whether `x` and `y` are samples of one distribution by the means of a few learnt features.

    The p-value comes from relabelling the tested half, whose features are fixed: it is exact. (The published ME and SCF
    tests take a chi-squared limit instead.)

    Args:
        x: vectors `(n, d)` or images `(n, channels, height, width)`.
        y: `(m, ...)`; n and m may differ.
        method: `c2st-s`, which class a network says; `c2st-l`, with what probability; `me`, Gaussian bumps at learnt
            locations; `scf`, waves of learnt frequencies.
        settings: of the classifier's training, or of the locations'; None for the defaults.
        train_share: share of both samples that is learnt on.
        permutations: random labellings; `level * (permutations + 1)` should be whole.
        level: probability of a false alarm.
        seed: of the split, the training and the labellings.
        device: where to train and to compute; None for that of `x`.

    Raises:
        InputError: samples that cannot be compared or are too small to split, settings that do not fit together.
    """
    if method not in FEATURE_TESTS:
        raise InputError(f"method: no method {method!r}; there are {', '.join(FEATURE_TESTS)}")
    needed = LocationSettings if method in ("me", "scf") else ClassifierSettings
    if settings is not None and not isinstance(settings, needed):
        raise InputError(f"settings: method={method!r} takes {needed.__name__}, got {type(settings).__name__}")
    check_settings("gaussian", "median", level)
    check_permutations(permutations, level)
    as_samples({"x": x, "y": y}, device)
    split = split_samples(x, y, train_share, np.random.default_rng(derive_seed(seed, "two_sample_learnt", "split")))
    learnt: Classifier | Locations
    train_x, train_y, options = split.train_x, split.train_y, {"kind": method, "settings": settings}
    if needed is LocationSettings:
        learnt = optimise_locations(train_x, train_y, **options, seed=seed, device=device)  # type: ignore[arg-type]
    else:
        learnt = train_classifier(train_x, train_y, **options, seed=seed, device=device)  # type: ignore[arg-type]
    rng = np.random.default_rng(derive_seed(seed, "two_sample_learnt", "mean_difference"))
    features = (learnt.features(split.test_x, device), learnt.features(split.test_y, device))
    outcome = mean_difference_null(*features, permutations, rng)
    return FeatureTestResult(
        statistic=outcome.observed,
        p_value=outcome.p_value(),
        reject=outcome.rejects(level),
        threshold=outcome.threshold(level),
        method=method,
        n=len(split.test_x),
        m=len(split.test_y),
        trained_x=len(split.train_x),
        trained_y=len(split.train_y),
        permutations=permutations,
        level=level,
        seed=seed,
        learnt=learnt,
    )
