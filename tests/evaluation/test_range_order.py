"""Arrivals in any order are folded in one, and a fold that fails is told to who brings more."""

import threading
import time

import numpy as np
import pytest

from gebm.evaluation.range_order import MOST_WAITING, RangeOrder

NAMES = [f"{number:03d}" for number in range(60)]


@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_put_in_any_order_is_folded_in_the_order_of_the_names(seed: int) -> None:
    folded: list[tuple[str, bytes | None]] = []
    with RangeOrder(NAMES, lambda name, data: folded.append((name, data))) as order:
        for place in np.random.default_rng(seed).permutation(len(NAMES)):
            order.put(NAMES[place], NAMES[place].encode() if place % 2 else None)
    assert folded == [(name, name.encode() if int(name) % 2 else None) for name in NAMES]


def test_a_failing_fold_is_raised_and_nobody_waits_for_ever() -> None:
    folded: list[str] = []

    def fold(name: str, data: bytes | None) -> None:
        folded.append(name)
        if name == "002":
            raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"), RangeOrder(NAMES, fold) as order:
        for name in NAMES:
            order.put(name)
    assert folded == ["000", "001", "002"]


def test_an_error_outside_is_the_one_that_is_raised_and_a_name_that_never_came_is_told() -> None:
    with pytest.raises(KeyError), RangeOrder(NAMES, lambda name, data: None) as order:
        order.put("000")
        raise KeyError("farm")
    with pytest.raises(RuntimeError, match="001 never came"), RangeOrder(NAMES, lambda name, data: None) as order:
        order.put("000")
        order.put("002")


def test_who_is_faster_than_the_fold_waits_for_it() -> None:
    go_on = threading.Event()
    put: list[str] = []

    def bring(order: RangeOrder) -> None:
        for name in NAMES:
            order.put(name)
            put.append(name)

    with RangeOrder(NAMES, lambda name, data: go_on.wait(30)) as order:
        bringer = threading.Thread(target=bring, args=(order,))
        bringer.start()
        deadline = time.monotonic() + 30
        while len(put) <= MOST_WAITING and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.2)
        assert len(put) == MOST_WAITING + 1  # one is being folded
        go_on.set()
        bringer.join()
    assert len(put) == len(NAMES)
