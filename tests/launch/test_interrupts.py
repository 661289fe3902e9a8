"""Ctrl-C stays a KeyboardInterrupt, whatever a library makes of the signal in between."""

from __future__ import annotations

import os
import signal
import sys
import threading

import pytest

from gebm.launch.interrupts import own_interrupts


def quietly_exiting(code: int):
    def handler(*_):
        sys.exit(code)

    return handler


@pytest.mark.parametrize("code", [0, 1])
def test_a_signal_that_a_library_answers_with_an_exit_is_an_interrupt(code):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), own_interrupts():
        signal.signal(signal.SIGINT, quietly_exiting(code))
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) == before


def test_the_handler_that_a_library_leaves_behind_is_taken_away():
    before = signal.getsignal(signal.SIGINT)
    with own_interrupts():
        signal.signal(signal.SIGINT, quietly_exiting(0))
    assert signal.getsignal(signal.SIGINT) == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_other_exits_and_errors_pass_unchanged():
    for error in (SystemExit(3), ValueError("x")):
        with pytest.raises(type(error)) as caught, own_interrupts():
            raise error
        assert caught.value is error


def test_a_thread_other_than_the_main_one_is_left_alone():
    seen = []

    def work():
        with own_interrupts():
            seen.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
