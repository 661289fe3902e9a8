"""Progress is always visible: bars on a terminal, lines in a log, also when the work says nothing."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from gebm.launch.progress import LINE_EVERY, BarDisplay, LineDisplay, make_display
from gebm.launch.timings import read_timings, timed


def test_a_log_gets_a_line_at_least_every_ten_seconds():
    assert LINE_EVERY < 10


def test_lines_come_while_the_work_is_silent_and_carry_its_last_report():
    stream = io.StringIO()
    with LineDisplay(stream, every=0.05).stage("train") as report:
        time.sleep(0.12)
        report(1000, 2000, "joint")
        time.sleep(0.12)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "train: begins"
    assert any(line.startswith("train: starting (") for line in lines)
    assert any(line.startswith("train: 1,000 of 2,000  joint (") for line in lines)
    assert lines[-1].startswith("train: done in 0.")


def test_an_event_gets_a_line_at_once_that_stays():
    """A worker that died, and why: a later report must not wipe it out before anybody has read it."""
    stream = io.StringIO()
    with LineDisplay(stream, every=60).stage("train") as report:
        report(0, 0, "rank 1 died")
        report(1000, 2000, "joint")
    assert stream.getvalue().splitlines()[1] == "train: rank 1 died"
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with BarDisplay(console).stage("train") as report:
        report(0, 0, "rank 1 [of 2] died")
        report(1000, 2000, "joint")
    assert "train: rank 1 [of 2] died\n" in console.file.getvalue()


def test_a_stage_that_fails_is_not_called_done_and_its_lines_stop():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), LineDisplay(stream, every=0.02).stage("train"):
        raise RuntimeError
    written = stream.getvalue()
    time.sleep(0.1)
    assert stream.getvalue() == written == "train: begins\n"


def test_a_terminal_gets_a_bar_and_afterwards_one_line_a_stage():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with BarDisplay(console).stage("sample") as report:
        report(0, 0, "waiting")
        report(50, 200, "images")
        time.sleep(0.25)
    shown = console.file.getvalue()
    assert "25%" in shown and "images" in shown
    assert "✓" in shown.splitlines()[-1] and "sample" in shown.splitlines()[-1]


def test_bars_are_for_terminals_only():
    assert isinstance(make_display(Console(file=io.StringIO())), LineDisplay)
    assert isinstance(make_display(Console(file=io.StringIO(), force_terminal=True)), BarDisplay)


def test_seconds_of_a_stage_add_up_over_interruptions(tmp_path):
    with pytest.raises(KeyboardInterrupt), timed(str(tmp_path), "train"):
        time.sleep(0.05)
        raise KeyboardInterrupt
    first = read_timings(str(tmp_path))["train"]
    with timed(str(tmp_path), "train"):
        time.sleep(0.05)
    with timed(str(tmp_path), "tune"):
        pass
    seconds = read_timings(str(tmp_path))
    assert list(seconds) == ["train", "tune"]
    assert first >= 0.05 and seconds["train"] >= first + 0.05
