"""`null="auto"` takes the most powerful exact form that fits the budget."""

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_test
from gebm.evaluation.two_sample.automatic import Rates, choose_form, entries_of_tiles
from gebm.evaluation.two_sample.compositions import NULLS
from gebm.evaluation.two_sample.tiles import upper_tiles

# A machine on which 10,000 + 10,000 points take 10 s by permutations, 4 s by sign flips and 2.3 s by bins.
RATES = Rates(
    permutation=5e-8, sign_flip=8e-8, bins=1.1e-8, design=8e-8, label=1e-9, sign=1e-9, unpacked=1e-9, preparation=0.1
)


@pytest.mark.parametrize(
    ("budget", "form"),
    [
        (20.0, ("unbiased", "permutation")),
        (5.0, ("paired", "sign_flip")),
        (3.0, ("unbiased", "bins")),
        (1.0, ("incomplete", "sign_flip")),
        (0.35, ("block", "sign_flip")),
        (0.12, ("linear_time", "sign_flip")),
    ],
)
def test_a_smaller_budget_gets_a_cheaper_form(budget: float, form: tuple[str, str]) -> None:
    plan = choose_form(10_000, 10_000, 999, RATES, budget)
    assert (plan.statistic, plan.null) == form
    assert plan.seconds <= budget
    assert NULLS[plan.null].exact
    assert "allowed" in plan.why
    assert ("would take longer" in plan.why) == (budget != 20.0)


def test_the_reach_is_the_widest_that_fits() -> None:
    reaches = [choose_form(10_000, 10_000, 999, RATES, budget).reach for budget in (0.6, 1.0, 1.6)]
    assert 0 < reaches[0] < reaches[1] < reaches[2] <= 19


def test_unequal_sizes_get_a_form_that_takes_them() -> None:
    assert choose_form(10_000, 9_000, 999, RATES, 20.0).null == "permutation"
    assert choose_form(10_000, 9_000, 999, RATES, 5.0).null == "bins"
    with pytest.raises(
        InputError, match=r"10000 and 9000 points need about 2.* s .* take a larger budget, or samples of equal"
    ):
        choose_form(10_000, 9_000, 999, RATES, 1.0)


def test_a_budget_that_nothing_fits_is_one_clear_error() -> None:
    with pytest.raises(
        InputError, match=r"need about .* for blocks of 2, sign flips, the cheapest exact form, more than the 0.01 s"
    ):
        choose_form(10_000, 10_000, 999, RATES, 0.01)


@pytest.mark.parametrize("count", [1, 99, 100, 1730])
def test_the_work_of_a_test_is_that_of_its_tiles(count: int) -> None:
    tiles = upper_tiles(count, size=100)
    areas = [(rows.stop - rows.start) * (columns.stop - columns.start) for rows, columns in tiles]
    assert entries_of_tiles(count, size=100) == sum(areas)


def test_the_chosen_form_repeats_by_its_name() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(600, 3)), rng.normal(size=(600, 3)) + 0.1
    chosen = mmd_test(x, y, null="auto", budget_seconds=60.0, seed=3)
    assert chosen.null == "permutation"
    assert chosen.why.startswith("all pairs, all labellings: about ")
    named = mmd_test(x, y, null=chosen.null, statistic=chosen.statistic_name, seed=3)
    assert named.p_value == chosen.p_value
    assert named.statistic == chosen.statistic
    assert mmd_test(x, y[:500], null="auto").exact


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"budget_seconds": 1.0}, "null='permutation' takes as long as it takes; a budget goes with null='auto'"),
        ({"null": "auto", "budget_seconds": 0.0}, "budget_seconds: must be positive"),
        ({"null": "auto", "statistic": "block"}, "null='auto' chooses it; leave out 'block'"),
        ({"null": "auto", "budget_seconds": 1e-9}, "the cheapest exact form"),
    ],
)
def test_a_budget_that_cannot_be_is_one_clear_error(options: dict, message: str) -> None:
    points = np.random.default_rng(1).normal(size=(40, 2))
    with pytest.raises(InputError, match=message):
        mmd_test(points, points, **options)
