"""Actors that fail item after item while others do not: a machine with a broken device fails fast, and would take more
items than any other, and fail them for good. Without Ray and without a clock."""

from __future__ import annotations

import heapq

STREAK = 3
"""Errors in a row, with nothing finished between them, that make an actor a suspect."""
FIRST_WAIT = 1.0
LONGEST_WAIT = 60.0


class Suspects:
    """A suspect gets its next item after a wait, doubled with each further error, and at once when all are suspects:
    then it is the work that is wrong, and the sooner everybody knows the better."""

    def __init__(self) -> None:
        self._errors: dict[int, int] = {}  # in a row, by actor
        self._proven: set[int] = set()  # those that ever finished an item
        self._until: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []  # (until, actor); some are over
        self._count = 0

    def raised(self, actor: int, now: float) -> None:
        """An actor's item raised what does not pass by itself."""
        errors = self._errors[actor] = self._errors.get(actor, 0) + 1
        self._count += errors == STREAK
        if errors >= STREAK:
            until = now + min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(errors - STREAK, 30))
            self._until[actor] = until
            heapq.heappush(self._heap, (until, actor))

    def finished(self, actor: int) -> None:
        """An actor finished an item."""
        self._clear(actor)
        self._proven.add(actor)

    def gone(self, actor: int) -> None:
        """An actor is no more."""
        self._clear(actor)
        self._proven.discard(actor)

    def began(self, actor: int) -> None:
        """An actor has an item again: the wait that it had is over."""
        self._until.pop(actor, None)

    def may_work(self, actor: int, now: float, living: int) -> bool:
        """Whether an actor may have an item. living: all actors that there are."""
        return self._until.get(actor, now) <= now or self._count >= living

    def is_decisive(self, actor: int, living: int) -> bool:
        """Whether it is the item's fault when this actor fails it: the actor has finished others and is no suspect, or
        none of the rest is beyond suspicion."""
        is_suspect = self._errors.get(actor, 0) >= STREAK
        return (actor in self._proven and not is_suspect) or living - self._count - (not is_suspect) <= 0

    @property
    def waiting(self) -> int:
        """Suspects that have a wait, which may be over, before they have an item again."""
        return len(self._until)

    def wake_at(self) -> float | None:
        """When the next one that waits may work."""
        while self._heap and self._until.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def _clear(self, actor: int) -> None:
        self._count -= self._errors.pop(actor, 0) >= STREAK
        self._until.pop(actor, None)
