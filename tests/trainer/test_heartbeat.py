"""What a worker's sign of life says of where its training is."""

import contextlib
import sys
import threading
import time
from typing import Any

import torch.distributed as dist
from accelerate import Accelerator

from gebm.trainer.council import Council
from gebm.trainer.heartbeat import whereabouts
from gebm.trainer.workers import Workers


class InVain(Exception):
    """Ends the wait."""


def place_of(thread: threading.Thread) -> tuple[str, str]:
    assert thread.ident is not None
    return whereabouts(sys._current_frames().get(thread.ident))


def test_a_thread_that_waits_for_others_says_in_which_collective_and_where_of_ours(monkeypatch):
    free = threading.Event()

    def wait_in_vain(*_: Any, **__: Any) -> None:
        free.wait(60)
        raise InVain

    # The first thing that a broadcast does: here it takes for ever, as if the others did not come.
    monkeypatch.setattr(dist.distributed_c10d, "_canonicalize_group_rank", wait_in_vain)
    council = Council(Workers(Accelerator(cpu=True)))
    council._group = object()  # type: ignore[assignment]

    def ask() -> None:
        with contextlib.suppress(InVain):
            council.word("")

    thread = threading.Thread(target=ask)
    thread.start()
    deadline = time.monotonic() + 30
    while place_of(thread)[1] == "" and time.monotonic() < deadline:
        time.sleep(0.01)
    place, waits = place_of(thread)
    free.set()
    thread.join()
    assert waits == "broadcast" and place.startswith("trainer/council.py:")


def test_a_thread_that_does_not_wait_for_others_says_no_collective():
    free = threading.Event()
    thread = threading.Thread(target=free.wait, args=(60,))
    thread.start()
    assert place_of(thread) == ("", "")
    free.set()
    thread.join()
    assert whereabouts(None) == ("", "")
