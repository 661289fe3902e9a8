"""One worker's part of the training data, read ahead: the lanes that it owns of every global batch.

Rank k of W owns lanes k, k + W, ... of `LaneOrder`. No rank waits for another.
"""

import os
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.blocks import FETCHERS, BlockCache, BlockReader, decoders_for
from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.lane_order import LaneOrder
from gebm.cluster.vectors import VECTOR_TYPE

CACHE_BYTES = 256 << 20
"""Decoded samples that a worker holds."""
BATCHES_AHEAD = 2
ROWS_AT_ONCE = 2048
"""Rows whose places are computed together."""


class LaneBatch(NamedTuple):
    """A worker's rows of a global batch."""

    images: np.ndarray
    """uint8 (n, channels, height, width); of a set of vectors float32 (n, d)"""
    labels: np.ndarray | None
    """int64 (n,), None for a set without labels"""


class LaneReader:
    """One rank's part of the global batches of a shard set, at random access by step.

    `rows`, int64 (n,), are the rows of the global batch that this rank holds, in the order of its own
    batches, so that `z_global[rows]` are the latents that go with them. Decoded blocks are kept, the least
    recently used dropped beyond `cache_bytes` (or what the open windows need, if that is more); those of the
    next windows are read ahead by a few threads, `decoders` of which decode (None: as many as are fastest). A set
    that fits is read once. For a larger one use plain .tar shards: a .tar.gz is decompressed from its beginning
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
        cache_bytes: int = CACHE_BYTES,
        decoders: int | None = None,
    ) -> None:
        self.url = storage.absolute(url)
        self.index = index = load_index(self.url)
        self._order = LaneOrder(index, seed=seed, batch_size=batch_size, lanes=lanes)
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
        self._size = self._order.window
        budget = max(cache_bytes, 3 * len(self._own) * self._size * index.sample_bytes)
        # Tars apart from the budget, so that a small compressed set stays decoded in memory whatever they weigh.
        decoders = decoders or decoders_for(index, os.cpu_count() or 1)
        self._reader = BlockReader(self.url, index, size=self._size, tar_bytes=budget // 4, decoders=decoders)
        self._blocks = BlockCache(self._reader, budget=budget, threads=max(FETCHERS, decoders))
        # Blocks are asked for and batches put together on this one thread, so nothing of that needs a lock.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lanes")
        self._ahead: dict[int, Future[LaneBatch]] = {}
        self._places: OrderedDict[int, tuple[np.ndarray, np.ndarray]] = OrderedDict()
        # Far enough to read the next window of every lane while this one is used.
        window = min(self._size, -(-index.total // self._order.lanes))
        self._horizon = -(-window // per_lane)
        self._next = self._asked = 0

    def batch(self, step: int) -> LaneBatch:
        """Return this rank's rows of global batch `step` >= 0, and begin to read the next ones.

        Raises InputError naming the shard when it is not what the index says.
        """
        wanted = range(step, step + 1 + BATCHES_AHEAD)
        for other in [other for other in self._ahead if other not in wanted]:
            self._ahead.pop(other).cancel()
        for number in wanted:
            if number not in self._ahead:
                self._ahead[number] = self._thread.submit(self._read, number)
        return self._ahead.pop(step).result()

    def close(self) -> None:
        """Stop the background threads. The reader cannot be used afterwards."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._blocks.close()
        self._ahead.clear()

    def _read(self, step: int) -> LaneBatch:
        self._ask_ahead(step)
        blocks, insides = self._places_of(step)
        # Row by row: two rows rarely stand in one block, and finding those that do takes longer than it saves.
        held = {block: self._blocks.get(block) for block in set(blocks)}
        type_ = VECTOR_TYPE if self.index.holds_vectors else np.uint8
        images = np.empty((len(blocks), *self.index.image_shape), type_)
        labels = np.empty(len(blocks), np.int64)
        for row, (block, inside) in enumerate(zip(blocks, insides, strict=True)):
            images[row], labels[row] = held[block].images[inside], held[block].labels[inside]
        return LaneBatch(images, labels if self.index.labels else None)

    def _ask_ahead(self, step: int) -> None:
        """Ask for the blocks of `step`, and of as many steps of the next windows as there is room for."""
        if step != self._next:
            self._blocks.change_plans()
            self._asked = step
        self._next = step + 1
        self._asked = max(self._asked, step)
        while self._asked <= step + self._horizon:
            blocks, _ = self._places_of(self._asked)
            if not all(self._blocks.ask(block, step=self._asked, now=step) for block in dict.fromkeys(blocks)):
                break
            self._asked += 1

    def _places_of(self, step: int) -> tuple[list[int], list[int]]:
        """Return the block of each of this rank's rows of a global batch, and its place in the block."""
        steps = max(1, ROWS_AT_ONCE // len(self.rows))
        chunk, row = divmod(step, steps)
        if chunk not in self._places:
            shards, numbers = self._order.batches(chunk * steps, steps, self._own)
            self._places[chunk] = self._reader.number_of(shards, numbers), numbers % self._size
            if len(self._places) > 2:  # that of the current step and that of those asked for ahead
                self._places.popitem(last=False)
        self._places.move_to_end(chunk)
        blocks, insides = self._places[chunk]
        return blocks[row].tolist(), insides[row].tolist()
