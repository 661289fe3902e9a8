"""The crew with actors that only pretend, on a clock of their own: whole farms, days long, in a moment."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError

from gebm.cluster.crew import Crew
from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.manifest import WorkItem
from gebm.cluster.scheduler import Policy
from tests.cluster.virtual_actors import Deed, VirtualActors

RECORD = {"count": 1}


def work(count: int) -> list[WorkItem]:
    return [WorkItem(f"item-{n}", n, {}) for n in range(count)]


def upright(number: int) -> Deed:
    return Deed(3.0, RECORD)


def ten_seconds(item: WorkItem, attempt: int, actor: int) -> Deed:
    return Deed(10.0, RECORD)


def run(crew: Crew, most_waits: int = 100_000) -> list[str]:
    """The items in the order in which they were done."""
    done = []
    while crew.has_work():
        done += [item.id for item, _ in crew.wait()]
        most_waits -= 1
        assert most_waits, "it does not come to an end"
    return done


def crew_of(
    items: list[WorkItem],
    size: int | None,
    deeds: Callable[[WorkItem, int, int], Deed] = ten_seconds,
    start: Callable[[int], Deed] = upright,
    policy: Policy | None = None,
    **options: Any,
) -> tuple[Crew, VirtualActors]:
    actors = VirtualActors(deeds, start, **options)
    return Crew(actors, items, size, policy or Policy(), None), actors


def test_equal_items_take_the_time_that_they_must() -> None:
    crew, actors = crew_of(work(100), 10)
    assert len(run(crew)) == 100
    assert actors.now() == pytest.approx(3 + 10 * 10) and max(actors.attempts.values()) == 1
    crew.dismiss()
    figures = crew.describe()
    assert len(figures) == 10 and all(each["items"] == each["units"] == 10 for each in figures.values())
    assert all(each["busy_seconds"] == each["lived_seconds"] == 100 for each in figures.values())


def test_an_actor_that_hangs_is_overtaken_and_ended() -> None:
    def deeds(item: WorkItem, attempt: int, actor: int) -> Deed:
        return Deed(1e9 if item.id == "item-3" and attempt == 0 else 10.0, RECORD)

    crew, actors = crew_of(work(20), 4, deeds)
    assert sorted(run(crew)) == sorted(item.id for item in work(20))
    assert actors.attempts["item-3"] == 2 and crew.scheduler.reissued == 1
    assert actors.now() < 100 and not actors.at  # whoever hung is gone


def test_a_slow_actor_is_not_ended_before_its_twin_is_done() -> None:
    """The first attempt takes three times as long as is typical, and is done before the second is."""

    def deeds(item: WorkItem, attempt: int, actor: int) -> Deed:
        return Deed(30.0 if item.id == "item-3" else 10.0, RECORD)

    crew, actors = crew_of(work(4), 4, deeds)
    assert run(crew)[-1] == "item-3" and actors.attempts["item-3"] == 2
    assert actors.now() == pytest.approx(3 + 30)
    (slow,) = (each for each in crew.describe().values() if each["busy_seconds"] == 30.0)
    assert slow["items"] == 1


def test_an_actor_without_room_keeps_nobody_waiting_and_comes_up_when_there_is_some() -> None:
    crew, actors = crew_of(work(60), 4, room=lambda now: 1 if now < 100 else 4)
    assert len(run(crew)) == 60
    assert 3 + 100 + 500 / 4 <= actors.now() <= 3 + 100 + 500 / 4 + 20 and len(crew.describe()) == 4


def test_without_a_number_the_crew_grows_with_the_cluster() -> None:
    def room(now: float) -> int:
        return 1 if now < 100 else 5

    crew, actors = crew_of(work(60), None, room=room)
    assert len(run(crew)) == 60 and len(crew.describe()) == 5
    assert actors.now() <= 3 + 100 + 500 / 5 + 25
    fixed, alone = crew_of(work(60), 1, room=room)
    run(fixed)
    assert alone.now() == pytest.approx(3 + 600)


def test_no_more_actors_are_started_than_there_are_items() -> None:
    crew, actors = crew_of(work(3), 1000)
    run(crew)
    assert actors.calls <= 3 * 3 + 3


def test_out_of_memory_is_tried_again_after_a_wait_and_in_another_actor() -> None:
    def deeds(item: WorkItem, attempt: int, actor: int) -> Deed:
        short = attempt < 5 and item.id == "item-0"
        return Deed(10.0, MemoryError("no") if short else RECORD)

    crew, actors = crew_of(work(1), 1, deeds, policy=Policy(tries=2))
    assert run(crew) == ["item-0"] and actors.attempts["item-0"] == 6
    assert 3 + 60 + 0.75 * 31 <= actors.now() <= 3 + 60 + 31 + 1


def test_failures_are_named_with_their_causes_and_tries() -> None:
    def deeds(item: WorkItem, attempt: int, actor: int) -> Deed:
        outcomes: dict[str, Any] = {
            "item-0": OSError(28, "No space left on device"),
            "item-1": ValueError("energy is nan\nsecond line"),
            "item-2": None,
        }
        return Deed(1.0, outcomes.get(item.id, RECORD))

    crew, _ = crew_of(work(5), 3, deeds, policy=Policy(tries=2, passing_tries=4, deaths=3))
    assert sorted(run(crew)) == ["item-3", "item-4"]
    with pytest.raises(FarmError) as raised:
        crew.raise_failures(5)
    text = str(raised.value)
    assert text.startswith("3 of 5 work items failed: ") and text.endswith("; the others are done")
    assert "item-0 (OSError: [Errno 28] No space left on device) after 4 tries" in text
    assert "item-1 (ValueError: energy is nan) after 2 tries" in text
    assert "item-2 (ActorDiedError: " in text and text.count("after 3 tries") == 1


def test_of_many_failures_the_first_are_named_and_the_others_counted() -> None:
    crew, _ = crew_of(work(100), 3, lambda *_: Deed(1.0, ValueError("no")), policy=Policy(tries=1))
    assert run(crew) == []
    with pytest.raises(FarmError, match=r"^100 of 100 work items failed: .*; and 80 more; the others"):
        crew.raise_failures(100)


def test_starts_that_fail_end_the_farm_only_where_nobody_works() -> None:
    def broken(number: int) -> Deed:
        return Deed(1.0, RuntimeError("no such device"))

    crew, actors = crew_of(work(10), 2, start=broken)
    with pytest.raises(FarmError, match="no worker could start: RuntimeError: no such device"):
        run(crew)
    assert actors.now() < 60
    # One machine of two is broken: the other one does it all, and its starts are tried less and less often.
    started: list[int] = []

    def half(number: int) -> Deed:
        started.append(number)
        return upright(number) if number == 1 else broken(number)

    crew, actors = crew_of(work(100), 2, start=half)
    assert len(run(crew)) == 100 and actors.now() == pytest.approx(1003) and len(started) < 30


def test_an_input_error_stops_the_farm_whoever_meets_it() -> None:
    crew, _ = crew_of(work(10), 2, lambda *_: Deed(1.0, InputError("shard 3 is truncated")))
    with pytest.raises(InputError, match=r"^shard 3 is truncated$"):
        run(crew)
    crew, _ = crew_of(work(10), 2, start=lambda number: Deed(1.0, InputError("no weights")))
    with pytest.raises(InputError, match=r"^no weights$"):
        run(crew)


@pytest.mark.parametrize("seed", range(60))
def test_in_a_storm_every_item_is_done_once_or_named(seed: int) -> None:
    chance = random.Random(seed)
    count, size = chance.randint(1, 60), chance.randint(1, 12)
    hopeless = {f"item-{n}" for n in range(count) if chance.random() < 0.1}
    rate = chance.choice([0.0, 0.1, 0.4])

    def deeds(item: WorkItem, attempt: int, actor: int) -> Deed:
        if item.id in hopeless:
            return Deed(chance.expovariate(0.1), ValueError("never"))
        if chance.random() < rate:
            passing = (OSError("away"), OutOfMemoryError("low"), MemoryError())
            return Deed(chance.expovariate(0.1), chance.choice((None, ValueError("once"), *passing)))
        return Deed(chance.expovariate(0.1) * (50 if chance.random() < 0.05 else 1), RECORD)

    def start(number: int) -> Deed:
        return Deed(
            chance.uniform(1, 5), RuntimeError("no device") if number > 1 and chance.random() < rate / 2 else RECORD
        )

    policy = Policy(tries=25, passing_tries=25, deaths=25)
    crew, actors = crew_of(
        work(count), size, deeds, start, policy, room=lambda now: size // 2 + 1 if now < 50 else size
    )
    done = run(crew)
    assert len(done) == len(set(done)) and set(done) == {item.id for item in work(count)} - hopeless
    assert set(crew.scheduler.failures) == hopeless
    crew.dismiss()
    assert not actors.at and sum(each["items"] for each in crew.describe().values()) == len(done)
