"""Actors that only pretend: what they do takes known seconds on a clock of their own, so that days pass in a moment.

They stand where `gebm.cluster.actors.RayActors` stands: crew, scheduler and staffing are the real ones.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ray.exceptions import ActorDiedError, RayTaskError

from gebm.cluster.actors import MOST_AT_ONCE, Answer
from gebm.cluster.manifest import WorkItem


class Deed(NamedTuple):
    """What an actor makes of an item: after `seconds` a record, an exception, or its death."""

    seconds: float
    outcome: dict[str, Any] | BaseException | None
    """None: the actor dies of it."""


class VirtualActors:
    """deeds: (item, number of the attempt from 0, actor) -> Deed. start: actor -> Deed, its outcome not looked at.

    room: how many can be up at a time, at some time; those that find no room come up when there is. driver_counts: real
    time between the calls passes on the clock too, and `call_seconds` for each of them, as Ray's calls take time.
    """

    def __init__(
        self,
        deeds: Callable[[WorkItem, int, int], Deed],
        start: Callable[[int], Deed],
        *,
        room: Callable[[float], int] = lambda now: 1 << 30,
        driver_counts: bool = False,
        call_seconds: float = 0.0,
    ) -> None:
        self._deeds, self._start, self._room = deeds, start, room
        self._driver_counts, self._call_seconds = driver_counts, call_seconds
        self._clock, self._resumed = 0.0, time.perf_counter()
        self._events: list[tuple[float, int, int, Any, BaseException | None]] = []
        self._order = 0
        self._up: set[int] = set()
        self._queue: deque[int] = deque()
        self.attempts: Counter[str] = Counter()
        self.at: dict[int, WorkItem] = {}
        """Who does what."""
        self.useful_seconds = 0.0
        """Of attempts that came to their end with a record."""
        self.up_seconds = 0.0
        """Of all actors, from when they were started until they were ended."""
        self.calls = self.answered = 0
        self.own_seconds = 0.0
        """Real ones, of this pretence."""
        self._since: dict[int, float] = {}

    def now(self) -> float:
        if self._driver_counts:
            return self._clock + time.perf_counter() - self._resumed
        return self._clock

    def room(self) -> int:
        return self._room(self.now())

    def start(self, number: int) -> None:
        with self._calling() as now:
            self._queue.append(number)
            self._place(now)

    def do(self, number: int, item: WorkItem, attempt: str) -> None:
        with self._calling() as now:
            self._do(number, item, now)

    def end(self, number: int) -> None:
        with self._calling() as now:
            self._leave(number, now)
            if self.at.pop(number, None) is not None:
                self._push(now, number, None, ActorDiedError())

    def _do(self, number: int, item: WorkItem, now: float) -> None:
        assert number in self._up, "asked an actor that is not there"
        assert number not in self.at, "an actor has one item at a time"
        deed = self._deeds(item, self.attempts[item.id], number)
        self.attempts[item.id] += 1
        self.at[number] = item
        if deed.outcome is None:
            self._push(now + deed.seconds, number, None, ActorDiedError())
        elif isinstance(deed.outcome, BaseException):
            self._push(now + deed.seconds, number, None, RayTaskError("do", "traceback", deed.outcome))
        else:
            self._push(now + deed.seconds, number, (deed.outcome, deed.seconds), None)

    def answers(self, seconds: float) -> list[Answer]:
        begun = time.perf_counter()
        self._clock = self.now()
        until = self._clock + seconds
        if self._events and self._events[0][0] > self._clock:
            self._clock = min(self._events[0][0], until)
        elif not self._events:
            self._clock = until
        found = []
        while self._events and self._events[0][0] <= self._clock and len(found) < MOST_AT_ONCE:
            when, _, number, value, error = heapq.heappop(self._events)
            if number in self._up:
                item = self.at.pop(number, None)
                if item is not None and error is None:
                    self.useful_seconds += value[1]
                if isinstance(error, ActorDiedError):
                    self._leave(number, when)
            elif not isinstance(error, ActorDiedError):
                continue  # what an actor would have said that was ended before
            found.append(Answer(number, when, value, error))
        self._place(self._clock)
        self.answered += len(found)
        self._resumed = time.perf_counter()
        self.own_seconds += self._resumed - begun
        return found

    def _place(self, now: float) -> None:
        """Let those come up for which there is room."""
        while self._queue and len(self._up) < self._room(now):
            number = self._queue.popleft()
            self._up.add(number)
            self._since[number] = now
            deed = self._start(number)
            place = {"pid": number, "node_id": "node", "host": "host"}
            error = None if isinstance(deed.outcome, dict) else deed.outcome or ActorDiedError()
            wrapped = RayTaskError("start", "traceback", error) if isinstance(deed.outcome, BaseException) else error
            self._push(now + deed.seconds, number, place, wrapped)

    def _leave(self, number: int, now: float) -> None:
        if number in self._up:
            self._up.remove(number)
            self.up_seconds += now - self._since.pop(number)
        elif number in self._queue:
            self._queue.remove(number)

    def _push(self, when: float, number: int, value: Any, error: BaseException | None) -> None:
        self._order += 1
        heapq.heappush(self._events, (when, self._order, number, value, error))

    @contextmanager
    def _calling(self) -> Iterator[float]:
        """A call at the time that it yields; what the pretence costs does not pass on the clock."""
        begun = time.perf_counter()
        self.calls += 1
        if self._driver_counts:
            self._clock += self._call_seconds
        yield self.now()
        spent = time.perf_counter() - begun
        self.own_seconds += spent
        self._resumed += spent
