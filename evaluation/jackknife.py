"""Intervals for metrics that are biased at finite n: the paired delete-group jackknife.

FID is biased upward, and resampling with replacement biases it further: a percentile bootstrap of FID
excludes its own estimate. Leaving out one group at a time does not have that fault.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.stats import t as student

from gebm.evaluation.frechet import FrechetStatistics, merge_all
from gebm.evaluation.grouped_statistics import group_numbers

Found = TypeVar("Found")


class JackknifeInterval(NamedTuple):
    """An estimate with its uncertainty.

    Attributes:
        estimate: `θ` on all data.
        standard_error: `SE² = (G-1)/G Σ (θ_(g) - θ̄)²`.
        low: `θ - t_{G-1} SE`.
        high: `θ + t_{G-1} SE`.
        bias_corrected: `G θ - (G-1) θ̄`.
        groups: G.
    """

    estimate: float
    standard_error: float
    low: float
    high: float
    bias_corrected: float
    groups: int


def jackknife_interval(estimate: float, left_out: Sequence[float], confidence: float = 0.95) -> JackknifeInterval:
    """Interval from `estimate` on all data and `left_out`, those without one group (G >= 2)."""
    values = np.asarray(left_out, dtype=np.float64)
    groups = len(values)
    mean = values.mean()
    error = float(np.sqrt((groups - 1) / groups * np.square(values - mean).sum()))
    half_width = float(student.ppf(0.5 + confidence / 2, groups - 1)) * error
    corrected = float(groups * estimate - (groups - 1) * mean)
    return JackknifeInterval(estimate, error, estimate - half_width, estimate + half_width, corrected, groups)


def split_into_groups(features: np.ndarray, groups: int, seed: int) -> list[FrechetStatistics]:
    """Statistics of `groups` nearly equal random parts of features `(n, d)`.

    Raises `InputError` as `group_numbers`, which says how they are split.
    """
    numbers = group_numbers(len(features), groups, seed)
    return [FrechetStatistics.of(features[numbers == group]) for group in range(groups)]


def paired_jackknife(
    metric: Callable[..., float], *samples: Sequence[FrechetStatistics], confidence: float = 0.95
) -> JackknifeInterval:
    """Interval of `metric(statistics of sample 1, of sample 2, ...)`, leaving out group g of every sample at
    once.

    Args:
        metric: a function of one `FrechetStatistics` a sample.
        samples: for each sample its groups, equally many.
        confidence: of the interval.
    """
    whole, left_out = leave_groups_out(metric, *samples)
    return jackknife_interval(whole, left_out, confidence)


def leave_groups_out(metric: Callable[..., Found], *samples: Sequence[FrechetStatistics]) -> tuple[Found, list[Found]]:
    """`metric` of all groups, and without group g of every sample, for each g; arguments as for `paired_jackknife`."""
    totals = [merge_all(groups) for groups in samples]
    left_out = [
        metric(*(total.subtract(part) for total, part in zip(totals, parts, strict=True)))
        for parts in zip(*samples, strict=True)
    ]
    return metric(*totals), left_out
