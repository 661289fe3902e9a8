"""Broken actors, which fail whatever they are given, and fast: they cost nothing but what they are."""

from __future__ import annotations

import heapq

from gebm.cluster.scheduler import Idle, Scheduler
from gebm.cluster.suspects import Suspects

GOOD_SECONDS, BROKEN_SECONDS = 60.0, 0.1
ERROR = RuntimeError("CUDA error: an illegal memory access was encountered")


def farm(items: int, good: int, broken: int, bad: frozenset[str] = frozenset()) -> tuple[Scheduler, float, int]:
    """In virtual time: (the scheduler at the end, when that was, the number of attempts); `bad` items fail on all."""
    scheduler = Scheduler([f"item-{n}" for n in range(items)])
    resting, busy, attempts, now = set(range(good + broken)), list[tuple[float, int, str]](), 0, 0.0
    for actor in resting:
        scheduler.joined(actor)
    while scheduler.open:
        for actor in sorted(resting, reverse=True):  # the broken ones are first
            item = scheduler.next_for(actor, now)
            if isinstance(item, Idle):
                continue
            attempts += 1
            resting.remove(actor)
            heapq.heappush(busy, (now + (GOOD_SECONDS if actor < good else BROKEN_SECONDS), actor, item))
        wake = scheduler.wake_at()
        if wake is not None and (not busy or wake < busy[0][0]):
            assert wake > now, "it would be asked for ever"
            now = wake
            continue
        now, actor, item = heapq.heappop(busy)
        if actor >= good or item in bad:
            scheduler.raised(actor, ERROR, now)
        else:
            resting.update(scheduler.finished(actor, now).others)
        resting.add(actor)
    return scheduler, now, attempts


def test_broken_actors_fail_no_item_for_good_and_take_few() -> None:
    for items in (4, 16, 200):
        scheduler, seconds, attempts = farm(items, good=4, broken=4)
        assert not scheduler.failures and scheduler.finished_count == items
        rounds = -(-items // 4)
        assert seconds < (rounds + 2) * GOOD_SECONDS + 60
        assert attempts - items < 4 * (10 + seconds / 30)


def test_items_that_are_bad_fail_all_the_same() -> None:
    bad = frozenset({"item-3", "item-90"})
    scheduler, _, _ = farm(100, good=4, broken=2, bad=bad)
    assert scheduler.failures.keys() == bad and scheduler.finished_count == 98


def test_where_everything_fails_nobody_waits() -> None:
    scheduler, seconds, attempts = farm(1000, good=0, broken=5)
    assert len(scheduler.failures) == 1000 and attempts == 3000
    assert seconds <= 1.01 * 3000 / 5 * BROKEN_SECONDS


def test_what_an_actor_finishes_ends_its_wait_to_come() -> None:
    suspects = Suspects()
    for _ in range(3):
        suspects.raised(7, 10.0)
    assert not suspects.may_work(7, 10.5, living=2) and suspects.wake_at() == 11.0
    assert suspects.may_work(7, 11.0, living=2)
    suspects.raised(7, 11.5)
    assert suspects.wake_at() == 13.5
    suspects.finished(7)
    assert suspects.may_work(7, 11.6, living=2) and suspects.wake_at() is None
    suspects.raised(7, 12.0)
    assert suspects.may_work(7, 12.0, living=2)
