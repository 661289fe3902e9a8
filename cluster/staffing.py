"""How many actors a farm starts, and when: without Ray and without a clock.

An actor that cannot be placed keeps nobody waiting: it counts as starting, and comes up when there is room. Starts
that fail are tried again after longer and longer waits as long as anybody works; where nobody does, they end the farm.
"""

from __future__ import annotations

from dataclasses import dataclass

FIRST_WAIT = 0.2
LONGEST_WAIT = 60.0
MOST_COUNTED = 16
"""Of a thousand actors' starts not three thousand need to fail before it is clear that none will work."""


@dataclass
class Staffing:
    """limit: most actors at a time. tries: failed starts for each of them, without one that works, until the end."""

    limit: int
    tries: int
    starting: int = 0
    failed: int = 0
    """Starts that failed since one did not."""
    not_before: float = 0.0

    def to_start(self, living: int, wanted: int, now: float) -> int:
        """How many actors to start now. living: those that are up; wanted: so many would have something to do."""
        if now < self.not_before:
            return 0
        count = max(0, min(self.limit, wanted) - living - self.starting)
        self.starting += count
        return count

    def came_up(self) -> None:
        """One that was starting can work."""
        self.starting -= 1
        self.failed, self.not_before = 0, 0.0

    def did_not(self, now: float) -> None:
        """One that was starting cannot."""
        self.starting -= 1
        self.failed += 1
        self.not_before = now + min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(self.failed - 1, 20))

    def is_hopeless(self, living: int) -> bool:
        """Whether starting more is of no use."""
        return living == 0 and self.failed >= self.tries * min(self.limit, MOST_COUNTED)
