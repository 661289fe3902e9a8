"""How many of the modes of stacked digits a sample covers, and how evenly (Metz et al. 2017).

Three random digits, one a channel, make 1,000 modes that are equally likely. A classifier of single digits says
which mode an image belongs to. Both figures depend on the number of images: even a perfect sample of n images
leaves `K (1 - 1/K)^n` of `K` modes out, so real images are counted beside.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gebm.cluster.index import load_index
from gebm.cluster.reader import iterate_batches
from gebm.evaluation.digit_classifier import (
    DIGITS,
    DigitClassifier,
    check_digit_sets,
    classify,
    numbers_of,
    single_digits,
    train_digit_classifier,
)

BATCH = 1_000


class ModeCoverage(NamedTuple):
    """covered: modes with at least one image. of: all modes. kl_to_uniform: in nats. n: images."""

    covered: int
    of: int
    kl_to_uniform: float
    n: int


def coverage(modes: np.ndarray, of: int) -> ModeCoverage:
    """Coverage of `of` modes by int `(n,)` modes: `KL(p || uniform) = sum_k p_k log(of p_k)`, `p` the shares."""
    counts = np.bincount(modes, minlength=of)
    shares = counts[counts > 0] / len(modes)
    return ModeCoverage(len(shares), of, float((shares * np.log(of * shares)).sum()), len(modes))


def expected_coverage(of: int, n: int) -> float:
    """Modes that n independent uniform draws cover on average."""
    return of * (1.0 - (1.0 - 1.0 / of) ** n)


def modes_of(classifier: DigitClassifier, url: str) -> np.ndarray:
    """The mode, `(n,)`, of every image of a shard set: its channels' digits read as one number."""
    return np.concatenate([numbers_of(classifier, batch.images) for batch in iterate_batches(url, BATCH)])


def count_modes(sets: dict[str, str], train: str, test: str, seed: int) -> dict[str, Any]:
    """Coverage of each shard set of `sets`, by a classifier trained on the labelled set `train`.

    Returns, JSON-able, `{name: coverage}` and `classifier` with its `accuracy` on the single digits of the
    labelled set `test` and their number `n`. Raises `InputError` as `check_digit_sets`.
    """
    check_digit_sets(sets.values(), train, test)
    held_out = single_digits(test)
    classifier = train_digit_classifier(single_digits(train), seed)
    right = classify(classifier, held_out.images) == held_out.labels
    of = DIGITS ** load_index(test).image_shape[0]
    found: dict[str, Any] = {name: coverage(modes_of(classifier, url), of)._asdict() for name, url in sets.items()}
    return {**found, "classifier": {"accuracy": float(right.mean()), "n": len(right)}}
