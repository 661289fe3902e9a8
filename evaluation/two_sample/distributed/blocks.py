"""Rows of a shuffled sample in groups of blocks: what a work item takes of it, ready for tiles.

A group is what one item works on, against itself or another; a block is a side of a tile. Both sizes are part of the
test: they decide how sums round.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch

from gebm.evaluation.two_sample.distributed.table import FeatureTable, Points
from gebm.evaluation.two_sample.distributed.tile_kernel import TileKernel

TILE_ROWS = 1024
GPU_TILE_ROWS = 8192
ITEM_WORK = 4e11  # floating-point operations: some seconds of one core
GPU_ITEM_WORK = 1e14
MOST_BLOCKS = 16  # in a group
KEPT_GROUPS = 2

T = TypeVar("T")


class Tiling(NamedTuple):
    """Rows in a block, and in a group: a multiple of it."""

    block: int
    group: int

    def groups(self, count: int) -> list[range]:
        """The groups of `count` rows; the last one may be smaller."""
        return [range(start, min(start + self.group, count)) for start in range(0, count, self.group)]

    def blocks(self, group: range) -> list[range]:
        """The blocks of a group."""
        return [
            range(start, min(start + self.block, group.stop)) for start in range(group.start, group.stop, self.block)
        ]


def choose_tiling(work_per_entry: float, on_gpu: bool = False) -> Tiling:
    """Blocks for the matrix rate, and groups for items of some seconds.

    work_per_entry: floating-point operations for an entry of the matrix of pairs.
    """
    block, work = (GPU_TILE_ROWS, GPU_ITEM_WORK) if on_gpu else (TILE_ROWS, ITEM_WORK)
    rows = (work / work_per_entry) ** 0.5
    return Tiling(block, block * min(MOST_BLOCKS, max(1, round(rows / block))))


@dataclass(frozen=True)
class Ground:
    """What all items of a test share.

    Attributes:
        tables: the samples.
        centre: `(d,)` float64, taken off all rows; None for a kernel that is not translation invariant.
        kernel: with its bandwidth.
        tiling: of the shuffled rows.
        seed: of the shuffle and the labellings.
    """

    tables: tuple[FeatureTable, ...]
    centre: np.ndarray | None
    kernel: TileKernel
    tiling: Tiling
    seed: int

    def describe(self) -> dict[str, Any]:
        """JSON-able: what the items' results depend on."""
        return {
            "samples": [{"rows": len(table), "digest": table.digest} for table in self.tables],
            "kernel": self.kernel.describe(),
            "tiling": list(self.tiling),
            "seed": self.seed,
        }

    def open(self, device: str) -> "Rows":
        """For one process."""
        return Rows(Points(self.tables, self.centre), self.kernel, device)


class Rows:
    """The samples' rows, made ready by the kernel."""

    def __init__(self, points: Points, kernel: TileKernel, device: str) -> None:
        self._points, self._kernel, self._device = points, kernel, device

    def ready(self, index: np.ndarray) -> Any:
        """Rows `index` of the stacked samples."""
        return self._kernel.prepare(self._points.rows(index).to(self._device))


class Recent:
    """What `make` gives for the last few groups asked for, by number: items that follow each other share one."""

    def __init__(self, make: Callable[[int], T]) -> None:
        self._make = make
        self._kept: OrderedDict[int, T] = OrderedDict()

    def __call__(self, group: int) -> Any:
        if group not in self._kept:
            while len(self._kept) >= KEPT_GROUPS:
                self._kept.popitem(last=False)
            self._kept[group] = self._make(group)
        self._kept.move_to_end(group)
        return self._kept[group]


def on_pairs(make: Callable[[int], T], sums: Callable[[T, T], np.ndarray]) -> Callable[[tuple[int, ...]], np.ndarray]:
    """What does an item: `sums` of what `make` gives for the two groups of its key; one object where they are one."""
    recent = Recent(make)

    def work(key: tuple[int, ...]) -> np.ndarray:
        first, second = map(recent, key)
        return sums(first, second)

    return work


def upper_pairs(groups: int) -> list[tuple[int, ...]]:
    """Pairs of groups `(i, j)`, i <= j, row by row: a symmetric tile is made once."""
    return [(i, j) for i in range(groups) for j in range(i, groups)]


def zeros(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.float64)
