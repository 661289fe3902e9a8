"""Whether the images of a conditional model show what their labels say, for digits.

A classifier that was trained on the real training digits reads every image; its share of agreement with the labels
on real test images is what a perfect model would have.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.reader import iterate_batches
from gebm.evaluation.digit_classifier import (
    DIGITS,
    check_digit_sets,
    numbers_of,
    single_digits,
    train_digit_classifier,
)

BATCH = 1_000


class Agreement(NamedTuple):
    """share: of the n images that show what their label says. standard_error: binomial, `sqrt(p (1 - p) / n)`.

    by_class: the share for each of the ten digits, None for one of which there is no image; None for numbers of
    several digits.
    """

    share: float
    standard_error: float
    n: int
    by_class: list[float | None] | None


def agreement(shown: np.ndarray, labels: np.ndarray, classes: int) -> Agreement:
    """How often `shown` `(n,)` is what `labels` `(n,)` say, both int in 0 to `classes - 1`."""
    right = shown == labels
    share = float(right.mean())
    by_class = None
    if classes == DIGITS:
        by_class = [float(right[labels == each].mean()) if (labels == each).any() else None for each in range(classes)]
    return Agreement(share, math.sqrt(share * (1 - share) / len(right)), len(right), by_class)


def check_labelled_sets(sets: Iterable[str], train: str | None, test: str) -> None:
    """Raise `InputError` unless all sets are digits with labels of the classes of the real ones."""
    sets = list(sets)
    check_digit_sets(sets, train, test)
    classes = load_index(test).classes
    for url in sets:
        found = load_index(url).classes
        if found != classes:
            raise InputError(
                f"{url}: {found or 'no'} classes, the real images have {classes}; labels are read off samples of a "
                "conditional model: set model.conditional = true, or leave labels out of evaluation.metrics"
            )


def label_agreement(sets: dict[str, str], train: str, test: str, seed: int) -> dict[str, Any]:
    """The agreement of each shard set of `sets`, by a classifier trained on the labelled set `train`.

    `test` is the set of real images, one of `sets` or not. Returns, JSON-able, `{name: agreement}`. Raises
    `InputError` as `check_labelled_sets`.
    """
    check_labelled_sets(sets.values(), train, test)
    classifier = train_digit_classifier(single_digits(train), seed)
    classes = load_index(test).classes
    assert classes is not None
    found = {}
    for name, url in sets.items():
        shown, labels = [], []
        for batch in iterate_batches(url, BATCH):
            assert batch.labels is not None
            shown.append(numbers_of(classifier, batch.images))
            labels.append(batch.labels)
        found[name] = agreement(np.concatenate(shown), np.concatenate(labels), classes)._asdict()
    return found
