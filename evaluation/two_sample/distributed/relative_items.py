"""Items of the relative test: sums over rows of the kernels between data and the members of pairs, for one pair of
groups of triples `(x_i, u_i, v_i)`."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.distributed.blocks import Ground, on_pairs, upper_pairs, zeros
from gebm.evaluation.two_sample.distributed.orders import Order, triple_order
from gebm.evaluation.two_sample.distributed.tile_kernel import TileKernel
from gebm.evaluation.two_sample.relative import RowSums, row_sums_of_weighted

SYMMETRIC = ("uu", "vv")
CROSS = (("u", "v"), ("x", "u"), ("x", "v"))
KINDS = ("uu", "vv", "uv", "vu", "xu", "xv", "ux", "vx")


class Triples(NamedTuple):
    """A group of triples: blocks of each member by its name, and `(rows, 2)` weights of each block."""

    members: dict[str, list[Any]]
    weights: list[torch.Tensor]


@dataclass(frozen=True)
class RelativeTask:
    """The relative test of data, model and base, the three tables."""

    ground: Ground

    @property
    def count(self) -> int:
        """n, triples."""
        return len(self.ground.tables[0])

    def keys(self) -> list[tuple[int, ...]]:
        return upper_pairs(len(self.ground.tiling.groups(self.count)))

    def describe(self) -> dict[str, Any]:
        return {"items": "relative", **self.ground.describe()}

    def order(self) -> Order:
        """The shuffle of the triples."""
        return triple_order(self.count, self.ground.seed)

    def open(self, device: str) -> Callable[[tuple[int, ...]], np.ndarray]:
        kernel, tiling = self.ground.kernel, self.ground.tiling
        order, heads, _, _ = self.order()
        rows, groups = self.ground.open(device), tiling.groups(self.count)
        both = [torch.ones(self.count), torch.from_numpy(heads).to(torch.float32)]
        weights = torch.stack(both, 1).to(device, kernel.precision)

        def make(group: int) -> Triples:
            blocks = tiling.blocks(groups[group])
            members = {
                name: [rows.ready(order[first::3][block.start : block.stop]) for block in blocks]
                for first, name in enumerate("xuv")
            }
            return Triples(members, [weights[block.start : block.stop] for block in blocks])

        return on_pairs(make, partial(sums_of_groups, kernel))

    def merge(self, results: Iterable[np.ndarray]) -> RowSums:
        groups = self.ground.tiling.groups(self.count)
        total = zeros(len(KINDS), self.count, 2)
        for key, result in zip(self.keys(), results, strict=True):
            begin = 0
            for number in dict.fromkeys(key):
                size = len(KINDS) * len(groups[number]) * 2
                part = torch.from_numpy(result[begin : begin + size]).view(len(KINDS), -1, 2)
                total[:, groups[number].start : groups[number].stop] += part
                begin += size
        return row_sums_of_weighted(**dict(zip(KINDS, total, strict=True)))


def sums_of_groups(kernel: TileKernel, first: Triples, second: Triples) -> np.ndarray:
    """For each of KINDS, `ab`, `Σ_j k(a_i, b_j) w_j` over the `j ≠ i` of the other group, for each i and both weights:
    `(8, rows, 2)` of the first group and, unless it is the second (the same object), of the second; laid flat, float64.
    """
    same = first is second
    lengths = [[len(weights) for weights in group.weights] for group in (first, second)]
    device = first.weights[0].device
    of_first = {kind: [zeros(rows, 2).to(device) for rows in lengths[0]] for kind in KINDS}
    of_second = of_first if same else {kind: [zeros(rows, 2).to(device) for rows in lengths[1]] for kind in KINDS}

    def add(a: str, b: str, left: tuple[Triples, int, Any], right: tuple[Triples, int, Any], diagonal: bool) -> None:
        """Both sums of one tile; of one on the diagonal of a symmetric kernel the second is the first."""
        (rows, i, of_rows), (columns, j, of_columns) = left, right
        tile = kernel.tile(rows.members[a][i], columns.members[b][j])
        if diagonal:
            tile.fill_diagonal_(0.0)
        of_rows[a + b][i] += (tile @ columns.weights[j]).to(torch.float64)
        if a != b or not diagonal:
            of_columns[b + a][j] += (tile.T @ rows.weights[i]).to(torch.float64)

    for i in range(len(lengths[0])):
        for j in range(i if same else 0, len(lengths[1])):
            diagonal = same and i == j
            left, right = (first, i, of_first), (second, j, of_second)
            for kind in SYMMETRIC:
                add(kind[0], kind[1], left, right, diagonal)
            for a, b in CROSS:
                add(a, b, left, right, diagonal)
                if not diagonal:
                    add(a, b, right, left, diagonal)
    parts = [of_first] if same else [of_first, of_second]
    flat = [torch.cat([torch.cat(part[kind]) for kind in KINDS]).flatten() for part in parts]
    return torch.cat(flat).cpu().numpy()
