"""Which actor does which item next: the farm's bookkeeping, without Ray and without a clock.

A scheduler is told what happened, and when, and asked what an actor shall do next. Every event and every question is
O(log n) at the most in the items and the actors. An item is open until it is done or has failed for good; an open one
waits, rests until its next try, or is in the hands of one actor or, at the very end, of two: when an actor is free and
nothing waits, the item that has been running longest is given to it too. The first answer counts. An actor that fails
item after item while others do not waits before its next one.
"""

from __future__ import annotations

import heapq
import zlib
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from gebm.cluster.suspects import Suspects

WINDOW = 1000
"""So many durations, the last ones, say what is typical."""


class Trouble(Enum):
    """Why an attempt came to nothing."""

    ERROR = "it raised"
    PASSING = "it met with what may pass: no memory, no disk, no storage"
    DEATH = "its actor died"
    EVICTION = "its actor's machine was taken away, which says nothing about the item"


@dataclass(frozen=True)
class Policy:
    """How patient a farm is. Times are seconds."""

    tries: int = 3
    """Errors of one item until it has failed; what fails only on actors that fail others too is tried on, see
    `suspects.py`."""
    passing_tries: int = 10
    """The same for errors that may pass, each after a longer wait: four minutes or more in all."""
    deaths: int = 5
    """An item that was in the hands of this many actors when they died is taken to be what kills them."""
    first_wait: float = 1.0
    """Before the second try after an error that may pass; doubled for each further one."""
    longest_wait: float = 60.0
    straggler_factor: float = 2.0
    """An item is late when it runs longer than this many times the median of those that finished,"""
    straggler_least: float = 5.0
    """and longer than this."""


class Failure(NamedTuple):
    """An item that failed for good: what it met with last, and how often it was tried."""

    item: str
    cause: BaseException
    attempts: int


class Finished(NamedTuple):
    """An item that is done, and who else is still at it and must be ended: nobody or one."""

    item: str
    others: tuple[int, ...]


class Idle(Enum):
    """What an actor shall do that gets no item."""

    REST = "stay: it may be needed yet"
    LEAVE = "go: whatever happens, there are others enough"


class _Attempt(NamedTuple):
    item: str
    since: float


@dataclass
class _Record:
    """What an item has been through."""

    errors: int = 0
    passing: int = 0
    deaths: int = 0
    attempts: int = 0


