"""How much memory processes have at the most, looked at again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from pathlib import Path

EVERY_SECONDS = 1.0  # a look takes some milliseconds of each process's time


class PeakMemory:
    """The largest sum of what processes have, in bytes: pages that several share are counted once (PSS).

    Files that are mapped count as far as their pages are mapped; the system's cache of files does not.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids, self._over = pids, threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._over.wait(EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        self.peak = max(self.peak, sum(proportional_set(pid) for pid in set(self._pids())))


def proportional_set(pid: int) -> int:
    """PSS of a process in bytes; 0 of one that is gone."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)
