"""Learning-rate schedules against their closed forms."""

import itertools
import math

import pytest
from pydantic import ValidationError

from gebm.trainer.schedules import NO_READING, Plateau, Schedule, after_reading, rate_factor


def course(schedule: Schedule, steps: int) -> list[float]:
    return [rate_factor(schedule, step, steps) for step in range(steps)]


def test_a_constant_rate_stays():
    assert course(Schedule(shape="constant"), 4) == [1.0] * 4


def test_a_linear_rate_falls_by_equal_parts_to_its_final_share():
    assert course(Schedule(shape="linear"), 4) == [1.0, 0.75, 0.5, 0.25]
    assert course(Schedule(shape="linear", final=0.5), 4) == [1.0, 0.875, 0.75, 0.625]


def test_an_exponential_rate_falls_by_equal_ratios_to_its_final_share():
    rates = course(Schedule(shape="exponential", final=1e-4), 8)
    assert rates[0] == 1.0
    assert [after / before for before, after in itertools.pairwise(rates)] == pytest.approx([10**-0.5] * 7)
    assert rate_factor(Schedule(shape="exponential", final=1e-4), 8, 8) == pytest.approx(1e-4)


def test_a_cosine_rate_is_half_a_cosine():
    rates = course(Schedule(shape="cosine", final=0.2), 6)
    assert rates == pytest.approx([0.2 + 0.4 * (1 + math.cos(math.pi * k / 6)) for k in range(6)])
    assert rates[0] == 1.0 and rates[3] == pytest.approx(0.6)


def test_the_step_schedule_of_the_reference_falls_every_5000_base_steps_and_30_times():
    reference = Schedule(shape="step", factor=0.8, every=5000, times=30)
    at = {step: rate_factor(reference, step, 200_000) for step in (0, 4999, 5000, 9999, 149_999, 150_000, 199_999)}
    assert at == {0: 1.0, 4999: 1.0, 5000: 0.8, 9999: 0.8, 149_999: 0.8**29, 150_000: 0.8**30, 199_999: 0.8**30}


@pytest.mark.parametrize("shape", ["constant", "linear", "cosine"])
def test_warm_up_multiplies_any_shape_by_a_rising_line(shape):
    plain, warm = course(Schedule(shape=shape), 8), course(Schedule(shape=shape, warmup=4), 8)
    line = [0.25, 0.5, 0.75, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert warm == pytest.approx([part * rate for part, rate in zip(line, plain, strict=True)])


def read(schedule: Schedule, values: list[float]) -> list[Plateau]:
    memory, seen = NO_READING, []
    for value in values:
        memory = after_reading(schedule, memory, value)
        seen.append(memory)
    return seen


def test_a_plateau_lowers_the_rate_after_patience_readings_that_are_no_better():
    schedule = Schedule(shape="plateau", factor=0.5, patience=2, threshold=0.0)
    seen = read(schedule, [90.0, 80.0, 81.0, 79.0, 79.0, 79.5, 85.0, 80.0, 60.0])
    assert [memory.reductions for memory in seen] == [0, 0, 0, 0, 0, 1, 1, 2, 2]
    assert seen[-1] == Plateau(best=60.0, waited=0, reductions=2)
    assert rate_factor(schedule, 500, 1000, seen[-1]) == 0.25


def test_a_plateau_calls_better_only_what_beats_the_best_by_its_threshold():
    strict = Schedule(shape="plateau", patience=1, threshold=0.1)
    assert [memory.reductions for memory in read(strict, [100.0, 91.0, 89.0])] == [0, 1, 1]


def test_a_plateau_on_kale_waits_for_higher_values():
    schedule = Schedule(shape="plateau", metric="kale", patience=1, threshold=0.0)
    assert [memory.reductions for memory in read(schedule, [1.0, 2.0, 1.5, 3.0])] == [0, 0, 1, 1]


def test_a_plateau_lowers_the_rate_no_more_than_so_many_times():
    schedule = Schedule(shape="plateau", factor=0.1, patience=1, times=2)
    memory = read(schedule, [1.0, 2.0, 2.0, 2.0, 2.0])[-1]
    assert memory.reductions == 2 and rate_factor(schedule, 0, 1, memory) == pytest.approx(0.01)


def test_keys_that_a_shape_does_not_read_are_refused():
    with pytest.raises(ValidationError, match="a cosine schedule does not read every, factor; leave it out"):
        Schedule(shape="cosine", every=100, factor=0.5)
    with pytest.raises(ValidationError, match="needs final above 0"):
        Schedule(shape="exponential")
    written_out = Schedule(shape="cosine", final=0.1).model_dump()
    assert Schedule.model_validate(written_out).final == 0.1
