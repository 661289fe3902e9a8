"""Items of the bins test: kernel sums within and between the bins of two groups, each kernel value used once.

`nulls.bins.bin_sums`, cut into pieces that can be computed anywhere and are added in one order.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.distributed.blocks import Ground, on_pairs, upper_pairs, zeros
from gebm.evaluation.two_sample.distributed.orders import Order, bin_order
from gebm.evaluation.two_sample.distributed.tile_kernel import TileKernel
from gebm.evaluation.two_sample.nulls.bins import BinBlock, BinSums, blocks_of_bins


class Binned(NamedTuple):
    """A group: its blocks, and their rows."""

    blocks: list[BinBlock]
    rows: list[Any]

    @property
    def span(self) -> slice:
        """The bins that it holds, or parts of which it holds."""
        return slice(self.blocks[0].span.start, self.blocks[-1].span.stop)


class BinResult(NamedTuple):
    """Sums within and between bins, and `Σ k(z, z)` of each bin."""

    sums: BinSums
    own: torch.Tensor


@dataclass(frozen=True)
class BinTask:
    """A test by bins of `size` points."""

    ground: Ground
    size: int

    @property
    def counts(self) -> tuple[int, int]:
        """Bins of the two samples."""
        first, second = (len(table) // self.size for table in self.ground.tables)
        return first, second

    @property
    def count(self) -> int:
        """Points in all bins."""
        return sum(self.counts) * self.size

    def groups(self) -> list[list[BinBlock]]:
        blocks = blocks_of_bins(sum(self.counts), self.size, self.ground.tiling.block)
        step = max(1, self.ground.tiling.group // max(len(range(*block.rows.indices(self.count))) for block in blocks))
        return [blocks[start : start + step] for start in range(0, len(blocks), step)]

    def keys(self) -> list[tuple[int, ...]]:
        return upper_pairs(len(self.groups()))

    def describe(self) -> dict[str, Any]:
        return {"items": "bins", "size": self.size, **self.ground.describe()}

    def order(self) -> Order:
        """The shuffle of the bins."""
        first, second = self.ground.tables
        return bin_order(len(first), len(second), self.size, self.ground.seed)

    def open(self, device: str) -> Callable[[tuple[int, ...]], np.ndarray]:
        kernel, order, rows, groups = self.ground.kernel, self.order().rows, self.ground.open(device), self.groups()

        def make(group: int) -> Binned:
            blocks = groups[group]
            return Binned(blocks, [rows.ready(order[block.rows]) for block in blocks])

        return on_pairs(make, partial(sums_of_groups, kernel, size=self.size))

    def merge(self, results: Iterable[np.ndarray]) -> BinResult:
        bins, groups = sum(self.counts), self.groups()
        matrix, own, magnitude = zeros(bins, bins), zeros(bins), 0.0
        for (i, j), result in zip(self.keys(), results, strict=True):
            rows, columns = (Binned(groups[number], []).span for number in (i, j))
            shape = rows.stop - rows.start, columns.stop - columns.start
            values = torch.from_numpy(result[: shape[0] * shape[1]]).view(shape)
            matrix[rows, columns] += values
            if i != j:
                matrix[columns, rows] += values.T
            own[rows] += torch.from_numpy(result[shape[0] * shape[1] : -1])
            magnitude += float(result[-1])
        return BinResult(BinSums(matrix, magnitude, math.nan), own)


def sums_of_groups(kernel: TileKernel, first: Binned, second: Binned, size: int) -> np.ndarray:
    """The `(bins of first, bins of second)` matrix of sums of k over different points, laid flat; `Σ k(z, z)` of each
    bin of the first if it is the second (the same object), else zeros; and about `Σ |k|`; float64."""
    same = first is second
    height, width = (group.span.stop - group.span.start for group in (first, second))
    matrix, own, magnitude = zeros(height, width), zeros(height), zeros(1)
    for i, rows_i in enumerate(first.blocks):
        place_i = slice(rows_i.span.start - first.span.start, rows_i.span.stop - first.span.start)
        for j in range(i if same else 0, len(second.blocks)):
            rows_j = second.blocks[j]
            place_j = slice(rows_j.span.start - second.span.start, rows_j.span.stop - second.span.start)
            diagonal = same and i == j
            tile = kernel.tile(first.rows[i], second.rows[j])
            if diagonal:
                tile.fill_diagonal_(0.0)
            by_column_bin = tile.view(len(tile), rows_j.bins, -1).sum(2).to(torch.float64)
            sums = by_column_bin.view(rows_i.bins, -1, rows_j.bins).sum(1).cpu()
            matrix[place_i, place_j] += sums
            if same and not diagonal:
                matrix[place_j, place_i] += sums.T
            magnitude += (1.0 if diagonal else 2.0) * by_column_bin.abs().sum().cpu()
        if same:
            own[place_i] += kernel.diagonal(first.rows[i]).view(rows_i.bins, -1).sum(1).cpu()
    return torch.cat([matrix.flatten(), own, magnitude]).numpy()
