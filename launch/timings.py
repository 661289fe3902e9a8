"""Seconds by stage of a run, in `timings.json`. A stage that was interrupted adds up over its parts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from gebm.cluster import storage
from gebm.launch.run_directory import TIMINGS


def read_timings(run: str) -> dict[str, float]:
    """Seconds by stage, in the order in which the stages first ran; empty for a run without any."""
    location = storage.join(storage.absolute(run), TIMINGS)
    return dict(storage.read_json(location)) if storage.exists(location) else {}


@contextmanager
def timed(run: str, stage: str) -> Iterator[None]:
    """Add the seconds inside the block to the stage's, also when it ends by an error or Ctrl-C."""
    begun = time.monotonic()
    try:
        yield
    finally:
        seconds = read_timings(run)
        seconds[stage] = round(seconds.get(stage, 0.0) + time.monotonic() - begun, 2)
        storage.write_json_atomic(storage.join(storage.absolute(run), TIMINGS), seconds)
