"""The crew of a farm: who of its actors does what, carried out as the scheduler and the staffing say."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError, RayTaskError

from gebm.cluster.actors import Actors, Answer, Record
from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.manifest import WorkItem, new_attempt
from gebm.cluster.scheduler import Idle, Policy, Scheduler
from gebm.cluster.staffing import Staffing
from gebm.cluster.trouble import spell, trouble_of_death, trouble_of_error

WAIT_SECONDS = 0.5
PATIENCE_SECONDS = 30.0
ROOM_SECONDS = 5.0
"""Between two looks at how many actors the cluster has room for."""
ENDED_SECONDS = 5.0
MOST_NAMED = 20
"""Failed items that an error names."""

_log = logging.getLogger(__name__)


@dataclass
class _Seat:
    """One actor, what it has come to, and what it is doing: an item, or nothing while it starts or rests."""

    place: dict[str, Any] | None = None
    """Its pid, node_id and host; None while it starts."""
    item: str | None = None
    items: int = 0
    units: int = 0
    busy_seconds: float = 0.0
    came_up: float = 0.0

    def describe(self, now: float) -> dict[str, Any]:
        done = {"items": self.items, "units": self.units, "busy_seconds": self.busy_seconds}
        return {**(self.place or {}), **done, "lived_seconds": now - self.came_up}


class Crew:
    """The crew that does `items`: `size` actors, or with None as many as the cluster has room for, looked at often.

    `wait` raises InputError for an InputError of a worker, FarmError when no worker can start.
    """

    def __init__(
        self,
        actors: Actors,
        items: Iterable[WorkItem],
        size: int | None,
        policy: Policy,
        on_actor_start: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._actors = actors
        self._items = {item.id: item for item in items}
        self.scheduler = Scheduler(self._items, policy)
        self._follows_room, self._room_at = size is None, actors.now()
        self._staffing = Staffing(max(1, actors.room() if size is None else size), policy.tries)
        self._on_actor_start = on_actor_start
        self._seats: dict[int, _Seat] = {}
        self._resting: dict[int, None] = {}  # an ordered set
        self._ended: set[int] = set()  # ended in the middle of something, to which there is no answer yet
        self._started = 0
        self._pids: list[int] | None = None
        self._past: dict[str, dict[str, Any]] = {}
        self._idle_since: float | None = actors.now()

    def has_work(self) -> bool:
        """Say whether an item is neither done nor failed for good."""
        return self.scheduler.open > 0

    def pids(self) -> list[int]:
        """Return the process ids of the actors that have come up."""
        if self._pids is None:
            self._pids = [seat.place["pid"] for seat in self._seats.values() if seat.place is not None]
        return self._pids

    def wait(self) -> list[tuple[WorkItem, Record]]:
        """Keep the actors busy for at most WAIT_SECONDS; return what was finished."""
        self._employ()
        self._staff()
        wake = self.scheduler.wake_at()
        seconds = WAIT_SECONDS if wake is None else min(WAIT_SECONDS, max(0.0, wake - self._actors.now()))
        answers = self._actors.answers(seconds)
        if not answers:
            self._warn_if_nothing_starts()
        return [done for answer in answers if (done := self._settle(answer)) is not None]

    def _staff(self) -> None:
        """Start the actors that are missing."""
        now = self._actors.now()
        if self._follows_room and now - self._room_at > ROOM_SECONDS:
            self._staffing.limit, self._room_at = max(1, self._actors.room()), now
        living = self.scheduler.living
        for _ in range(self._staffing.to_start(living, living + self.scheduler.wanted(now), now)):
            self._started += 1
            self._seats[self._started] = _Seat()
            self._actors.start(self._started)

    def _employ(self) -> None:
        """Give resting actors what there is for them, and send away those that nobody will need."""
        now = self._actors.now()
        scheduler = self.scheduler

        def is_for_somebody() -> bool:
            return bool(scheduler.wanted(now)) or scheduler.living > 2 * scheduler.open

        for number in list(self._resting) if is_for_somebody() else ():
            if not is_for_somebody():
                break
            del self._resting[number]
            self._occupy(number, now)

    def _occupy(self, number: int, now: float) -> None:
        """Let a free actor do what the scheduler says."""
        order = self.scheduler.next_for(number, now)
        seat = self._seats[number]
        if order is Idle.LEAVE:
            self.scheduler.left(number)
            self._end(number)
        elif order is Idle.REST:
            self._resting[number] = None
        else:
            assert isinstance(order, str)
            if len(self.scheduler.actors_of(order)) > 1:
                _log.warning("item %s is late; %s does it too", order, _spell_place(seat.place))
            seat.item = order
            self._actors.do(number, self._items[order], new_attempt())

    def _settle(self, answer: Answer) -> tuple[WorkItem, Record] | None:
        """Take the answer of one actor, give it the next item; return (item, record) if it finished one."""
        number, error = answer.number, answer.error
        self._ended.discard(number)
        seat = self._seats.get(number)
        if seat is None:
            return None  # it was ended: another one was first
        if error is not None:
            _raise_bad_input(error)
        if seat.item is None:
            self._welcome(number, seat, answer)
            return None
        if error is not None and not isinstance(error, RayTaskError):
            self._note_death(number, seat, error, answer.when)
            return None
        name, seat.item = seat.item, None
        if error is not None:
            self.scheduler.raised(number, error, answer.when, trouble_of_error(_root(error)))
            self._occupy(number, self._actors.now())
            return None
        record, seconds = answer.value
        for other in self.scheduler.finished(number, answer.when).others:
            self._end(other)
        seat.items += 1
        seat.units += int(record.get("count", 0))
        seat.busy_seconds += seconds
        self._occupy(number, self._actors.now())
        return self._items[name], record

    def _welcome(self, number: int, seat: _Seat, answer: Answer) -> None:
        """Take note that an actor has come up, or has not."""
        if answer.error is not None:
            self._note_failed_start(number, answer.error, answer.when)
            return
        self._staffing.came_up()
        seat.place, seat.came_up = answer.value, answer.when
        self._pids = self._idle_since = None
        self.scheduler.joined(number)
        if self._on_actor_start is not None:
            self._on_actor_start(dict(answer.value))
        self._occupy(number, self._actors.now())

    def _note_death(self, number: int, seat: _Seat, error: BaseException, when: float) -> None:
        what = "it had no item" if seat.item is None else f"item {seat.item} is done again by another"
        _log.warning("%s died; %s", _spell_place(seat.place), what)
        trouble = trouble_of_death(error) if isinstance(error, RayError) else trouble_of_error(error)
        self.scheduler.died(number, error, when, trouble)
        seat.item = None
        self._end(number)  # a node that is only cut off must not go on writing

    def _note_failed_start(self, number: int, error: BaseException, when: float) -> None:
        self._end(number)
        self._staffing.did_not(when)
        if self._staffing.is_hopeless(self.scheduler.living):
            raise FarmError(f"no worker could start: {spell(_root(error))}") from error
        _log.warning("an actor could not start: %s", spell(_root(error)))

    def _warn_if_nothing_starts(self) -> None:
        if self._idle_since is not None and self._actors.now() - self._idle_since > PATIENCE_SECONDS:
            _log.warning(
                "no actor has started in %.0f s: are the cluster's CPUs and GPUs held by others?",
                PATIENCE_SECONDS,
            )
            self._idle_since = None

    def _end(self, number: int) -> None:
        seat = self._seats.pop(number)
        self._resting.pop(number, None)
        self._actors.end(number)
        if seat.item is not None:
            self._ended.add(number)
        if seat.place is not None:
            self._past[f"actor-{number:04d}"] = seat.describe(self._actors.now())
            self._pids = None

    def dismiss(self) -> None:
        """End every actor."""
        for number in list(self._seats):
            self._end(number)

    def await_ended(self) -> None:
        """Wait, some seconds at the most, until those that were ended in the middle of an item are no more."""
        deadline = self._actors.now() + ENDED_SECONDS
        while self._ended and (left := deadline - self._actors.now()) > 0:
            self._ended.difference_update(answer.number for answer in self._actors.answers(left))

    def describe(self) -> dict[str, dict[str, Any]]:
        """Return {label: figures} of all actors that ever came up."""
        now = self._actors.now()
        present = {f"actor-{number:04d}": seat.describe(now) for number, seat in self._seats.items() if seat.place}
        return dict(sorted({**self._past, **present}.items()))

    def raise_failures(self, total: int) -> None:
        """Raise FarmError naming the items that failed for good, if any."""
        failures = list(self.scheduler.failures.values())
        if not failures:
            return
        named = [
            f"{each.item} ({spell(_root(each.cause))}) after {each.attempts} {'try' if each.attempts == 1 else 'tries'}"
            for each in failures[:MOST_NAMED]
        ]
        if len(failures) > MOST_NAMED:
            named.append(f"and {len(failures) - MOST_NAMED} more")
        raise FarmError(
            f"{len(failures)} of {total} work items failed: {'; '.join(named)}; the others are done"
        ) from failures[0].cause


def _spell_place(place: dict[str, Any] | None) -> str:
    return "an actor" if place is None else f"the actor with pid {place['pid']} on {place['host']}"


def _root(error: BaseException) -> BaseException:
    """What the worker raised, where Ray has it."""
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, BaseException) else error


def _raise_bad_input(error: BaseException) -> None:
    """Raise a worker's InputError at once: no other try will end otherwise."""
    cause = _root(error)
    if isinstance(cause, InputError):
        raise InputError(str(cause)) from error
