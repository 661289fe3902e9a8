"""Blocks are read ahead, by several threads, once, and never more of them held than there is room for."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import numpy as np
import pytest

from gebm.cluster import blocks
from gebm.cluster.blocks import Block, BlockCache, BlockReader, decoders_for
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import build_index, load_index
from gebm.cluster.reader import read_all

SIZE = 10


class Source:
    """Stands for the reader of a set: blocks of ten bytes; `gate` holds reading up, `bad` cannot be read."""

    def __init__(self) -> None:
        self.read_so_far: list[int] = []
        self.gate = threading.Event()
        self.gate.set()
        self.bad: set[int] = set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def bytes_of(self, number: int) -> int:
        return SIZE

    def read(self, number: int) -> Block:
        with self._lock:
            self.read_so_far.append(number)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.gate.wait(20)
        with self._lock:
            self.at_once -= 1
        if number in self.bad:
            raise InputError(f"block {number}")
        return Block(np.full(SIZE, number, np.uint8), np.zeros(SIZE, np.int64))


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@contextmanager
def cache_of(source: Source, *, room: int, threads: int = 1) -> Iterator[BlockCache]:
    with closing(BlockCache(source, budget=room * SIZE, threads=threads)) as cache:  # type: ignore[arg-type]
        yield cache
        source.gate.set()


def test_blocks_asked_for_ahead_are_read_without_being_waited_for() -> None:
    source = Source()
    with cache_of(source, room=4) as cache:
        assert all(cache.ask(number, step=number, now=0) for number in range(3))
        wait_until(lambda: len(source.read_so_far) == 3)
        assert [int(cache.get(number).images[0]) for number in range(3)] == [0, 1, 2]
        assert source.read_so_far == [0, 1, 2]


def test_several_threads_read_side_by_side_and_no_more() -> None:
    source = Source()
    source.gate.clear()
    with cache_of(source, room=9, threads=3) as cache:
        for number in range(9):
            cache.ask(number, step=0, now=0)
        wait_until(lambda: source.at_once == 3)
        source.gate.set()
        for number in range(9):
            cache.get(number)
    assert source.most_at_once == 3 and Counter(source.read_so_far) == Counter(range(9))


def test_what_a_step_to_come_needs_waits_until_there_is_room() -> None:
    source = Source()
    with cache_of(source, room=2) as cache:
        assert cache.ask(0, step=0, now=0) and cache.ask(1, step=1, now=0)
        assert not cache.ask(2, step=2, now=0)
        assert not cache.ask(2, step=2, now=0)
        assert cache.ask(2, step=2, now=1)  # block 0 is needed no more
        assert cache._bytes == 2 * SIZE and set(cache._held) == {1, 2}
        assert not cache.ask(3, step=3, now=1)


def test_the_current_step_gets_what_it_needs_even_without_room() -> None:
    source = Source()
    with cache_of(source, room=2) as cache:
        assert all(cache.ask(number, step=0, now=0) for number in range(5))
        assert sorted(int(cache.get(number).images[0]) for number in range(5)) == [0, 1, 2, 3, 4]
        assert cache.ask(9, step=1, now=1)
        assert cache._bytes == 2 * SIZE


def test_the_block_that_was_needed_longest_ago_makes_room() -> None:
    source = Source()
    with cache_of(source, room=3) as cache:
        for step, number in enumerate([0, 1, 2, 0, 3]):
            assert cache.ask(number, step=step, now=step)
        assert set(cache._held) == {2, 0, 3}


def test_changed_plans_drop_what_was_not_begun_and_keep_what_is_there() -> None:
    source = Source()
    with cache_of(source, room=5) as cache:
        cache.ask(0, step=100, now=100)
        cache.get(0)
        source.gate.clear()
        for number in (1, 2, 3):
            cache.ask(number, step=100 + number, now=100)
        wait_until(lambda: source.read_so_far == [0, 1])
        cache.change_plans()
        assert set(cache._held) == {0, 1} and cache._bytes == 2 * SIZE
        assert all(cache.ask(number, step=50, now=50) for number in (7, 8, 9, 10))
        assert cache._bytes == 5 * SIZE  # blocks 0 and 1 were in no plan any more, and room was needed for one
        source.gate.set()
        assert int(cache.get(10).images[0]) == 10
    assert 2 not in source.read_so_far and 3 not in source.read_so_far


def test_what_could_not_be_read_is_said_each_time_and_read_when_it_can_be() -> None:
    source = Source()
    source.bad = {1}
    with cache_of(source, room=3) as cache:
        for _ in range(2):
            cache.ask(1, step=0, now=0)
            with pytest.raises(InputError, match="block 1"):
                cache.get(1)
        cache.ask(1, step=0, now=0)
        wait_until(lambda: len(source.read_so_far) == 3)
        source.bad = set()
        cache.change_plans()
        cache.ask(1, step=0, now=0)
        assert int(cache.get(1).images[0]) == 1
        assert cache._bytes == SIZE


@pytest.mark.parametrize("decoders", [1, 2])
def test_blocks_are_fetched_while_others_are_decoded_and_few_decode_at_a_time(
    make_shards: Callable[..., str], decoders: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_shards((16,), size=8)
    reader = BlockReader(url, load_index(url), size=4, tar_bytes=0, decoders=decoders)
    fetched: list[int] = []
    gate = Source()
    gate.gate.clear()
    read, decode = blocks.read_samples, blocks.decode_samples

    def fetch(*arguments: Any) -> Any:
        fetched.append(arguments[2])
        return read(*arguments)

    def slow_decode(*arguments: Any, **options: Any) -> Any:
        gate.read(0)
        return decode(*arguments, **options)

    monkeypatch.setattr(blocks, "read_samples", fetch)
    monkeypatch.setattr(blocks, "decode_samples", slow_decode)
    with closing(BlockCache(reader, budget=1 << 20, threads=4)) as cache:
        for number in range(4):
            cache.ask(number, step=0, now=0)
        wait_until(lambda: len(fetched) == 4 and gate.at_once == decoders)
        gate.gate.set()
        images = [cache.get(number).images for number in range(4)]
    assert gate.most_at_once == decoders
    assert np.array_equal(np.concatenate(images), read_all(url).images)


def test_small_images_are_decoded_by_one_thread_and_large_ones_by_several(
    make_shards: Callable[..., str], make_vector_shards: Callable[..., str]
) -> None:
    small, large = load_index(make_shards((4,), size=32)), load_index(make_shards((2,), size=256))
    assert [decoders_for(small, 16), decoders_for(large, 16), decoders_for(large, 2)] == [1, 4, 2]
    made_small = build_index(make_shards((2,), size=256), form=ImageForm(8))
    assert made_small.sample_bytes == 64 and decoders_for(made_small, 16) == 4
    assert decoders_for(load_index(make_vector_shards((3,), dimension=40_000)), 16) == 1
