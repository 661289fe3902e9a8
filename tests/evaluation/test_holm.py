"""Holm's correction: its worked example, and the promise that it makes."""

import numpy as np
import pytest

from gebm.evaluation.holm import holm


def test_the_smallest_is_multiplied_by_their_number_and_each_next_by_one_less() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_corrected_values_are_at_most_one_and_keep_the_order() -> None:
    assert holm([0.9, 0.2, 0.6]) == pytest.approx([1.0, 0.6, 1.0])
    assert holm([]) == []
    assert holm([0.3]) == [0.3]


def test_one_false_rejection_or_more_is_as_rare_as_the_level_says_and_not_much_rarer() -> None:
    """Seven true hypotheses, 4,000 times: 0.0488 for independent p-values at level 0.05, within 4.5 standard errors."""
    p_values = np.random.default_rng(0).uniform(size=(4_000, 7))
    rate = np.mean([min(holm(row)) <= 0.05 for row in p_values.tolist()])
    expected = 1 - (1 - 0.05 / 7) ** 7
    assert abs(rate - expected) < 4.5 * np.sqrt(expected * (1 - expected) / len(p_values))
