"""The driver's watch over its workers: who has fallen silent, and who keeps the others waiting."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from typing import Any, NamedTuple

SILENT_SECONDS = 60.0
"""A worker that gives no sign of life for so long is ended. Its signs come every second, from a thread of their own."""

NOWHERE = "no code of ours"
MOST_TOLD = 3  # of the others


class Sign(NamedTuple):
    """The last that was heard of one worker while it trained."""

    number: int
    pid: int
    born: str
    node: str
    host: str
    round: int
    place: str
    """The line of ours that it was in."""
    waits: str
    """The collective that it waited in, or ""."""


class Vigil:
    """What is known of the workers of one group. Times are seconds of a clock that does not go back."""

    def __init__(self, silent_seconds: float = SILENT_SECONDS):
        self._silent_seconds = silent_seconds
        self._signs: dict[int, Sign] = {}
        self._heard: dict[int, tuple[int, float]] = {}  # number and time of the newest sign
        self._over: set[int] = set()
        self._ended: dict[int, str] = {}  # those that were ended for their silence, and what was said of them

    def note(self, signs: Mapping[int, Mapping[str, Any]], now: float) -> None:
        """Take what lies on the board."""
        for rank, sign in signs.items():
            if self._heard.get(rank, (-1, now))[0] == sign["number"]:
                continue
            self._heard[rank] = (sign["number"], now)
            if sign["over"]:
                self._over.add(rank)  # where it was before is worth more than where it is now
            else:
                self._signs[rank] = Sign(**{name: sign[name] for name in Sign._fields})

    @property
    def begun(self) -> bool:
        """Whether any worker has been heard of."""
        return bool(self._heard)

    def end_silent(self, now: float, end: Callable[[Sign], None]) -> None:
        """`end` each worker that has been silent for too long, once."""
        for rank, (_, heard) in self._heard.items():
            if rank in self._over or rank in self._ended or now - heard < self._silent_seconds:
                continue
            self._ended[rank] = (
                f"{self.name(rank)} gave no sign of life for {now - heard:.0f} s and was ended{self._meanwhile({rank})}"
            )
            end(self._signs[rank])

    def name(self, rank: int) -> str:
        """How a worker is called where one must find it."""
        sign = self._signs.get(rank)
        if sign is None:
            return f"rank {rank}"
        return f"rank {rank} (process {sign.pid} on {sign.host}, last heard of in round {sign.round})"

    def reason(self, failures: Mapping[int, BaseException], died: Callable[[BaseException], bool]) -> str:
        """Why the group ended: the worker that fell silent or died, or kept the others waiting, or what it raised.

        `failures` are the errors by rank as Ray Train has them, of which `died` says whether it is a process's death.
        """
        if self._ended:
            return "; ".join(self._ended.values())
        dead = [rank for rank, error in failures.items() if died(error)]
        if dead:
            # Where the others were may tell more: a library may end those that waited in vain for one that lives.
            return f"{'; '.join(f'{self.name(rank)} died' for rank in dead)}{self._meanwhile(set(dead))}"
        waiting = {rank for rank, sign in self._signs.items() if sign.waits}
        late = self._signs.keys() - waiting - failures.keys()
        if failures.keys() <= waiting and late:
            each = [f"{self.name(rank)}, in {self._signs[rank].place or NOWHERE}," for rank in sorted(late)]
            return f"{'; '.join(each)} did not come{self._meanwhile(late)}: {_said(failures)}"
        # Who only waited for the one that failed knows less.
        told = {rank: error for rank, error in failures.items() if rank not in waiting} or failures
        return "; ".join(f"{self.name(rank)} failed: {_said({rank: error})}" for rank, error in told.items())

    def _meanwhile(self, besides: Set[int]) -> str:
        """Where some of the others were."""
        others = {rank: self._signs[rank] for rank in sorted(self._signs.keys() - besides)[:MOST_TOLD]}
        told = [
            f"rank {rank} {f'waited in {sign.waits}' if sign.waits else f'was in {sign.place or NOWHERE}'}"
            for rank, sign in others.items()
        ]
        return f", while {' and '.join(told)}" if told else ""


def _said(failures: Mapping[int, BaseException]) -> str:
    """The first line of the first error."""
    error = next(iter(failures.values()))
    return f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
