"""The scheduler, told of events at times of the test's own: who does what, what is tried again, and who is late."""

from __future__ import annotations

import random

import pytest

from gebm.cluster.scheduler import Idle, Policy, Scheduler, Trouble

ERROR, DEATH = ValueError("energy is nan"), RuntimeError("died")


def staffed(items: int, actors: int, policy: Policy | None = None) -> Scheduler:
    scheduler = Scheduler([f"item-{n}" for n in range(items)], policy)
    for actor in range(actors):
        scheduler.joined(actor)
    return scheduler


def test_items_go_out_in_order_and_each_once() -> None:
    scheduler = staffed(3, 2)
    assert [scheduler.next_for(actor, 0.0) for actor in (0, 1)] == ["item-0", "item-1"]
    assert scheduler.finished(1, 5.0) == ("item-1", ())
    assert scheduler.next_for(1, 5.0) == "item-2"
    assert scheduler.finished(0, 6.0).item == "item-0" and scheduler.finished(1, 6.0).item == "item-2"
    assert (scheduler.open, scheduler.finished_count, scheduler.next_for(0, 6.0)) == (0, 3, Idle.LEAVE)


def test_an_item_fails_after_its_tries_and_the_rest_goes_first() -> None:
    scheduler = staffed(2, 1, Policy(tries=2))
    assert scheduler.next_for(0, 0.0) == "item-0"
    scheduler.raised(0, ERROR, 1.0)
    assert scheduler.next_for(0, 1.0) == "item-1"
    scheduler.finished(0, 2.0)
    assert scheduler.next_for(0, 2.0) == "item-0"
    scheduler.raised(0, ERROR, 3.0)
    assert scheduler.failures["item-0"] == ("item-0", ERROR, 2) and scheduler.open == 0


def test_the_item_of_a_dead_actor_goes_out_next_and_not_for_ever() -> None:
    scheduler = staffed(3, 0, Policy(deaths=3))
    for actor in range(3):
        scheduler.joined(actor)
        assert scheduler.next_for(actor, float(actor)) == "item-0"
        scheduler.died(actor, DEATH, actor + 0.5)
    assert list(scheduler.failures) == ["item-0"] and scheduler.living == 0 and scheduler.deaths == 3
    scheduler.joined(9)
    assert scheduler.next_for(9, 9.0) == "item-1"


def test_a_machine_that_is_taken_away_says_nothing_about_the_item() -> None:
    scheduler = staffed(1, 0, Policy(deaths=2, tries=2, passing_tries=2))
    for actor in range(50):
        scheduler.joined(actor)
        assert scheduler.next_for(actor, float(actor)) == "item-0"
        scheduler.died(actor, DEATH, actor + 0.5, Trouble.EVICTION)
    assert not scheduler.failures and scheduler.open == 1


def test_what_may_pass_is_tried_more_often_and_each_time_later() -> None:
    policy = Policy(tries=2, passing_tries=9, first_wait=1.0, longest_wait=60.0)
    scheduler = staffed(1, 1, policy)
    now, waits = 0.0, []
    while scheduler.open:
        assert scheduler.next_for(0, now) == "item-0"
        scheduler.raised(0, OSError("away"), now, Trouble.PASSING)
        if scheduler.open:
            assert scheduler.next_for(0, now) is Idle.REST and scheduler.waiting == 1
            wake = scheduler.wake_at()
            assert wake is not None and scheduler.next_for(0, wake - 0.01) is Idle.REST
            waits.append(wake - now)
            now = wake
    assert scheduler.failures["item-0"].attempts == 9 and scheduler.retried == 8
    for wait, longest in zip(waits, (1, 2, 4, 8, 16, 32, 60, 60), strict=True):
        assert 0.75 * longest <= wait <= longest


def test_items_that_failed_together_are_not_tried_together() -> None:
    scheduler = staffed(100, 100)
    for actor in range(100):
        scheduler.next_for(actor, 0.0)
    for actor in range(100):
        scheduler.raised(actor, OSError("away"), 1.0, Trouble.PASSING)
    ready = [scheduler.waits(1.0 + at) for at in (0.74, 0.8, 0.85, 0.9, 0.95, 1.0)]
    assert ready[0] == 0 and ready[-1] == 100 and len(set(ready)) == 6


