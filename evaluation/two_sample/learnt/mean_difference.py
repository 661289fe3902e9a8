"""Exact tests on a few learnt features of points: is their mean the same in both samples?

The features are functions of the training half alone. On the tested half they are numbers, one row a point, and the
statistic of a labelling is the whitened difference of means, `‖C^(-1/2) (mean_X f - mean_Y f)‖²`, with C the covariance
over all tested points: it does not know the labels, so that all labellings are compared in one norm. With one feature
this orders labellings as `|mean_X f - mean_Y f|` does; with several, as Hotelling's T² does.
"""

import numpy as np
import torch

from gebm.evaluation.two_sample.nulls.null_sample import NullSample
from gebm.evaluation.two_sample.nulls.permutation import random_labels

SMALLEST_SHARE = 1e-8  # of the largest variance; directions with less are left out
ROUNDING = 1e-10  # of the largest statistic: below it, statistics are equal
LABELLINGS_AT_A_TIME = 256


def mean_difference_null(x: torch.Tensor, y: torch.Tensor, permutations: int, rng: np.random.Generator) -> NullSample:
    """The whitened difference of means of the true labelling and of random ones.

    Args:
        x: features `(n, J)` of the tested points of X.
        y: `(m, J)`, of Y.
        permutations: random labellings.
        rng: of the order and the labellings.
    """
    n, m = len(x), len(y)
    order = torch.from_numpy(rng.permutation(n + m))
    pooled = torch.cat([x, y]).to(torch.float64)[order.to(x.device)]
    labels, position = random_labels(order < n, permutations, rng)
    white = whitened(pooled)
    sums = torch.cat([part.to(white) @ white for part in labels.to(white.device).split(LABELLINGS_AT_A_TIME)])
    values = (sums / n - (white.sum(0) - sums) / m).square().sum(1)
    return NullSample.around(values, position, ROUNDING * float(values.max()))


def whitened(pooled: torch.Tensor) -> torch.Tensor:
    """Rows with mean zero and covariance one, in the directions in which they vary at all."""
    centred = pooled - pooled.mean(0)
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    kept = variances > SMALLEST_SHARE * variances[-1]
    return centred @ (directions[:, kept] / variances[kept].sqrt())
