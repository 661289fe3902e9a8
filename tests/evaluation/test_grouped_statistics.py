"""Streaming statistics by group and class are those of all the features at once, however they came."""

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation.frechet import FrechetStatistics, merge_all
from gebm.evaluation.grouped_statistics import FEWEST_ROWS, GroupedStatistics, RunningStatistics, group_numbers

COUNT, DIMENSION = 1_500, 12


def features(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(COUNT, DIMENSION)) * rng.uniform(0.1, 3, DIMENSION) + 100.0).astype(np.float32)


def assert_restated(found: FrechetStatistics, values: np.ndarray) -> None:
    """To 1e-9 of the float64 statement on all values."""
    values = values.astype(np.float64)
    assert found.count == len(values)
    np.testing.assert_allclose(found.mean, values.mean(0), rtol=1e-12)
    scatter = (values - values.mean(0)).T @ (values - values.mean(0))
    np.testing.assert_allclose(found.scatter, scatter, rtol=1e-9, atol=1e-9 * np.abs(scatter).max())


@pytest.mark.parametrize("cuts", [[], [1, 2, 3], list(range(250, COUNT, 250)), [0, 0, 700, COUNT]])
def test_any_cutting_of_a_stream_gives_the_statistics_of_the_whole(cuts: list[int]) -> None:
    values = features()
    running = RunningStatistics(DIMENSION)
    for piece in np.split(values, cuts):
        running.add(piece)
    assert_restated(running.statistics(), values)
    running.add(values[:5])
    assert running.statistics().count == COUNT + 5


def test_groups_and_classes_have_the_statistics_of_their_own_images_in_any_order_of_arrival() -> None:
    values = features()
    groups = group_numbers(COUNT, 7, seed=3)
    labels = np.random.default_rng(1).integers(-1, 3, COUNT)
    grouped = GroupedStatistics(DIMENSION, groups, labels)
    starts = list(range(0, COUNT, 130))
    for first in reversed(starts):
        grouped.add(first, values[first : first + 130])
    for group, found in enumerate(grouped.parts()):
        assert_restated(found, values[groups == group])
    for label in range(3):
        for group, found in enumerate(grouped.class_parts(label)):
            assert_restated(found, values[(groups == group) & (labels == label)])
    whole = merge_all(grouped.parts())
    assert_restated(whole, values)
    assert_restated(whole.subtract(grouped.parts()[4]), values[groups != 4])


def test_groups_are_nearly_equal_and_follow_from_size_and_seed_alone() -> None:
    numbers = group_numbers(103, 20, seed=3)
    assert np.bincount(numbers).tolist() == [6] * 3 + [5] * 17
    assert np.array_equal(numbers, group_numbers(103, 20, seed=3))
    assert not np.array_equal(numbers, group_numbers(103, 20, seed=4))
    with pytest.raises(InputError, match="30 samples cannot be split into 20 groups"):
        group_numbers(30, 20, seed=0)


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    """The rows that wait are bounded, so is what a group keeps after ten times as many."""
    running = RunningStatistics(DIMENSION)
    waiting = []
    for first in range(0, 10 * COUNT, 100):
        running.add(features()[first % COUNT : first % COUNT + 100])
        waiting.append(sum(rows.nbytes for rows in running._rows))
    assert max(waiting) <= (FEWEST_ROWS + 100) * DIMENSION * 4


def test_a_class_without_images_has_statistics_of_nothing() -> None:
    grouped = GroupedStatistics(DIMENSION, np.zeros(10, dtype=np.int64), np.zeros(10, dtype=np.int64))
    grouped.add(0, features()[:10])
    (nothing,) = grouped.class_parts(1)
    assert nothing.count == 0
    assert nothing.merge(grouped.parts()[0]).count == 10