def test_who_waits_for_another_try_keeps_nobody_from_other_items() -> None:
    scheduler = staffed(2, 1)
    scheduler.next_for(0, 0.0)
    scheduler.raised(0, OSError("away"), 0.0, Trouble.PASSING)
    assert scheduler.next_for(0, 0.0) == "item-1"


def late_item(policy: Policy | None = None) -> Scheduler:
    """Two actors; the first of four items is still running when all others are done, at 30 s, 10 s each."""
    scheduler = staffed(4, 2, policy)
    scheduler.next_for(0, 0.0)
    for number in range(3):
        assert scheduler.next_for(1, 10.0 * number) == f"item-{number + 1}"
        scheduler.finished(1, 10.0 * number + 10.0)
    return scheduler


def test_the_late_item_is_given_to_a_free_actor_and_the_first_answer_counts() -> None:
    for first, second in ((0, 1), (1, 0)):
        scheduler = late_item()
        assert scheduler.next_for(1, 30.0) == "item-0" and scheduler.reissued == 1
        assert scheduler.actors_of("item-0") == (0, 1)
        assert scheduler.finished(first, 35.0) == ("item-0", (second,))
        assert scheduler.open == 0 and scheduler.living == 1 and scheduler.finished_count == 4


def test_an_item_is_late_only_beyond_twice_what_is_typical() -> None:
    scheduler = late_item(Policy(straggler_factor=4.0))
    assert scheduler.next_for(1, 30.0) is Idle.REST and scheduler.wake_at() == 40.0
    assert scheduler.wanted(39.9) == 0 and scheduler.wanted(40.0) == 1
    assert scheduler.next_for(1, 40.0) == "item-0"


def test_short_items_are_never_late_before_the_least_time() -> None:
    scheduler = staffed(2, 2, Policy(straggler_least=5.0))
    scheduler.next_for(0, 0.0), scheduler.next_for(1, 0.0)
    scheduler.finished(1, 0.01)
    assert scheduler.next_for(1, 4.9) is Idle.REST
    assert scheduler.next_for(1, 5.0) == "item-0"


def test_nothing_is_late_while_something_waits() -> None:
    scheduler = staffed(3, 2)
    scheduler.next_for(0, 0.0), scheduler.next_for(1, 0.0)
    scheduler.finished(1, 1.0)
    assert scheduler.next_for(1, 1000.0) == "item-2" and scheduler.reissued == 0


def test_the_longest_running_is_late_first_and_none_has_three_actors() -> None:
    scheduler = staffed(4, 4)
    for actor in range(3):
        scheduler.next_for(actor, float(actor))
    scheduler.next_for(3, 3.0)
    scheduler.finished(3, 4.0)
    scheduler.joined(4), scheduler.joined(5), scheduler.joined(6)
    assert [scheduler.next_for(actor, 100.0) for actor in (3, 4, 5)] == ["item-0", "item-1", "item-2"]
    assert scheduler.next_for(6, 1e6) is Idle.LEAVE  # three items with two actors each: nobody needs a seventh


@pytest.mark.parametrize("how", ["dies", "raises"])
def test_one_of_two_that_fails_leaves_the_item_to_the_other(how: str) -> None:
    scheduler = late_item(Policy(tries=1, deaths=1))
    scheduler.next_for(1, 30.0)
    third = 0
    if how == "dies":
        scheduler.died(0, DEATH, 31.0)
        scheduler.joined(third := 2)
    else:
        scheduler.raised(0, ERROR, 31.0)
    assert not scheduler.failures and scheduler.actors_of("item-0") == (1,) and scheduler.waiting == 0
    # The one that is left is late in its turn, by its own time.
    assert scheduler.next_for(third, 49.9) is Idle.REST and scheduler.next_for(third, 50.0) == "item-0"
    assert scheduler.finished(third, 51.0) == ("item-0", (1,)) and scheduler.open == 0


