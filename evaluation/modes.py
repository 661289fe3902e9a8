"""How many of the modes of stacked digits a sample covers, and how evenly (Metz et al. 2017).

Three random digits, one a channel, make 1,000 modes that are equally likely. A classifier of single digits says
which mode an image belongs to. Both figures depend on the number of images: even a perfect sample of n images
leaves `K (1 - 1/K)^n` of `K` modes out, so real images are counted beside.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.reader import iterate_batches
from gebm.evaluation.digit_classifier import (
    DIGITS,
    DigitClassifier,
    check_stacked_digits,
    classify,
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
    found = []
    for batch in iterate_batches(url, BATCH):
        channels = batch.images.shape[1]
        digits = classify(classifier, batch.images.reshape(-1, 1, *batch.images.shape[2:]))
        found.append(digits.reshape(-1, channels) @ DIGITS ** np.arange(channels - 1, -1, -1))
    return np.concatenate(found)


def check_mode_sets(sets: Iterable[str], train: str | None, test: str) -> None:
    """Raise `InputError` unless `train` and `test` are labelled stacked digits and all sets have images like theirs."""
    if train is None:
        raise InputError(
            "evaluation.metrics: modes are counted by a classifier of digits, and no labelled training images are "
            "given: give them (--digits; `gebm data stacked_mnist` makes some), or leave modes out"
        )
    for url in (train, test):
        check_stacked_digits(url)
    shape = load_index(train).image_shape
    for url in (test, *sets):
        if load_index(url).image_shape != shape:
            raise InputError(f"{url}: images of another shape than {train}; modes are counted on images of one shape")


def count_modes(sets: dict[str, str], train: str, test: str, seed: int) -> dict[str, Any]:
    """Coverage of each shard set of `sets`, by a classifier trained on the labelled set `train`.

    Returns, JSON-able, `{name: coverage}` and `classifier` with its `accuracy` on the single digits of the
    labelled set `test` and their number `n`. Raises `InputError` as `check_mode_sets`.
    """
    check_mode_sets(sets.values(), train, test)
    held_out = single_digits(test)
    classifier = train_digit_classifier(single_digits(train), seed)
    right = classify(classifier, held_out.images) == held_out.labels
    of = DIGITS ** load_index(test).image_shape[0]
    found: dict[str, Any] = {name: coverage(modes_of(classifier, url), of)._asdict() for name, url in sets.items()}
    return {**found, "classifier": {"accuracy": float(right.mean()), "n": len(right)}}