class Scheduler:
    """Hands out `items`, in their order, to actors that are known by a number each.

    Times must not go back. An actor exists for it from `joined` to `died` or `left`, or until it is among the
    `others` of a `Finished`. Only items that met with trouble take memory beyond their place in the queue.
    """

    def __init__(self, items: Iterable[str], policy: Policy | None = None) -> None:
        self.policy = policy or Policy()
        self._waiting = deque(items)
        self._resting: list[tuple[float, int, str]] = []  # heap of (when, order of coming, item): tried again then
        self._attempts: dict[int, _Attempt] = {}  # by actor
        self._hands: dict[str, tuple[int, ...]] = {}  # the one or two actors that are at an item
        self._free: set[int] = set()
        self._oldest: list[tuple[float, int, str]] = []  # heap of attempts (since, actor, item); some are long over
        self._durations: deque[float] = deque()
        self._sorted: list[float] = []  # the same, for their median
        self._seconds = 0.0  # their sum
        self._records: dict[str, _Record] = {}
        self._suspects = Suspects()
        self._order = 0
        self.failures: dict[str, Failure] = {}
        self.finished_count = self.retried = self.reissued = self.deaths = 0

    # What happens.

    def joined(self, actor: int) -> None:
        """An actor is there and free."""
        self._free.add(actor)

    def left(self, actor: int) -> None:
        """A free actor was sent away."""
        self._free.remove(actor)
        self._suspects.gone(actor)

    def finished(self, actor: int, now: float) -> Finished:
        """An actor has done its item."""
        attempt = self._attempts.pop(actor)
        others = tuple(other for other in self._hands.pop(attempt.item) if other != actor)
        for other in others:
            del self._attempts[other]
            self._suspects.gone(other)
        self._suspects.finished(actor)
        self._free.add(actor)
        self._records.pop(attempt.item, None)
        self.finished_count += 1
        self._note_duration(now - attempt.since)
        return Finished(attempt.item, others)

    def raised(self, actor: int, cause: BaseException, now: float, trouble: Trouble = Trouble.ERROR) -> None:
        """An actor's item raised; the actor is free."""
        self._free.add(actor)
        if trouble is Trouble.ERROR:
            self._suspects.raised(actor, now)
        self._note_trouble(actor, trouble, cause, now)

    def died(self, actor: int, cause: BaseException, now: float, trouble: Trouble = Trouble.DEATH) -> None:
        """An actor, busy or free, is no more."""
        self.deaths += 1
        self._suspects.gone(actor)
        if actor in self._free:
            self._free.remove(actor)
        else:
            self._note_trouble(actor, trouble, cause, now)

    # What to do.

    def next_for(self, actor: int, now: float) -> str | Idle:
        """The item that a free actor shall do from now on, or what it shall do without one."""
        item = None
        if self.may_work(actor, now):
            item = self._waiting.popleft() if self.waits(now) else self._late(now)
        if item is None:
            return Idle.REST if self.living <= 2 * self.open else Idle.LEAVE
        self._free.remove(actor)
        self._suspects.began(actor)
        self._attempts[actor] = _Attempt(item, now)
        hands = self._hands.get(item, ())
        self._hands[item] = (*hands, actor)
        if hands:
            self.reissued += 1
        else:
            heapq.heappush(self._oldest, (now, actor, item))
        self._drop_ended()
        return item

    def may_work(self, actor: int, now: float) -> bool:
        """Whether a free actor could get an item now, if there is one: not when it failed the last ones."""
        return self._suspects.may_work(actor, now, self.living)

    def waits(self, now: float) -> int:
        """The number of items that an actor could begin now, those whose second copy is due aside."""
        while self._resting and self._resting[0][0] <= now:
            self._waiting.append(heapq.heappop(self._resting)[2])
        return len(self._waiting)

    def wanted(self, now: float) -> int:
        """The number of items that an actor could begin now; of those that are late the first alone counts."""
        return self.waits(now) or int(self._late(now) is not None)

    def wake_at(self) -> float | None:
        """When to ask again though nothing happens; None: not before something does."""
        times = [self._resting[0][0]] if self._resting else []
        # From when on there is a free actor that may work: at once, unless all of them wait.
        ready = self._suspects.wake_at() if len(self._free) == self._suspects.waiting else None
        if self._waiting and ready is not None:
            times.append(ready)
        self._drop_ended()
        limit = self._late_after()
        if self._free and self._oldest and limit is not None:
            late = self._oldest[0][0] + limit
            times.append(late if ready is None else max(late, ready))
        return min(times, default=None)

    # How it stands.

    @property
    def open(self) -> int:
        """Items that are neither done nor failed."""
        return self.waiting + len(self._hands)

    @property
    def waiting(self) -> int:
        """Open items that no actor has, those that rest until their next try included."""
        return len(self._waiting) + len(self._resting)

    @property
    def running(self) -> int:
        """Items in the hands of an actor, or of two."""
        return len(self._hands)

    @property
    def living(self) -> int:
        """Actors, busy and free."""
        return len(self._attempts) + len(self._free)

    def actors_of(self, item: str) -> tuple[int, ...]:
        """Who is at an item: nobody, one or two."""
        return self._hands.get(item, ())

    def seconds_left(self) -> float | None:
        """About how long the open items will take the living actors; None when nobody can know.

        Those that run are taken to be half done.
        """
        if not self.open:
            return 0.0
        if not self._durations or not self.living:
            return None
        mean = self._seconds / len(self._durations)
        return mean * (self.waiting + self.running / 2) / min(self.living, self.open)

    def typical(self) -> float | None:
        """The median of the last durations, None before the first."""
        return self._sorted[len(self._sorted) // 2] if self._sorted else None

    def _late_after(self) -> float | None:
        typical = self.typical()
        if typical is None:
            return None
        return max(self.policy.straggler_factor * typical, self.policy.straggler_least)

    def _late(self, now: float) -> str | None:
        """The item that has been in the hands of one actor longest, if that is too long."""
        self._drop_ended()
        limit = self._late_after()
        if self._oldest and limit is not None and now >= self._oldest[0][0] + limit:  # the sum of `wake_at`
            return self._oldest[0][2]
        return None

    def _drop_ended(self) -> None:
        """Let the oldest attempt be one that goes on, of an item that nobody else is at."""
        while self._oldest:
            since, actor, item = self._oldest[0]
            if self._attempts.get(actor) == (item, since) and len(self._hands[item]) == 1:
                return
            heapq.heappop(self._oldest)

    def _note_duration(self, seconds: float) -> None:
        if len(self._durations) == WINDOW:
            oldest = self._durations.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._seconds -= oldest
        self._durations.append(seconds)
        insort(self._sorted, seconds)
        self._seconds += seconds

    def _note_trouble(self, actor: int, trouble: Trouble, cause: BaseException, now: float) -> None:
        item = self._attempts.pop(actor).item
        record = self._records.setdefault(item, _Record())
        record.attempts += 1
        record.errors += trouble is Trouble.ERROR
        record.passing += trouble is Trouble.PASSING
        record.deaths += trouble is Trouble.DEATH
        others = tuple(other for other in self._hands.pop(item) if other != actor)
        if others:
            # Its twin goes on, and decides; late as it is, it may get another one.
            self._hands[item] = others
            heapq.heappush(self._oldest, (self._attempts[others[0]].since, others[0], item))
            return
        policy = self.policy
        tired = record.errors >= policy.tries and self._suspects.is_decisive(actor, self.living)
        if tired or record.passing >= policy.passing_tries or record.deaths >= policy.deaths:
            self.failures[item] = Failure(item, cause, record.attempts)
            del self._records[item]
            return
        self.retried += 1
        if trouble is Trouble.PASSING:
            self._order += 1
            heapq.heappush(self._resting, (now + self._wait(item, record.passing), self._order, item))
        elif trouble is Trouble.ERROR:
            self._waiting.append(item)
        else:
            self._waiting.appendleft(item)

    def _wait(self, item: str, count: int) -> float:
        """Seconds before the next try after `count` errors that may pass; not the same for all items."""
        longest = min(self.policy.longest_wait, self.policy.first_wait * 2 ** min(count - 1, 30))
        spread = zlib.crc32(f"{item} {count}".encode()) / 2**32
        return longest * (1 - spread / 4)
