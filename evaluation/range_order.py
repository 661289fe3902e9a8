"""Features that arrive in any order, folded in one order: what comes of them does not depend on who was faster."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

MOST_WAITING = 8
"""So many arrivals may wait for the fold; who brings more waits for it to catch up."""


class RangeOrder:
    """Calls `fold(name, data)` once for every name, in order, in a thread of its own, as soon as it can.

    The caller's thread keeps a farm busy while the fold multiplies matrices. What comes early is kept until its turn;
    what has been folded is let go.

    Args:
        names: in the order in which they are folded.
        fold: called with a name and what was put for it.
    """

    def __init__(self, names: Sequence[str], fold: Callable[[str, bytes | None], None]):
        self._names = list(names)
        self._fold = fold
        self._arrivals: queue.Queue[tuple[str, bytes | None] | None] = queue.Queue(MOST_WAITING)
        self._folded = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fold of features", daemon=True)

    def __enter__(self) -> RangeOrder:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for the fold of all that was put. Raises what a fold raised; RuntimeError when a name never came."""
        self._arrivals.put(None)
        self._thread.join()
        if kind is not None:
            return
        if self._error is not None:
            raise self._error
        if self._folded < len(self._names):
            raise RuntimeError(f"{self._names[self._folded]} never came")

    def put(self, name: str, data: bytes | None = None) -> None:
        """Say that a name is there, with its data or, where the fold knows where to find them, None.

        Raises what an earlier fold raised.
        """
        if self._error is not None:
            raise self._error
        self._arrivals.put((name, data))

    def _run(self) -> None:
        there: dict[str, bytes | None] = {}
        while (arrival := self._arrivals.get()) is not None:
            if self._error is not None:
                continue  # nobody may be left waiting in `put`
            name, data = arrival
            there[name] = data
            try:
                while self._folded < len(self._names) and self._names[self._folded] in there:
                    name = self._names[self._folded]
                    self._fold(name, there.pop(name))
                    self._folded += 1
            except BaseException as error:
                self._error = error
