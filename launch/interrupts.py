"""Ctrl-C and SIGTERM while training goes on: the first one asks for a checkpoint, the second one ends at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The command was told to end, and ends. Not an `Exception`: no library between may take it for one."""

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.code = 128 + signal_number
        """The exit code by which a shell tells of the signal."""


class StopRequest:
    """Whether a signal has come."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int = signal.SIGINT

    def hear(self, signal_number: int, _: FrameType | None) -> None:
        """The handler. Raises `Interrupted` when it is called again."""
        if self.event.is_set():
            raise Interrupted("interrupted: the same command goes on from its newest checkpoint", signal_number)
        self.signal = signal_number
        self.event.set()


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """A request that signals make while the block runs. Only the main thread gets any."""
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.hear) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
