"""Blocks of decoded samples, read and decoded by threads ahead of their use, within a budget of memory."""

import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import ShardIndex
from gebm.cluster.reader import decode_samples, read_samples, shard_tar

FETCHERS = 4
"""Threads that read blocks, decoding included: on an object store most of their time is waiting."""
MOST_DECODERS = 4
LARGE_FILE, LARGE_IMAGE = 6_000, 96 * 96 * 3
"""Bytes of a stored and of a decoded image from which on several threads decode faster than one."""


class Block(NamedTuple):
    """Consecutive samples of a shard: images or vectors (n, ...), and labels int64 (n,), zeros where there are none."""

    images: np.ndarray
    labels: np.ndarray


@dataclass
class _Held:
    block: Future[Block]
    bytes: int
    until: int
    """The last step that is known to need it."""


class BlockCache:
    """Blocks that were asked for: being read, or there. One thread may use it; the reading is done by others.

    A block stays until those asked for later need its room: at most `budget` bytes are held, those being read
    counted, except when the current step alone needs more.
    """

    def __init__(self, reader: "BlockReader", *, budget: int, threads: int = FETCHERS) -> None:
        self._reader, self._budget = reader, budget
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="decode")
        # Least recently asked for first, which are those that are needed no more, or soonest.
        self._held: OrderedDict[int, _Held] = OrderedDict()
        self._bytes = 0

    def ask(self, number: int, *, step: int, now: int) -> bool:
        """Have a block read for `step`, while step `now` <= `step` is at work; say False when there is no room yet."""
        held = self._held.get(number)
        if held is None:
            size = self._reader.bytes_of(number)
            if not self._make_room(size, now) and step > now:
                return False
            held = self._held[number] = _Held(self._threads.submit(self._reader.read, number), size, step)
            self._bytes += size
        held.until = max(held.until, step)
        self._held.move_to_end(number)
        return True

    def get(self, number: int) -> Block:
        """Return a block that was asked for, when it is there. Raises what its reading raised."""
        try:
            return self._held[number].block.result()
        except BaseException:
            self._drop(number)  # asked for again, it is read again
            raise

    def change_plans(self) -> None:
        """Forget which steps need what, and what could not be read: other steps than those asked for come next."""
        for number, held in list(self._held.items()):
            held.until = -1
            if held.block.cancel() or (held.block.done() and held.block.exception() is not None):
                self._drop(number)

    def close(self) -> None:
        """Stop the threads. Nothing can be asked for afterwards."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _make_room(self, size: int, now: int) -> bool:
        while self._bytes + size > self._budget:
            oldest = next(iter(self._held), None)
            if oldest is None or self._held[oldest].until >= now:
                return False
            self._drop(oldest)
        return True

    def _drop(self, number: int) -> None:
        held = self._held.pop(number)
        held.block.cancel()
        self._bytes -= held.bytes


class BlockReader:
    """Reads the blocks of a set, each of at most `size` samples of one shard, numbered through all shards.

    Of a plain .tar it reads the block's bytes; a .tar.gz it decompresses, and keeps the newest up to `tar_bytes`.
    Several threads may use it, of which `decoders` at a time decode and the others fetch.
    """

    def __init__(self, url: str, index: ShardIndex, *, size: int, tar_bytes: int, decoders: int) -> None:
        self._url, self._index, self._size = url, index, size
        self._decoders = threading.Semaphore(decoders)
        self._tars = _Tars(url, index, tar_bytes)
        blocks = -(-np.array([record.count for record in index.shards], np.int64) // size)
        self._first = np.cumsum(blocks) - blocks

    def number_of(self, shards: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Return the numbers, int64 like `shards`, of the blocks that hold samples `numbers` of `shards`."""
        return self._first[shards] + numbers // self._size

    def bytes_of(self, number: int) -> int:
        """Return the bytes of a decoded block."""
        _, start, stop = self._bounds(number)
        return (stop - start) * self._index.sample_bytes

    def read(self, number: int) -> Block:
        """Read and decode a block. Raises InputError naming the shard when it is not what the index says."""
        shard, start, stop = self._bounds(number)
        record = self._index.shards[shard]
        tar = None if record.name.endswith(".tar") else self._tars.get(shard)
        source = storage.join(self._url, record.name)
        samples = read_samples(self._url, record, start, stop, tar)
        with self._decoders:
            batch = decode_samples(samples, source=source, form=self._index.form)
        if batch.images.shape[1:] != self._index.image_shape or (batch.labels is not None) != self._index.labels:
            raise InputError(f"shard {source} is not the one that was indexed; run `gebm data index {self._url}`")
        labels = np.zeros(stop - start, np.int64) if batch.labels is None else batch.labels
        return Block(batch.images, labels)

    def _bounds(self, number: int) -> tuple[int, int, int]:
        """Return the shard of a block, and its first sample in it and the one after its last."""
        shard = int(np.searchsorted(self._first, number, side="right")) - 1
        start = (number - int(self._first[shard])) * self._size
        return shard, start, min(start + self._size, self._index.shards[shard].count)


def decoders_for(index: ShardIndex, processors: int) -> int:
    """Return how many threads should decode the images of a set at a time.

    Of a small image half the time is spent holding Python's lock: two threads are then slower than one, by a third
    for 32x32 pixels. From about 96x96 on, or 6 kB a file, they are faster, and soon nearly twice as fast.
    """
    stored = sum(record.bytes for record in index.shards) // index.total
    large = not index.holds_vectors and (stored >= LARGE_FILE or index.sample_bytes >= LARGE_IMAGE)
    return max(1, min(MOST_DECODERS, processors)) if large else 1


class _Tars:
    """Uncompressed tars, the most recently used up to a number of bytes; at least the newest."""

    def __init__(self, url: str, index: ShardIndex, budget: int) -> None:
        self._url, self._index, self._budget = url, index, budget
        self._held: OrderedDict[int, bytes] = OrderedDict()
        self._lock = threading.Lock()  # held while decompressing too: blocks of one shard are asked for together

    def get(self, shard: int) -> bytes:
        with self._lock:
            if shard not in self._held:
                self._held[shard] = shard_tar(self._url, self._index.shards[shard])
                while sum(map(len, self._held.values())) > self._budget and len(self._held) > 1:
                    self._held.popitem(last=False)
            self._held.move_to_end(shard)
            return self._held[shard]
