"""Ctrl-C means Ctrl-C: Ray Train takes the signal for itself, answers it with an exit, and keeps it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def own_interrupts() -> Iterator[None]:
    """Undo what the block does to the handling of SIGINT, and raise `KeyboardInterrupt` where it exits quietly.

    Ray Train's handler aborts its run, which is wanted, then calls `sys.exit(0)`, and stays installed after the
    run, where it would end every later stage in the same way.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as end:
        # 0 from Ray Train's handler, 1 when the call that the handler interrupted has passed it on.
        if end.code in (0, 1, None):
            raise KeyboardInterrupt from end
        raise
    finally:
        signal.signal(signal.SIGINT, before)
