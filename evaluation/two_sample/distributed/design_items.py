"""Items of block designs: block, linear-time and incomplete statistics over a range of their blocks.

`designs.design_forms` and `designs.block_values`, cut into pieces that can be computed anywhere and are put together in
one order.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.designs import BlockTiles, Design, Signs, block_tiles
from gebm.evaluation.two_sample.distributed.blocks import Ground, zeros
from gebm.evaluation.two_sample.distributed.orders import Order, pair_order
from gebm.evaluation.two_sample.distributed.tile_kernel import PlainKernel, TileKernel
from gebm.evaluation.two_sample.samples import Rows

MOST_ITEM_BLOCKS = 2**16


class FormResult(NamedTuple):
    """`Σ eps_i eps_j H_ij` over the design for all signs, and about `Σ |k|`."""

    forms: torch.Tensor
    magnitude: float


class ValueResult(NamedTuple):
    """The paired form within each block, and about `Σ |k|`."""

    values: torch.Tensor
    magnitude: float


@dataclass(frozen=True)
class DesignTask:
    """A test of a block design by sign flips.

    Attributes:
        ground: its tiling's group says how many pairs an item takes.
        design: of the pairs in the shuffled order.
        permutations: random sign vectors.
    """

    ground: Ground
    design: Design
    permutations: int

    def ranges(self) -> list[range]:
        """The blocks of each item."""
        step = max(1, min(MOST_ITEM_BLOCKS, self.ground.tiling.group // self.design.block))
        return [range(start, min(start + step, self.design.blocks)) for start in range(0, self.design.blocks, step)]

    def keys(self) -> list[tuple[int, ...]]:
        return [(number,) for number in range(len(self.ranges()))]

    def describe(self) -> dict[str, Any]:
        items = {"items": "design", "permutations": self.permutations, "design": list(self.design)}
        return {**items, **self.ground.describe()}

    def order(self) -> Order:
        """The shuffle of the pairs, of which the design uses the first."""
        return pair_order(len(self.ground.tables[0]), self.ground.seed)

    def signs(self) -> Signs:
        """All sign vectors."""
        order = self.order()
        return Signs(_as_signs(order.truth[: self.design.pairs]), self.permutations, order.rng)

    def open(self, device: str) -> Callable[[tuple[int, ...]], np.ndarray]:
        signs, read, ranges = self.signs(), _reader(self.ground, self.design, self.order().rows, device), self.ranges()
        kernel, b = self.ground.kernel, self.design.block

        def work(key: tuple[int, ...]) -> np.ndarray:
            blocks = ranges[key[0]]
            around = _circle(blocks, self.design)
            bits = torch.cat([signs.rows(i * b, (i + 1) * b) for i in around])
            eps = bits.to(device).to(kernel.products).mul_(2.0).sub_(1.0).view(len(around), b, signs.count)
            forms, magnitude = zeros(signs.count).to(device), zeros(1).to(device)
            design = Design(b, len(around), self.design.reach)
            for tiles in _tiles(kernel, *read(around), design, len(blocks), signs.count):
                rows = eps[tiles.first : tiles.first + len(tiles.values)]
                columns = eps[tiles.first + tiles.offset : tiles.first + tiles.offset + len(tiles.values)]
                weight = 1.0 if tiles.offset == 0 else 2.0
                products = (tiles.values.to(kernel.products) @ columns).mul_(rows)
                forms += weight * products.sum((0, 1), dtype=torch.float64)
                magnitude += weight * tiles.magnitude
            return torch.cat([forms, magnitude]).cpu().numpy()

        return work

    def merge(self, results: Iterable[np.ndarray]) -> FormResult:
        total = np.zeros(self.permutations + 2)
        for result in results:
            total += result
        return FormResult(torch.from_numpy(total[:-1]), float(total[-1]))


@dataclass(frozen=True)
class BlockTask:
    """The paired form within each block, for the normal null: no signs but the true ones."""

    ground: Ground
    design: Design

    def _flips(self) -> DesignTask:
        return DesignTask(self.ground, self.design, 0)

    def keys(self) -> list[tuple[int, ...]]:
        return self._flips().keys()

    def describe(self) -> dict[str, Any]:
        return {**self._flips().describe(), "items": "blocks"}

    def open(self, device: str) -> Callable[[tuple[int, ...]], np.ndarray]:
        order, ranges, b = self._flips().order(), self._flips().ranges(), self.design.block
        read, true = _reader(self.ground, self.design, order.rows, device), _as_signs(order.truth)
        kernel = self.ground.kernel

        def work(key: tuple[int, ...]) -> np.ndarray:
            blocks = ranges[key[0]]
            eps = true[blocks.start * b : blocks.stop * b].to(device, kernel.precision).view(len(blocks), b, 1)
            values, magnitude = [], zeros(1).to(device)
            design = Design(b, len(blocks), 0)
            for tiles in _tiles(kernel, *read(list(blocks)), design, len(blocks), 1):
                own = eps[tiles.first : tiles.first + len(tiles.values)]
                values.append((tiles.values @ own).mul_(own).sum((1, 2), dtype=torch.float64) / (b * (b - 1)))
                magnitude += tiles.magnitude
            return torch.cat([*values, magnitude]).cpu().numpy()

        return work

    def merge(self, results: Iterable[np.ndarray]) -> ValueResult:
        values, magnitude = [], 0.0
        for result in results:
            values.append(torch.from_numpy(result[:-1]))
            magnitude += float(result[-1])
        return ValueResult(torch.cat(values), magnitude)


def _as_signs(truth: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.where(truth, 1, -1).astype(np.int8))


def _circle(blocks: range, design: Design) -> list[int]:
    """The blocks, and those after them that they are compared with."""
    return [i % design.blocks for i in range(blocks.start, blocks.stop + design.reach)]


def _reader(ground: Ground, design: Design, order: np.ndarray, device: str) -> Callable[[list[int]], tuple[Any, Any]]:
    """`read(blocks)`: both members of the pairs of these blocks, ready: together, or block by block where the kernel is
    of a kind of its own."""
    rows, b = ground.open(device), design.block
    first, second = order[0::2], order[1::2]

    def read(blocks: list[int]) -> tuple[Any, Any]:
        index = [np.arange(i * b, (i + 1) * b) for i in blocks]
        if isinstance(ground.kernel, PlainKernel):
            together = np.concatenate(index)
            return rows.ready(first[together]), rows.ready(second[together])
        return [rows.ready(first[some]) for some in index], [rows.ready(second[some]) for some in index]

    return read


def _tiles(
    kernel: TileKernel, first: Any, second: Any, design: Design, firsts: int, columns: int
) -> Iterator[BlockTiles]:
    """H on the tiles `(i, i + r)` for the first so many i."""
    if isinstance(kernel, PlainKernel):
        assert isinstance(first, Rows) and isinstance(second, Rows)
        yield from block_tiles(first, second, kernel.kernel, design, columns, firsts)
        return
    for offset in range(design.reach + 1):
        for i in range(firsts):
            j = i + offset
            same = kernel.tile(first[i], first[j]).add_(kernel.tile(second[i], second[j]))
            cross = kernel.tile(first[i], second[j]).add_(kernel.tile(second[i], first[j]))
            sums = torch.stack([same.sum(1), cross.sum(1)])
            values = same.sub_(cross)
            if offset == 0:
                values.fill_diagonal_(0.0)
            yield BlockTiles(i, offset, values[None], sums.abs().sum(dtype=torch.float64))