def test_actors_that_nobody_can_need_are_sent_away() -> None:
    scheduler = staffed(2, 7)
    scheduler.next_for(0, 0.0), scheduler.next_for(1, 0.0)
    orders = []
    for actor in range(2, 7):
        orders.append(scheduler.next_for(actor, 0.0))
        if orders[-1] is Idle.LEAVE:
            scheduler.left(actor)
    assert orders == [Idle.LEAVE] * 3 + [Idle.REST] * 2  # each item may come to need another actor


def test_what_is_left_is_estimated_once_something_is_done() -> None:
    scheduler = staffed(10, 2)
    assert scheduler.seconds_left() is None
    scheduler.next_for(0, 0.0), scheduler.next_for(1, 0.0)
    scheduler.finished(0, 4.0)
    scheduler.next_for(0, 4.0)
    assert scheduler.seconds_left() == 4.0 * (7 + 2 / 2) / 2
    scheduler.died(0, DEATH, 5.0), scheduler.died(1, DEATH, 5.0)
    assert scheduler.seconds_left() is None


@pytest.mark.parametrize("seed", range(300))
def test_whatever_happens_every_item_is_done_once_or_has_failed(seed: int) -> None:
    """Random schedules: actors come, die busy or free, raise all kinds of errors, finish late, in any order."""
    chance = random.Random(seed)
    items = [f"item-{n}" for n in range(chance.randint(0, 30))]
    policy = Policy(tries=chance.randint(1, 3), passing_tries=chance.randint(1, 5), deaths=chance.randint(1, 4))
    scheduler = Scheduler(items, policy)
    now, actors = 0.0, 0
    has: dict[int, str | None] = {}  # what each actor does, as the test saw it
    done: list[str] = []
    troubles = chance.choice([0.0, 0.1, 0.5])
    steps = 0
    while scheduler.open:
        steps += 1
        assert steps < 20_000, "it does not come to an end"
        now += chance.expovariate(1.0)
        if len(has) < 4 or chance.random() < 0.02:
            actors += 1
            has[actors] = None
            scheduler.joined(actors)
        actor = chance.choice(list(has))
        item = has[actor]
        if item is None and chance.random() < troubles / 4:
            scheduler.died(actor, DEATH, now)
            del has[actor]
        elif item is None:
            order = scheduler.next_for(actor, now)
            if isinstance(order, str):
                has[actor] = order
                assert order in items and order not in done and order not in scheduler.failures
            elif order is Idle.LEAVE:
                scheduler.left(actor)
                del has[actor]
        elif chance.random() < troubles:
            kind = chance.choice(list(Trouble))
            if kind in (Trouble.DEATH, Trouble.EVICTION):
                scheduler.died(actor, DEATH, now, kind)
                del has[actor]
            else:
                scheduler.raised(actor, ERROR, now, kind)
                has[actor] = None
        elif chance.random() < 0.3:
            finished = scheduler.finished(actor, now)
            assert finished.item == item
            done.append(item)
            has[actor] = None
            for other in finished.others:
                assert has.pop(other) == item
        at_work = [each for each in has.values() if each is not None]
        assert max((at_work.count(each) for each in at_work), default=0) <= 2
        assert scheduler.running == len(set(at_work)) and scheduler.living == len(has)
        assert scheduler.running + scheduler.waiting + len(done) + len(scheduler.failures) == len(items)
    assert sorted([*done, *scheduler.failures]) == sorted(items) and scheduler.finished_count == len(done)
    if troubles == 0.0:
        assert (done and not scheduler.failures) or not items


def test_what_is_typical_is_said_by_the_last_thousand() -> None:
    scheduler = staffed(3000, 1)
    now = 0.0
    for seconds, count in ((1.0, 1500), (9.0, 501)):
        for _ in range(count):
            scheduler.next_for(0, now)
            now += seconds
            scheduler.finished(0, now)
    assert scheduler.typical() == 9.0
