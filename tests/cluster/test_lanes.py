"""The order of training data does not know how many ranks there are, and loses nothing."""

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster import lanes as lanes_module
from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.lanes import LaneOrder, LaneReader
from gebm.cluster.reader import ImageBatch, read_all


def global_batch(url: str, step: int, world: int, *, batch_size: int = 16, lanes: int = 8) -> ImageBatch:
    """Return global batch `step` put together from the parts of `world` ranks by their row numbers."""
    images, labels, keys = {}, {}, {}
    for rank in range(world):
        options = {"seed": 5, "batch_size": batch_size, "lanes": lanes}
        with closing(LaneReader(url, rank=rank, world=world, **options)) as reader:
            batch = reader.batch(step)
            assert len(batch.keys) == len(reader.rows) == batch_size // world
            for place, row in enumerate(reader.rows.tolist()):
                assert row not in keys
                images[row], keys[row] = batch.images[place], batch.keys[place]
                labels[row] = None if batch.labels is None else batch.labels[place]
    assert sorted(keys) == list(range(batch_size))
    return ImageBatch(
        np.stack([images[row] for row in range(batch_size)]),
        np.array([labels[row] for row in range(batch_size)]),
        [keys[row] for row in range(batch_size)],
    )


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_one_two_and_four_ranks_see_the_same_global_batches(make_shards: Callable[..., str], ending: str) -> None:
    url = make_shards((31, 7, 22), size=16, ending=ending)
    for step in (0, 1, 9, 250):
        one, two, four = (global_batch(url, step, world) for world in (1, 2, 4))
        assert one.keys == two.keys == four.keys
        assert np.array_equal(one.images, two.images) and np.array_equal(one.images, four.images)
        assert one.labels is not None and two.labels is not None and four.labels is not None
        assert np.array_equal(one.labels, two.labels) and np.array_equal(one.labels, four.labels)


def test_more_ranks_than_shards_is_no_matter(make_shards: Callable[..., str]) -> None:
    url = make_shards((40,), size=16)
    assert global_batch(url, 3, 1).keys == global_batch(url, 3, 8).keys


def test_images_and_labels_belong_to_their_keys(make_shards: Callable[..., str]) -> None:
    url = make_shards((31, 7, 22), size=16)
    everything = read_all(url)
    assert everything.labels is not None
    place = {key: number for number, key in enumerate(everything.keys)}
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        for step in range(12):
            batch = reader.batch(step)
            wanted = [place[key] for key in batch.keys]
            assert np.array_equal(batch.images, everything.images[wanted])
            assert batch.labels is not None and np.array_equal(batch.labels, everything.labels[wanted])


@pytest.mark.parametrize("counts", [(31, 7, 22), (64,), (1, 1, 1, 58, 2), (9,)])
@pytest.mark.parametrize("window", [4, 1024])
def test_each_lane_goes_through_its_samples_once_an_epoch_and_lanes_share_out_the_set(
    make_shards: Callable[..., str], counts: tuple[int, ...], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "WINDOW_SIZES", (window, window))
    index = load_index(make_shards(counts, size=8))
    order = LaneOrder(index, seed=3, batch_size=16, lanes=8)
    length = [(lane + 1) * index.total // 8 - lane * index.total // 8 for lane in range(8)]
    for epoch in range(3):
        seen: Counter[tuple[int, int]] = Counter()
        for lane in range(8):
            stream = range(epoch * length[lane], (epoch + 1) * length[lane])
            own = [order.locate(position // 2, lane, position % 2) for position in stream]
            assert len(set(own)) == length[lane]
            seen.update(own)
        assert len(seen) == index.total and set(seen.values()) == {1}


def test_epochs_and_seeds_have_orders_of_their_own(make_shards: Callable[..., str]) -> None:
    index = load_index(make_shards((30, 30, 30, 30), size=8))

    def epoch(seed: int, number: int) -> list[tuple[int, int]]:
        order = LaneOrder(index, seed=seed, batch_size=1, lanes=1)
        return [order.locate(number * 120 + step, 0, 0) for step in range(120)]

    orders = [epoch(0, 0), epoch(0, 1), epoch(0, 2), epoch(1, 0)]
    assert all(sorted(order) == sorted(orders[0]) for order in orders)
    for first in range(4):
        for second in range(first):
            agreements = sum(a == b for a, b in zip(orders[first], orders[second], strict=True))
            assert agreements < 12  # expected: 1


def test_a_window_mixes_a_lane_thoroughly(make_shards: Callable[..., str]) -> None:
    """Rank correlation of stored and read order over 400 samples within 4/sqrt(400) (false alarm 6e-5)."""
    index = load_index(make_shards((400,), size=8))
    order = LaneOrder(index, seed=11, batch_size=1, lanes=1)
    read = [order.locate(step, 0, 0)[1] for step in range(400)]
    assert sorted(read) == list(range(400))
    assert abs(np.corrcoef(read, np.arange(400))[0, 1]) < 4 / 20


def test_any_step_at_any_time_is_the_same_batch(tiny_shards: str) -> None:
    options = {"seed": 9, "batch_size": 12, "lanes": 4}
    with closing(LaneReader(tiny_shards, **options)) as reader:
        in_order = [reader.batch(step) for step in range(40)]
    with closing(LaneReader(tiny_shards, cache_bytes=1, **options)) as reader:
        for step in (39, 0, 17, 17, 3, 38, 1):
            batch = reader.batch(step)
            assert batch.keys == in_order[step].keys
            assert np.array_equal(batch.images, in_order[step].images)


def test_lanes_are_lowered_to_divide_the_batch(tiny_shards: str) -> None:
    with closing(LaneReader(tiny_shards, seed=0, batch_size=24, lanes=64)) as reader:
        assert len(reader.batch(0).keys) == 24
    assert LaneOrder(load_index(tiny_shards), seed=0, batch_size=24, lanes=64).lanes == 8


def test_ranks_that_cannot_share_equally_are_an_error(tiny_shards: str) -> None:
    with pytest.raises(InputError, match=r"batch_size of 24 in 64 lanes.* 3 workers"):
        LaneReader(tiny_shards, seed=0, batch_size=24, lanes=64, rank=0, world=3)


def test_fewer_images_than_lanes_is_an_error(make_shards: Callable[..., str]) -> None:
    with pytest.raises(InputError, match="6 samples, fewer than the 8 lanes"):
        LaneReader(make_shards((6,), size=8), seed=0, batch_size=16, lanes=8)


def test_the_cache_stays_within_what_it_may_hold(
    make_shards: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes_module, "WINDOW_SIZES", (2, 2))
    url = make_shards((40, 40), size=16)
    allowed = 3 * 2 * 2 * 256  # three blocks of two images for each of two lanes
    with closing(LaneReader(url, seed=0, batch_size=4, lanes=2, cache_bytes=0)) as reader:
        for step in range(30):
            reader.batch(step)
        held = reader._blocks._decoded._held.values()
        assert 0 < sum(size for _, size in held) <= allowed


def test_a_shard_damaged_during_training_stops_it_by_name(make_shards: Callable[..., str]) -> None:
    url = make_shards((8, 8), size=16)
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        shard = Path(url) / "shard-001.tar"
        shard.write_bytes(bytes(len(shard.read_bytes())))
        with pytest.raises(InputError, match=r"shard-001\.tar"):
            for step in range(4):
                reader.batch(step)
