"""Block designs: the entries of the pair matrix H that block, linear-time and incomplete statistics use.

The design of `blocks` blocks of `block` pairs and a reach R holds the tiles `(i, i + r)`, r = 0..R, in a circle:
every pair meets equally many others. R = 0 is the block test, a block of 2 the linear-time one, and the largest R
nearly the complete paired form. Small blocks go through together, so that no loop runs over blocks.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.kernels import AnyKernel
from gebm.evaluation.two_sample.samples import Rows
from gebm.evaluation.two_sample.tiles import kernel_tile

TILE_ENTRIES = 2**20  # kernel values at a time
CHUNK_NUMBERS = 2**23  # other numbers at a time: points, products with signs


class Design(NamedTuple):
    """Entries of H: tiles `(i, (i + r) mod blocks)`, r = 0..reach, of blocks of `block` pairs."""

    block: int
    blocks: int
    reach: int

    @property
    def pairs(self) -> int:
        """How many pairs `(x_i, y_i)` it uses."""
        return self.block * self.blocks

    @property
    def entries(self) -> int:
        """Ordered pairs `i ≠ j`."""
        return self.pairs * (self.block - 1 + 2 * self.reach * self.block)


class Signs:
    """P random sign vectors of n pairs, one of which is the true one; a bit each in memory."""

    def __init__(self, true: torch.Tensor, permutations: int, rng: np.random.Generator) -> None:
        self.count = permutations + 1
        # A matrix product may round differently in different columns, so the true signs take a random one.
        self.position = int(rng.integers(self.count))
        self._true = true.cpu().numpy() > 0
        self._bits = rng.integers(0, 256, size=(len(true), -(-self.count // 8)), dtype=np.uint8)

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """`(stop - start, P + 1)` uint8, 1 for a sign of +1 and 0 for -1."""
        signs = np.unpackbits(self._bits[start:stop], axis=1, count=self.count)
        signs[:, self.position] = self._true[start:stop]
        return torch.from_numpy(signs)


class BlockTiles(NamedTuple):
    """H on the tiles `(i, (i + offset) mod blocks)` of consecutive blocks i.

    Attributes:
        first: the first i.
        offset: r.
        values: `(tiles, block, block)`; on the diagonal of H zero.
        magnitude: about `Σ |k|`, the scale of rounding errors.
    """

    first: int
    offset: int
    values: torch.Tensor
    magnitude: torch.Tensor


def design_forms(
    first: Rows, second: Rows, kernel: AnyKernel, design: Design, signs: Signs
) -> tuple[torch.Tensor, float]:
    """`Σ eps_i eps_j H_ij` over the ordered pairs `i ≠ j` of the design for each sign vector, `(P + 1,)` float64, and
    about `Σ |k|`. Arguments as for `tiles.signed_sums`."""
    device, b = first.points.device, design.block
    forms = torch.zeros(signs.count, dtype=torch.float64, device=device)
    magnitude = torch.zeros((), dtype=torch.float64, device=device)

    def of_blocks(start: int, count: int) -> torch.Tensor:
        """±1 of `count` blocks from block `start` on, in a circle: `(count, b, P + 1)`."""
        stop = min(start + count, design.blocks)
        bits = [signs.rows(start * b, stop * b), signs.rows(0, (start + count - stop) * b)]
        values = torch.cat(bits).to(device, first.precision).mul_(2.0).sub_(1.0)
        return values.view(count, b, signs.count)

    for tiles in block_tiles(first, second, kernel, design, columns=signs.count):
        count = len(tiles.values)
        rows = of_blocks(tiles.first, count)
        columns = rows if tiles.offset == 0 else of_blocks((tiles.first + tiles.offset) % design.blocks, count)
        weight = 1.0 if tiles.offset == 0 else 2.0  # a tile off the diagonal stands for its mirror image too
        products = (tiles.values @ columns).mul_(rows)
        forms += weight * products.sum((0, 1), dtype=torch.float64)
        magnitude += weight * tiles.magnitude
    return forms, float(magnitude)


def block_values(
    first: Rows, second: Rows, kernel: AnyKernel, design: Design, true_signs: torch.Tensor
) -> tuple[torch.Tensor, float]:
    """The paired form within each block, `(blocks,)` float64, and about `Σ |k|`."""
    signs = true_signs[: design.pairs].to(first.points.device, first.precision).view(design.blocks, design.block, 1)
    values, magnitude = [], 0.0
    for tiles in block_tiles(first, second, kernel, design._replace(reach=0), columns=1):
        own = signs[tiles.first : tiles.first + len(tiles.values)]
        values.append((tiles.values @ own).mul_(own).sum((1, 2), dtype=torch.float64))
        magnitude += float(tiles.magnitude)
    return torch.cat(values) / (design.block * (design.block - 1)), magnitude


def block_tiles(
    first: Rows, second: Rows, kernel: AnyKernel, design: Design, columns: int, firsts: int | None = None
) -> Iterator[BlockTiles]:
    """The design's tiles, many small ones at a time; `columns` is what each will be multiplied by. With `firsts`, those
    of the first so many i alone."""
    b, dimension = design.block, first.points.shape[1]
    u, v = first.blocks(b), second.blocks(b)
    chunk = max(1, min(TILE_ENTRIES // b**2, CHUNK_NUMBERS // (b * max(columns, dimension))))
    device, count = first.points.device, design.blocks if firsts is None else firsts
    for offset in range(design.reach + 1):
        for start in range(0, count, chunk):
            stop = min(start + chunk, count)
            u_rows, v_rows = u.take(slice(start, stop)), v.take(slice(start, stop))
            u_columns, v_columns = u_rows, v_rows
            if offset:
                index = (torch.arange(start, stop, device=device) + offset) % design.blocks
                u_columns, v_columns = u.select(index), v.select(index)
            same = kernel_tile(u_rows, u_columns, kernel).add_(kernel_tile(v_rows, v_columns, kernel))
            cross = kernel_tile(u_rows, v_columns, kernel).add_(kernel_tile(v_rows, u_columns, kernel))
            sums = torch.stack([same.sum(2), cross.sum(2)])
            values = same.sub_(cross)
            if offset == 0:
                values.diagonal(dim1=1, dim2=2).zero_()
            yield BlockTiles(start, offset, values, sums.abs().sum(dtype=torch.float64))
