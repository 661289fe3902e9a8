"""A run's metrics: JSON lines in segments, one a checkpoint interval, values apart from timings.

A segment is rewritten whole as it grows, since object stores cannot append; its name is the first round it holds.
A resumed run starts at a checkpoint, hence at a segment's beginning: what came after is dropped and written anew,
so the lines of a run that was interrupted are those of one that was not.
"""

from __future__ import annotations

import json
import time
from typing import Any

from gebm.cluster import storage

VALUES, TIMINGS = "values", "timings"


def folder(run: str) -> str:
    return storage.join(run, "metrics")


class MetricsWriter:
    """Writes the metrics of one run from `round_number` on. Only one worker has one."""

    def __init__(self, run: str, round_number: int):
        self.run = run
        storage.make_directory(folder(run))
        for name in storage.list_names(folder(run)):
            stem, _, ending = name.partition(".")
            kind, _, first = stem.rpartition("-")
            if kind in (VALUES, TIMINGS) and ending == "jsonl" and first.isdigit() and int(first) >= round_number:
                storage.remove(storage.join(folder(run), name))
        self._begin(round_number)

    def _begin(self, round_number: int) -> None:
        self.first_round = round_number
        self.lines: dict[str, list[str]] = {VALUES: [], TIMINGS: []}

    def write(self, values: dict[str, Any], timings: dict[str, Any] | None = None) -> None:
        """Add one line of each; an event has no timings."""
        for kind, record in ((VALUES, values), (TIMINGS, timings)):
            if record is None:
                continue
            self.lines[kind].append(json.dumps(record))
            text = "\n".join(self.lines[kind]) + "\n"
            url = storage.join(folder(self.run), f"{kind}-{self.first_round:08d}.jsonl")
            storage.write_bytes_atomic(url, text.encode())

    def next_segment(self, round_number: int) -> None:
        """Begin a new segment: a checkpoint was committed."""
        self._begin(round_number)


class Window:
    """Means of the rounds since the last line, and how long they took."""

    def __init__(self, batches: int):
        self._rows: list[dict[str, float]] = []
        self._batches = batches
        self._since = time.perf_counter()

    def add(self, values: dict[str, float]) -> None:
        self._rows.append(values)

    def close(
        self, round_number: int, phase: str, batches: int, batch_size: int
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """The line of values and the line of timings up to `round_number`; the window starts anew."""
        now = time.perf_counter()
        seconds = now - self._since
        images = (batches - self._batches) * batch_size
        means = {name: sum(row[name] for row in self._rows) / len(self._rows) for name in self._rows[0]}
        self._rows, self._batches, self._since = [], batches, now
        values = {"phase": phase, "round": round_number, **means}
        return values, {"round": round_number, "seconds": seconds, "images_per_second": images / seconds}


def read_metrics(run: str, kind: str = VALUES) -> list[dict[str, Any]]:
    """All lines of a run in order. Raises `json.JSONDecodeError` when a segment is damaged."""
    if not storage.exists(folder(run)):
        return []
    names = [name for name in storage.list_names(folder(run)) if name.startswith(f"{kind}-")]
    return [
        json.loads(line)
        for name in sorted(names)
        for line in storage.read_text(storage.join(folder(run), name)).splitlines()
    ]
