"""Items of the permutation test: sums over one pair of groups of pooled rows, for all labellings at once.

`tiles.labelled_sums`, cut into pieces that can be computed anywhere and are added in one order.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.distributed.blocks import Ground, on_pairs, upper_pairs, zeros
from gebm.evaluation.two_sample.distributed.labellings import Labellings, permuted_labels
from gebm.evaluation.two_sample.distributed.orders import Order, pooled_order
from gebm.evaluation.two_sample.distributed.tile_kernel import TileKernel
from gebm.evaluation.two_sample.tiles import LabelledSums


class Labelled(NamedTuple):
    """A group: its blocks of rows, and `(rows, P + 1)` signs of each block, 1 for a label of X and -1 for one of Y."""

    rows: list[Any]
    signs: list[torch.Tensor]


class LabelResult(NamedTuple):
    """Sums over all pairs, and `Σ k(x_i, x_i)` of every labelling and over all rows."""

    sums: LabelledSums
    own: torch.Tensor
    own_total: float


@dataclass(frozen=True)
class LabelTask:
    """A permutation test: `permutations` random labellings, or none for the true one alone."""

    ground: Ground
    permutations: int

    @property
    def count(self) -> int:
        """N, rows of both samples."""
        return sum(len(table) for table in self.ground.tables)

    def keys(self) -> list[tuple[int, ...]]:
        return upper_pairs(len(self.ground.tiling.groups(self.count)))

    def describe(self) -> dict[str, Any]:
        return {"items": "labels", "permutations": self.permutations, **self.ground.describe()}

    def order(self) -> Order:
        """The shuffle of the pooled rows."""
        first, second = self.ground.tables
        return pooled_order(len(first), len(second), self.ground.seed)

    def labellings(self) -> Labellings:
        """All labellings, of rows in the shuffled order."""
        order = self.order()
        return permuted_labels(order.truth, self.permutations, order.rng)

    def open(self, device: str) -> Callable[[tuple[int, ...]], np.ndarray]:
        kernel, tiling = self.ground.kernel, self.ground.tiling
        order, labellings, rows = self.order().rows, self.labellings(), self.ground.open(device)
        groups = tiling.groups(self.count)

        def make(group: int) -> Labelled:
            blocks = tiling.blocks(groups[group])
            ready = [rows.ready(order[block.start : block.stop]) for block in blocks]
            return Labelled(ready, [labellings.signs(block, device, kernel.products) for block in blocks])

        return on_pairs(make, partial(sums_of_groups, kernel))

    def merge(self, results: Iterable[np.ndarray]) -> LabelResult:
        """With `s = 2a - 1` and `r = K0 1`, `S_xx = aᵀ K0 a = (sᵀ K0 s - 1ᵀr) / 4 + aᵀr`."""
        width = self.permutations + 1
        total = np.zeros(3 * width + 3)
        for result in results:
            total += result
        forms, touching, own = (torch.from_numpy(part) for part in np.split(total[: 3 * width], 3))
        whole, magnitude, own_total = (float(value) for value in total[3 * width :])
        # What the shift took off: the same of every labelling, since all have n rows of X.
        n, all_rows, shift = len(self.ground.tables[0]), self.count, self.ground.kernel.shift
        forms = forms + shift * ((2 * n - all_rows) ** 2 - all_rows)
        touching = touching + shift * n * (all_rows - 1)
        whole += shift * all_rows * (all_rows - 1)
        within = 0.25 * (forms - whole) + touching
        # No test of one kernel asks for the sum of squares.
        return LabelResult(LabelledSums(within, touching, whole, magnitude, math.nan), own, own_total)


def sums_of_groups(kernel: TileKernel, first: Labelled, second: Labelled) -> np.ndarray:
    """Over the ordered pairs of different rows of two groups, or of a group with itself (then the same object):
    `sᵀ K0 s`, `aᵀ K0 1` and `Σ a_i k(z_i, z_i)` of every labelling a with signs s, then `1ᵀ K0 1`, about `Σ |K0|`, and
    `Σ k(z, z)`; float64.

    Tiles are multiplied by signs in the kernel's precision, where the small sums of signs round less than those of
    labels; what comes of a tile is added in float64.
    """
    same = first is second
    width, device = first.signs[0].shape[1], first.signs[0].device
    forms, touching, own = zeros(3, width).to(device)
    total, magnitude = zeros(2).to(device)
    row_sums = [zeros(len(signs)).to(device) for signs in first.signs]
    column_sums = row_sums if same else [zeros(len(signs)).to(device) for signs in second.signs]
    for i, (rows, row_signs) in enumerate(zip(first.rows, first.signs, strict=True)):
        for j in range(i if same else 0, len(second.rows)):
            diagonal = same and i == j
            weight = 1.0 if diagonal else 2.0  # a tile off the diagonal stands for its mirror image too
            tile = kernel.tile(rows, second.rows[j])
            if kernel.shift:
                tile.sub_(kernel.shift)
            if diagonal:
                tile.fill_diagonal_(0.0)
            by_row = tile.sum(1).to(torch.float64)
            row_sums[i] += by_row
            if not diagonal:
                column_sums[j] += tile.sum(0).to(torch.float64)
            total += weight * by_row.sum()
            magnitude += weight * by_row.abs().sum()
            products = (tile.to(kernel.products) @ second.signs[j]).mul_(row_signs)
            forms += weight * products.sum(0, dtype=torch.float64)
    for group, sums in ((first, row_sums),) if same else ((first, row_sums), (second, column_sums)):
        for some, signs in zip(sums, group.signs, strict=True):
            touching += some @ _labels(signs)
    own_total = zeros(1).to(device)
    if same:
        for rows, signs in zip(first.rows, first.signs, strict=True):
            values = kernel.diagonal(rows)
            own += values @ _labels(signs)
            own_total += values.sum()
    return torch.cat([forms, touching, own, torch.stack([total, magnitude]), own_total]).cpu().numpy()


def _labels(signs: torch.Tensor) -> torch.Tensor:
    return (signs.to(torch.float64) + 1.0).mul_(0.5)
