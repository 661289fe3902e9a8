"""The order of training data: a pure function of (seed, step), whatever the number of workers.

The epoch's permuted shards, laid end to end, are cut into V lanes of equal sample ranges: lane v of N samples
is [v N // V, (v + 1) N // V). Each lane is an endless stream that goes through its range once an epoch, its
order shuffled inside seeded windows. Every global batch of B samples takes B / V from each lane: row r
belongs to lane r // (B / V). So the position in the stream is one integer, the step; nothing is dropped, and
uneven shards do not matter.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.image_form import AS_STORED
from gebm.cluster.index import ShardIndex
from gebm.cluster.randomness import derive_seed

WINDOWS_BYTES = 16 << 20
"""Bytes of the windows of all lanes together: what a good shuffle may cost in memory."""
WINDOW_SIZES = (16, 1024)
"""Least and largest number of samples of a window."""


class Places(NamedTuple):
    """Where samples stand: the numbers of their shards and their numbers in them, int64 of one shape."""

    shards: np.ndarray
    numbers: np.ndarray


class LaneOrder:
    """Which sample stands in which row of which global batch.

    Raises InputError when the batch cannot be cut into lanes, or the set has fewer samples than lanes.
    """

    def __init__(self, index: ShardIndex, *, seed: int, batch_size: int, lanes: int) -> None:
        if batch_size < 1 or lanes < 1:
            raise InputError(f"batch_size {batch_size} and lanes {lanes} must be at least 1")
        self.lanes = math.gcd(lanes, batch_size)
        self.rows_per_lane = batch_size // self.lanes
        self.total = index.total
        if self.total < self.lanes:
            raise InputError(
                f"the data has {self.total} samples, fewer than the {self.lanes} lanes of a batch of "
                f"{batch_size}; use more data or a smaller batch_size"
            )
        least, largest = WINDOW_SIZES
        self.window = min(largest, max(least, WINDOWS_BYTES // (self.lanes * _bytes_in_memory(index))))
        self._seed = seed
        self._counts = np.array([record.count for record in index.shards], np.int64)
        self._epochs: OrderedDict[int, Places] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()

    def batches(self, first: int, steps: int, lanes: Sequence[int]) -> Places:
        """Return the places of the rows of `lanes` in global batches [first, first + steps).

        Each is int64 (steps, len(lanes) * rows_per_lane), a lane's rows side by side.
        """
        rows = self.rows_per_lane
        streams = [self.stream(lane, first * rows, (first + steps) * rows) for lane in lanes]
        shards, numbers = (
            np.stack([places.reshape(steps, rows) for places in part], axis=1).reshape(steps, -1)
            for part in zip(*streams, strict=True)
        )
        return Places(shards, numbers)

    def stream(self, lane: int, start: int, stop: int) -> Places:
        """Return the places, each int64 (stop - start,), of items [start, stop) of the endless stream of `lane`."""
        pieces = list(self._pieces(lane, start, stop))
        return Places(*(np.concatenate(part) for part in zip(*pieces, strict=True)))

    def _pieces(self, lane: int, start: int, stop: int) -> Iterator[Places]:
        """Yield the stream from `start` to `stop`, cut where a window ends."""
        begin, end = lane * self.total // self.lanes, (lane + 1) * self.total // self.lanes
        while start < stop:
            epoch, offset = divmod(start, end - begin)
            number, inside = divmod(offset, self.window)
            size = min(self.window, end - begin - number * self.window)
            count = min(size - inside, stop - start)
            order = self._window_order(epoch, lane, number, size)[inside : inside + count]
            positions = begin + number * self.window + order
            shards, starts = self._shard_order(epoch)
            place = np.searchsorted(starts, positions, side="right") - 1
            yield Places(shards[place], positions - starts[place])
            start += count

    def _shard_order(self, epoch: int) -> Places:
        """Return the epoch's permutation of the shards, and the positions at which they begin in it."""
        if epoch not in self._epochs:
            shards = _permutation(derive_seed(self._seed, "lanes/shards", epoch), len(self._counts))
            self._epochs[epoch] = Places(shards, np.cumsum(self._counts[shards]) - self._counts[shards])
            _keep_newest(self._epochs, 4)
        return self._epochs[epoch]

    def _window_order(self, epoch: int, lane: int, number: int, size: int) -> np.ndarray:
        key = (epoch, lane, number)
        if key not in self._windows:
            seed = derive_seed(self._seed, "lanes/window", f"{epoch}/{lane}/{number}")
            self._windows[key] = _permutation(seed, size)
            _keep_newest(self._windows, 4 * self.lanes)
        return self._windows[key]


def _bytes_in_memory(index: ShardIndex) -> int:
    """Bytes that a sample takes while it is read: of large images that are made small, those of the image's file."""
    stored = sum(record.bytes for record in index.shards) // index.total
    return index.sample_bytes if index.form == AS_STORED else max(index.sample_bytes, stored)


def _permutation(seed: int, size: int) -> np.ndarray:
    """Return a permutation, the same for every version of numpy: there only raw bit streams are fixed."""
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable")


def _keep_newest(held: OrderedDict, count: int) -> None:
    while len(held) > count:
        held.popitem(last=False)
