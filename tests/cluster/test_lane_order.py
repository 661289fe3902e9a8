"""The order of training data: every sample once an epoch, well mixed, another in each epoch and for each seed."""

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from gebm.cluster import lane_order
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import build_index, load_index
from gebm.cluster.lane_order import LaneOrder


def places(order: LaneOrder, lane: int, start: int, stop: int) -> list[tuple[int, int]]:
    shards, numbers = order.stream(lane, start, stop)
    return list(zip(shards.tolist(), numbers.tolist(), strict=True))


@pytest.mark.parametrize("counts", [(31, 7, 22), (64,), (1, 1, 1, 58, 2), (9,)])
@pytest.mark.parametrize("window", [4, 1024])
def test_each_lane_goes_through_its_samples_once_an_epoch_and_lanes_share_out_the_set(
    make_shards: Callable[..., str], counts: tuple[int, ...], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (window, window))
    index = load_index(make_shards(counts, size=8))
    order = LaneOrder(index, seed=3, batch_size=16, lanes=8)
    length = [(lane + 1) * index.total // 8 - lane * index.total // 8 for lane in range(8)]
    for epoch in range(3):
        seen: Counter[tuple[int, int]] = Counter()
        for lane in range(8):
            own = places(order, lane, epoch * length[lane], (epoch + 1) * length[lane])
            assert len(set(own)) == length[lane]
            seen.update(own)
        assert len(seen) == index.total and set(seen.values()) == {1}


def test_a_stream_is_the_same_however_it_is_cut(make_shards: Callable[..., str]) -> None:
    order = LaneOrder(load_index(make_shards((31, 7, 22), size=8)), seed=3, batch_size=6, lanes=3)
    whole = places(order, 1, 0, 100)
    assert [place for start in range(0, 100, 7) for place in places(order, 1, start, min(start + 7, 100))] == whole


def test_a_batch_takes_equally_many_rows_of_each_lane_side_by_side(make_shards: Callable[..., str]) -> None:
    order = LaneOrder(load_index(make_shards((31, 7, 22), size=8)), seed=3, batch_size=12, lanes=4)
    shards, numbers = order.batches(5, 3, [2, 0])
    assert shards.shape == numbers.shape == (3, 6)
    for step in range(3):
        rows = list(zip(shards[step].tolist(), numbers[step].tolist(), strict=True))
        first = 3 * (5 + step)
        assert rows == places(order, 2, first, first + 3) + places(order, 0, first, first + 3)


def test_epochs_and_seeds_have_orders_of_their_own(make_shards: Callable[..., str]) -> None:
    index = load_index(make_shards((30, 30, 30, 30), size=8))

    def epoch(seed: int, number: int) -> list[tuple[int, int]]:
        order = LaneOrder(index, seed=seed, batch_size=1, lanes=1)
        return places(order, 0, number * 120, (number + 1) * 120)

    orders = [epoch(0, 0), epoch(0, 1), epoch(0, 2), epoch(1, 0)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    for first in range(4):
        for second in range(first):
            agreements = sum(a == b for a, b in zip(orders[first], orders[second], strict=True))
            assert agreements < 12  # expected: 1


def test_a_window_mixes_a_lane_thoroughly(make_shards: Callable[..., str]) -> None:
    """Rank correlation of stored and read order over 400 samples within 4/sqrt(400) (false alarm 6e-5)."""
    index = load_index(make_shards((400,), size=8))
    read = [number for _, number in places(LaneOrder(index, seed=11, batch_size=1, lanes=1), 0, 0, 400)]
    assert sorted(read) == list(range(400))
    assert abs(np.corrcoef(read, np.arange(400))[0, 1]) < 4 / 20


def test_lanes_are_lowered_to_divide_the_batch(tiny_shards: str) -> None:
    assert LaneOrder(load_index(tiny_shards), seed=0, batch_size=24, lanes=64).lanes == 8


def test_fewer_images_than_lanes_is_an_error(make_shards: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="6 samples, fewer than the 8 lanes"):
        LaneOrder(load_index(make_shards((6,), size=8)), seed=0, batch_size=16, lanes=8)


def test_images_made_smaller_have_windows_by_the_bytes_that_they_take_to_read(
    make_shards: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block's files are in memory while it is decoded, and those of large images weigh more than what comes out."""
    monkeypatch.setattr(lane_order, "WINDOWS_BYTES", 128 << 10)
    url = make_shards((40,), size=64)
    stored = load_index(url).shards[0].bytes / 40
    order = LaneOrder(build_index(url, form=ImageForm(4)), seed=0, batch_size=1, lanes=1)
    assert 16 < order.window <= (128 << 10) / stored < 40
