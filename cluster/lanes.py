"""The order of training data: a pure function of (seed, step), whatever the number of workers.

The epoch's permuted shards, laid end to end, are cut into V lanes of equal sample ranges: lane v of N samples
is [v N // V, (v + 1) N // V). Each lane is an endless stream that goes through its range once an epoch, its
order shuffled inside seeded windows. Every global batch of B samples takes B / V from each lane: row r
belongs to lane r // (B / V). Rank k of W owns lanes k, k + W, ... So the position in the stream is one
integer, the step; nothing is dropped, no rank waits for another, and uneven shards do not matter.
"""

import bisect
import math
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import ShardIndex, load_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.reader import ImageBatch, cut_tar, decode_samples, read_shard, shard_tar
from gebm.cluster.shards import parse_tar

WINDOWS_BYTES = 16 << 20
"""Decoded bytes of the windows of all lanes together: what a good shuffle may cost in memory."""
WINDOW_SIZES = (16, 1024)
"""Least and largest number of samples of a window."""
PREFETCH_STEPS = 2

Key = TypeVar("Key")
Value = TypeVar("Value")


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
        self.window = min(largest, max(least, WINDOWS_BYTES // (self.lanes * index.sample_bytes)))
        self._seed = seed
        self._counts = [record.count for record in index.shards]
        self._epochs: OrderedDict[int, tuple[np.ndarray, list[int]]] = OrderedDict()
        self._windows: OrderedDict[tuple[int, int, int], np.ndarray] = OrderedDict()

    def locate(self, step: int, lane: int, row: int) -> tuple[int, int]:
        """Return (shard number, sample number in it) of row `row` of `lane` in global batch `step`."""
        begin, end = lane * self.total // self.lanes, (lane + 1) * self.total // self.lanes
        epoch, offset = divmod(step * self.rows_per_lane + row, end - begin)
        number, inside = divmod(offset, self.window)
        order = self._window_order(epoch, lane, number, min(self.window, end - begin - number * self.window))
        position = begin + number * self.window + int(order[inside])
        shards, starts = self._shard_order(epoch)
        place = bisect.bisect_right(starts, position) - 1
        return int(shards[place]), position - starts[place]

    def _shard_order(self, epoch: int) -> tuple[np.ndarray, list[int]]:
        """Return the epoch's permutation of the shards and where each of them begins in it."""
        if epoch not in self._epochs:
            shards = _permutation(derive_seed(self._seed, "lanes/shards", epoch), len(self._counts))
            counts = [self._counts[shard] for shard in shards]
            self._epochs[epoch] = shards, [0, *np.cumsum(counts[:-1], dtype=np.int64).tolist()]
            _keep_newest(self._epochs, 4)
        return self._epochs[epoch]

    def _window_order(self, epoch: int, lane: int, number: int, size: int) -> np.ndarray:
        key = (epoch, lane, number)
        if key not in self._windows:
            seed = derive_seed(self._seed, "lanes/window", f"{epoch}/{lane}/{number}")
            self._windows[key] = _permutation(seed, size)
            _keep_newest(self._windows, 4 * self.lanes)
        return self._windows[key]


class LaneReader:
    """One rank's part of the global batches of a shard set, at random access by step.

    `rows`, int64 (n,), are the rows of the global batch that this rank holds, in the order of its own
    batches, so that `z_global[rows]` are the latents that go with them. Decoded blocks are kept, the least
    recently used dropped beyond `cache_bytes` (or what the open windows need, if that is more). A set that
    fits is read once. For a larger one use plain .tar shards: a .tar.gz is decompressed from its beginning
    each time.

    Raises InputError when `batch_size`, `lanes` and `world` do not divide: `lanes` is lowered to
    gcd(lanes, batch_size), and then must be a multiple of `world`, so that ranks hold equally many rows.
    """

    def __init__(
        self,
        url: str,
        *,
        seed: int,
        batch_size: int,
        lanes: int = 64,
        rank: int = 0,
        world: int = 1,
        cache_bytes: int = 256 << 20,
    ) -> None:
        self.url = storage.absolute(url)
        self.index = load_index(self.url)
        self._order = LaneOrder(self.index, seed=seed, batch_size=batch_size, lanes=lanes)
        if self._order.lanes % world:
            raise InputError(
                f"a batch_size of {batch_size} in {lanes} lanes gives {self._order.lanes} lanes, which "
                f"{world} workers cannot share equally; make batch_size and lanes multiples of {world}"
            )
        if not 0 <= rank < world:
            raise ValueError(f"rank {rank} of {world}")
        self._own = range(rank, self._order.lanes, world)
        per_lane = self._order.rows_per_lane
        self.rows = np.concatenate(
            [np.arange(lane * per_lane, (lane + 1) * per_lane, dtype=np.int64) for lane in self._own]
        )
        open_windows = 3 * len(self._own) * self._order.window * self.index.sample_bytes
        self._blocks = _Blocks(self.url, self.index, self._order.window, max(cache_bytes, open_windows))
        # All reading, decoding and caching happens on this one thread, so nothing needs a lock.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lanes")
        self._ahead: dict[int, Future[ImageBatch]] = {}

    def batch(self, step: int) -> ImageBatch:
        """Return this rank's rows of global batch `step` >= 0, and begin to read the next ones.

        Raises InputError naming the shard when it is not what the index says.
        """
        wanted = range(step, step + 1 + PREFETCH_STEPS)
        for other in [other for other in self._ahead if other not in wanted]:
            self._ahead.pop(other).cancel()
        for number in wanted:
            if number not in self._ahead:
                self._ahead[number] = self._thread.submit(self._read, number)
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Stop the background thread. The reader cannot be used afterwards."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._ahead.clear()

    def _read(self, step: int) -> ImageBatch:
        images, labels, keys = [], [], []
        for lane in self._own:
            for row in range(self._order.rows_per_lane):
                shard, number = self._order.locate(step, lane, row)
                block, inside = self._blocks.find(shard, number)
                images.append(block.images[inside])
                keys.append(block.keys[inside])
                if block.labels is not None:
                    labels.append(block.labels[inside])
        return ImageBatch(np.stack(images), np.array(labels, dtype=np.int64) if self.index.labels else None, keys)


class _Blocks:
    """Decoded blocks of `size` consecutive samples of a shard, and the tars of compressed shards."""

    def __init__(self, url: str, index: ShardIndex, size: int, budget: int) -> None:
        self._url, self._index, self._size = url, index, size
        self._decoded: _ByteCache[tuple[int, int], ImageBatch] = _ByteCache(budget)
        # Apart, so that a small compressed set stays decoded in memory whatever its tars weigh.
        self._tars: _ByteCache[int, bytes] = _ByteCache(budget // 4)

    def find(self, shard: int, number: int) -> tuple[ImageBatch, int]:
        """Return the block that holds sample `number` of `shard`, and its row in the block."""
        start, inside = number - number % self._size, number % self._size
        block = self._decoded.get((shard, start))
        if block is None:
            block = self._load(shard, start)
            self._decoded.keep((shard, start), block, block.images.nbytes)
        return block, inside

    def _load(self, shard: int, start: int) -> ImageBatch:
        record = self._index.shards[shard]
        stop = min(start + self._size, record.count)
        if record.name.endswith(".tar"):
            block = read_shard(self._url, record, start, stop, form=self._index.form)
        else:
            source = storage.join(self._url, record.name)
            tar = cut_tar(self._tar(shard), record, start, stop)
            block = decode_samples(parse_tar(tar, source=source), source=source, form=self._index.form)
        if block.images.shape != (stop - start, *self._index.image_shape):
            raise InputError(
                f"shard {storage.join(self._url, record.name)} is not the one that was indexed; "
                f"run `gebm data index {self._url}`"
            )
        return block

    def _tar(self, shard: int) -> bytes:
        tar = self._tars.get(shard)
        if tar is None:
            tar = shard_tar(self._url, self._index.shards[shard])
            self._tars.keep(shard, tar, len(tar))
        return tar


class _ByteCache(Generic[Key, Value]):
    """The most recently used values, up to a number of bytes; always at least the newest one."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._held: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self._bytes = 0

    def get(self, key: Key) -> Value | None:
        if key not in self._held:
            return None
        self._held.move_to_end(key)
        return self._held[key][0]

    def keep(self, key: Key, value: Value, size: int) -> None:
        self._held[key] = value, size
        self._bytes += size
        while self._bytes > self._budget and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1][1]


def _permutation(seed: int, size: int) -> np.ndarray:
    """Return a permutation, the same for every version of numpy: there only raw bit streams are fixed."""
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable")


def _keep_newest(held: OrderedDict, count: int) -> None:
    while len(held) > count:
        held.popitem(last=False)
