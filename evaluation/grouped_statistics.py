"""Fréchet statistics of the groups of a sample, of each class apart where there are classes, from a stream of features.

Memory follows from the number of groups and the dimension, whatever the number of images: `O(d²)` a group.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.frechet import FrechetStatistics, merge_all

FEWEST_ROWS = 256
"""Rows that are gathered before they are multiplied, at least: a product of few rows moves more than it computes."""


def group_numbers(count: int, groups: int, seed: int) -> np.ndarray:
    """The group of each of `count` samples, int `(count,)` in 0 to `groups - 1`: nearly equal random parts.

    It depends on `count`, `groups` and `seed` only: samples of equal size that correspond row by row (a model's and
    its base's, started at the same latents) are split alike. It is random because neighbouring images are often alike
    (folders sorted by class).

    Raises:
        InputError: fewer than two samples a group, or fewer than two groups.
    """
    if groups < 2 or count < 2 * groups:
        raise InputError(
            f"groups: {count} samples cannot be split into {groups} groups; "
            f"the jackknife needs at least two groups of at least two samples"
        )
    order = np.random.default_rng(derive_seed(seed, "jackknife", count)).permutation(count)
    numbers = np.empty(count, dtype=np.int64)
    for group, part in enumerate(np.array_split(order, groups)):
        numbers[part] = group
    return numbers


class RunningStatistics:
    """Statistics of features that come bit by bit.

    Rows are kept until there are as many as dimensions, then folded into count, mean and scatter: never more memory
    than the scatter itself, and products of matrices that are worth their name.
    """

    def __init__(self, dimension: int):
        self._statistics = FrechetStatistics.empty(dimension)
        self._rows: list[np.ndarray] = []
        self._waiting = 0

    def add(self, features: np.ndarray) -> None:
        """Take features `(n, d)` in, n >= 0."""
        if len(features) == 0:
            return
        self._rows.append(np.array(features))  # a copy: a few rows must not keep all of a larger array
        self._waiting += len(features)
        if self._waiting >= max(FEWEST_ROWS, self._statistics.dimension):
            self._fold()

    def statistics(self) -> FrechetStatistics:
        """Of all that was added."""
        self._fold()
        return self._statistics

    def _fold(self) -> None:
        if self._waiting:
            self._statistics = self._statistics.merge(FrechetStatistics.of(np.concatenate(self._rows)))
            self._rows, self._waiting = [], 0


class GroupedStatistics:
    """Statistics of the groups of one sample, class by class.

    Args:
        dimension: of the features.
        groups: int `(n,)`, the group of each image; see `group_numbers`. All zero: one group.
        labels: int `(n,)`, the class of each image; None for no classes. Images of class -1 belong to none: they
            count in the whole sample alone.
    """

    def __init__(self, dimension: int, groups: np.ndarray, labels: np.ndarray | None = None):
        self._dimension = dimension
        self._groups = groups
        self._labels = labels
        self._cells: dict[tuple[int, int], RunningStatistics] = {}

    def add(self, first: int, features: np.ndarray) -> None:
        """Take in features `(n, d)` of the images from number `first` of the sample on."""
        rows = slice(first, first + len(features))
        groups = self._groups[rows]
        labels = np.zeros_like(groups) if self._labels is None else self._labels[rows]
        for label, group in np.unique(np.stack([labels, groups], 1), axis=0).tolist():
            cell = self._cells.setdefault((label, group), RunningStatistics(self._dimension))
            cell.add(features[(labels == label) & (groups == group)])

    def parts(self) -> list[FrechetStatistics]:
        """Of each group of the whole sample, in order."""
        return self._merged(lambda label: True)

    def class_parts(self, label: int) -> list[FrechetStatistics]:
        """Of each group of one class, in order; of a group without its images, statistics of nothing."""
        return self._merged(lambda found: found == label)

    def _merged(self, wanted: Callable[[int], bool]) -> list[FrechetStatistics]:
        found: list[list[FrechetStatistics]] = [[] for _ in range(int(self._groups.max(initial=0)) + 1)]
        for (label, group), cell in sorted(self._cells.items()):
            if wanted(label):
                found[group].append(cell.statistics())
        return [merge_all(parts) if parts else FrechetStatistics.empty(self._dimension) for parts in found]
