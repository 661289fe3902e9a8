"""The actors of a farm: starting and replacing them, handing out items, counting failures."""

import json
import logging
import os
import platform
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.manifest import WorkItem, new_attempt

Record = dict[str, Any]
Worker = Callable[[WorkItem, str], Record]

DEATHS_ALLOWED = 5
"""An item that was in the hands of this many actors when they died is taken to be what kills them."""
WAIT_SECONDS = 0.5
PATIENCE_SECONDS = 30.0

_log = logging.getLogger(__name__)


class _Actor:
    """What runs in an actor process."""

    def start(self, make_worker: Callable[[], Worker]) -> dict[str, Any]:
        self._work = make_worker()
        node = ray.get_runtime_context().get_node_id()
        return {"pid": os.getpid(), "node_id": node, "host": platform.node()}

    def run(self, item: WorkItem, attempt: str) -> Record:
        # What cannot go into the manifest (NaN, an array) is this item's failure, here and by name.
        return json.loads(json.dumps(self._work(item, attempt), allow_nan=False))


@dataclass
class _Seat:
    """One living actor, and the item it has: None while it starts."""

    actor: Any
    pid: int | None = None
    item: WorkItem | None = None


class Crew:
    """The actors, the items that wait and the failures so far.

    `wait` raises InputError for an InputError of a worker, FarmError when no worker can start.
    """

    def __init__(
        self,
        make_worker: Callable[[], Worker],
        items: list[WorkItem],
        actors: int,
        resources: dict[str, float],
        tries: int,
        on_actor_start: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self._make_worker, self._actors, self._tries = make_worker, max(1, actors), tries
        self._waiting = deque(items)
        self._actor_class: Any = ray.remote(_Actor).options(max_restarts=0, max_task_retries=0, **resources)
        self._on_actor_start = on_actor_start
        self._seats: dict[Any, _Seat] = {}  # by the reference of what the actor is doing
        self._errors: dict[str, list[BaseException]] = {}
        self._deaths: dict[str, int] = {}
        self._failed: dict[str, BaseException] = {}
        self._failed_starts = 0
        self._idle_since: float | None = time.monotonic()

    def has_work(self) -> bool:
        """Say whether an item waits or is being done."""
        return bool(self._waiting) or any(seat.item is not None for seat in self._seats.values())

    def pids(self) -> list[int]:
        """Return the process ids of the actors that have come up."""
        return [seat.pid for seat in self._seats.values() if seat.pid is not None]

    def wait(self) -> list[tuple[WorkItem, Record]]:
        """Keep the actors busy for at most WAIT_SECONDS; return what was finished."""
        while len(self._seats) < self._actors and self._free_starts() < len(self._waiting):
            actor: Any = self._actor_class.remote()
            self._seats[actor.start.remote(self._make_worker)] = _Seat(actor)
        references = list(self._seats)
        if ray.wait(references, num_returns=1, timeout=WAIT_SECONDS)[0]:
            # Of several answers Ray picks one as it likes: an actor could wait for its turn as long as others have one.
            ready, _ = ray.wait(references, num_returns=len(references), timeout=0)
        else:
            ready = []
            self._warn_if_nothing_starts()
        return [done for reference in ready if (done := self._settle(reference)) is not None]

    def _free_starts(self) -> int:
        """Actors that are still coming up and will take an item then."""
        return sum(seat.item is None for seat in self._seats.values())

    def _settle(self, reference: Any) -> tuple[WorkItem, Record] | None:
        """Take the answer of one actor, give it the next item; return (item, record) if it finished one."""
        seat = self._seats.pop(reference)
        finished = None
        try:
            answer = ray.get(reference)
        except RayTaskError as error:
            self._note_error(seat, error)
        except RayError as error:
            self._note_death(seat, error)
            return None
        else:
            if seat.item is None:
                seat.pid = answer["pid"]
                self._failed_starts, self._idle_since = 0, None
                if self._on_actor_start is not None:
                    self._on_actor_start(answer)
            else:
                finished = seat.item, answer
        if seat.pid is None or not self._waiting:
            ray.kill(seat.actor)  # it could not start, or nothing is left for it
            return finished
        seat.item = self._waiting.popleft()
        self._seats[seat.actor.run.remote(seat.item, new_attempt())] = seat
        return finished

    def _note_error(self, seat: _Seat, error: RayTaskError) -> None:
        cause = error.cause if isinstance(error.cause, BaseException) else error
        if isinstance(cause, InputError):
            raise InputError(str(cause)) from error
        if seat.item is None:
            self._note_failed_start(error, cause)
            return
        errors = self._errors.setdefault(seat.item.id, [])
        errors.append(cause)
        if len(errors) < self._tries:
            self._waiting.append(seat.item)
        else:
            self._failed[seat.item.id] = error

    def _note_death(self, seat: _Seat, error: RayError) -> None:
        ray.kill(seat.actor)  # a node that is only cut off must not go on writing
        if seat.item is None:
            self._note_failed_start(error, error)
            return
        _log.warning("actor %s died; item %s is done again by another", seat.pid, seat.item.id)
        self._deaths[seat.item.id] = self._deaths.get(seat.item.id, 0) + 1
        if self._deaths[seat.item.id] < DEATHS_ALLOWED:
            self._waiting.appendleft(seat.item)
        else:
            self._failed[seat.item.id] = error

    def _note_failed_start(self, error: BaseException, cause: BaseException) -> None:
        self._failed_starts += 1
        if self._failed_starts >= self._tries * self._actors:
            raise FarmError(f"no worker could start: {_spell(cause)}") from error

    def _warn_if_nothing_starts(self) -> None:
        if self._idle_since is not None and time.monotonic() - self._idle_since > PATIENCE_SECONDS:
            _log.warning(
                "no actor has started in %.0f s: are the cluster's CPUs and GPUs held by others?",
                PATIENCE_SECONDS,
            )
            self._idle_since = None

    def dismiss(self) -> None:
        """End every actor."""
        for seat in self._seats.values():
            ray.kill(seat.actor)
        self._seats.clear()

    def raise_failures(self, total: int) -> None:
        """Raise FarmError naming the items that failed for good, if any."""
        if not self._failed:
            return
        causes = {
            name: _spell(self._errors[name][-1] if self._errors.get(name) else error)
            for name, error in self._failed.items()
        }
        named = "; ".join(f"{name} ({cause})" for name, cause in causes.items())
        raise FarmError(
            f"{len(causes)} of {total} work items failed after {self._tries} tries: {named}; the others are done"
        ) from next(iter(self._failed.values()))


def _spell(error: BaseException) -> str:
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first_line[:300]}"
