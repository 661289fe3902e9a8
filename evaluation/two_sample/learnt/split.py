"""Splitting two samples into what is learnt on and what is tested."""

from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.samples import Sample


class Split(NamedTuple):
    """Rows of both samples: to learn on, and to test."""

    train_x: Sample
    train_y: Sample
    test_x: Sample
    test_y: Sample


def split_samples(x: Sample, y: Sample, train_share: float, rng: np.random.Generator) -> Split:
    """A random split of both samples; of samples of one size, pairs `(x_i, y_i)` stay together.

    Raises:
        InputError: a share that leaves fewer than two points of either sample on either side.
    """
    if not 0 < train_share < 1:
        raise InputError(f"train_share: must be between 0 and 1, got {train_share}")
    n, m = len(x), len(y)
    order_x = rng.permutation(n)
    order_y = order_x if n == m else rng.permutation(m)
    cut_x, cut_y = round(train_share * n), round(train_share * m)
    if min(cut_x, cut_y, n - cut_x, m - cut_y) < 2:
        raise InputError(
            f"train_share: {train_share} of {n} and {m} points leaves fewer than two points of a sample to learn on or "
            f"to test"
        )
    return Split(
        _take(x, order_x[:cut_x]), _take(y, order_y[:cut_y]), _take(x, order_x[cut_x:]), _take(y, order_y[cut_y:])
    )


def _take(sample: Sample, index: np.ndarray) -> Sample:
    return sample[torch.from_numpy(index).to(sample.device)] if isinstance(sample, torch.Tensor) else sample[index]
