"""The first Ctrl-C or SIGTERM asks for a checkpoint, the second one ends at once; neither outlives training."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from gebm.launch.interrupts import Interrupted, stop_requests

HERE = os.getpid()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_is_a_request_that_names_it(number, ray_cluster):
    """Also where Ray has handlers of its own."""
    with stop_requests() as request:
        assert not request.event.is_set()
        os.kill(HERE, number)
        assert request.event.is_set() and request.signal == number


@pytest.mark.parametrize(("second", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_second_signal_ends_at_once_with_its_own_exit_code(second, code):
    with pytest.raises(Interrupted, match="interrupted: the same command goes on") as caught, stop_requests():
        os.kill(HERE, signal.SIGTERM)
        os.kill(HERE, second)
    assert caught.value.code == code
    assert not isinstance(caught.value, Exception)


def test_afterwards_signals_mean_what_they_meant_before():
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with stop_requests():
        assert signal.getsignal(signal.SIGTERM) != before[signal.SIGTERM]
    assert {number: signal.getsignal(number) for number in before} == before
    with pytest.raises(KeyboardInterrupt):
        os.kill(HERE, signal.SIGINT)


def test_a_thread_other_than_the_main_one_gets_no_signals():
    seen = []

    def work():
        before = signal.getsignal(signal.SIGTERM)
        with stop_requests() as request:
            seen.append(signal.getsignal(signal.SIGTERM) == before and not request.event.is_set())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True]
