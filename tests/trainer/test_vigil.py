"""Who is to blame when a group of workers ends or hangs: by name, process and place."""

from typing import Any

import pytest

from gebm.trainer.vigil import Sign, Vigil


class Died(Exception):
    """Stands for a process's death."""


def sign(rank: int, number: int, *, round_number: int = 57, waits: str = "", over: bool = False) -> dict[str, Any]:
    who = {"pid": 4700 + rank, "born": "1", "node": f"node-{rank}", "host": f"host-{rank}"}
    return {
        **who,
        "number": number,
        "round": round_number,
        "place": f"trainer/rounds.py:{rank}",
        "waits": waits,
        "over": over,
    }


def blame(vigil: Vigil, failures: dict[int, BaseException]) -> str:
    return vigil.reason(failures, lambda error: isinstance(error, Died))


def ended(vigil: Vigil, now: float) -> list[int]:
    found: list[Sign] = []
    vigil.end_silent(now, found.append)
    return [each.pid for each in found]


def test_a_worker_that_falls_silent_is_ended_once_after_the_limit_and_named():
    vigil = Vigil(silent_seconds=60)
    for second in range(30):
        vigil.note({0: sign(0, second), 1: sign(1, second)}, second)
    for second in range(30, 120):
        vigil.note({0: sign(0, second, waits="all_reduce"), 1: sign(1, 29)}, second)
        assert ended(vigil, second) == ([4701] if second == 29 + 60 else [])
    expected = (
        "rank 1 (process 4701 on host-1, last heard of in round 57) gave no sign of life for 60 s and was ended, "
        "while rank 0 waited in all_reduce"
    )
    assert blame(vigil, {0: RuntimeError("connection closed"), 1: Died()}) == expected


def test_a_worker_that_is_done_may_be_silent():
    vigil = Vigil(silent_seconds=60)
    vigil.note({0: sign(0, 1), 1: sign(1, 1)}, 0.0)
    vigil.note({0: sign(0, 2), 1: sign(1, 2, over=True)}, 1.0)
    vigil.note({0: sign(0, 3), 1: sign(1, 2, over=True)}, 100.0)
    assert ended(vigil, 100.0) == []


def test_a_driver_that_was_held_up_itself_blames_nobody():
    """It looks at the board first: what came meanwhile counts from now on."""
    vigil = Vigil(silent_seconds=60)
    vigil.note({0: sign(0, 1)}, 0.0)
    vigil.note({0: sign(0, 2)}, 500.0)
    assert ended(vigil, 500.0) == []


def test_a_worker_that_was_never_heard_of_is_not_blamed():
    vigil = Vigil(silent_seconds=60)
    assert ended(vigil, 1000.0) == [] and not vigil.begun
    assert blame(vigil, {1: Died()}) == "rank 1 died"


def test_deaths_are_told_from_what_they_bring_about():
    vigil = Vigil()
    vigil.note({rank: sign(rank, 1, round_number=9) for rank in range(3)}, 0.0)
    failures = {0: RuntimeError("Connection closed by peer"), 2: Died()}
    assert blame(vigil, failures) == (
        "rank 2 (process 4702 on host-2, last heard of in round 9) died, "
        "while rank 0 was in trainer/rounds.py:0 and rank 1 was in trainer/rounds.py:1"
    )


def test_a_worker_that_lives_and_does_not_come_to_the_others_is_named_with_its_place():
    vigil = Vigil()
    vigil.note({0: sign(0, 1, waits="broadcast"), 1: sign(1, 1), 2: sign(2, 1, waits="broadcast")}, 0.0)
    # The last signs, of threads that end because they waited in vain, say nothing of where they were.
    vigil.note({0: sign(0, 2, over=True), 2: sign(2, 2, over=True)}, 120.0)
    failures = {rank: RuntimeError("Timed out waiting 120000ms\nfor recv") for rank in (0, 2)}
    assert blame(vigil, failures) == (
        "rank 1 (process 4701 on host-1, last heard of in round 57), in trainer/rounds.py:1, did not come, "
        "while rank 0 waited in broadcast and rank 2 waited in broadcast: RuntimeError: Timed out waiting 120000ms"
    )


def test_of_many_others_some_are_told():
    vigil = Vigil()
    vigil.note({rank: sign(rank, 1, waits="all_reduce") for rank in range(64)}, 0.0)
    assert blame(vigil, {9: Died()}).count("waited in all_reduce") == 3


@pytest.mark.parametrize("other", [{}, {0: RuntimeError("Connection closed by peer")}])
def test_a_worker_that_raised_is_named_with_its_error_not_those_that_waited_for_it(other):
    vigil = Vigil()
    vigil.note({0: sign(0, 1, waits="all_reduce"), 1: sign(1, 1)}, 0.0)
    assert blame(vigil, {**other, 1: KeyError("weights")}) == (
        "rank 1 (process 4701 on host-1, last heard of in round 57) failed: KeyError: 'weights'"
    )
