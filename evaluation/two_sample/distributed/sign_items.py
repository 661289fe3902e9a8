"""Items of the sign-flip test of all pairs: `epsᵀ H eps` over one pair of groups of pairs, for all signs at once.

`tiles.signed_sums`, cut into pieces that can be computed anywhere and are added in one order.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.distributed.blocks import Ground, on_pairs, upper_pairs, zeros
from gebm.evaluation.two_sample.distributed.labellings import Labellings, random_sign_vectors
from gebm.evaluation.two_sample.distributed.orders import Order, pair_order
from gebm.evaluation.two_sample.distributed.tile_kernel import TileKernel
from gebm.evaluation.two_sample.tiles import SignedSums


class Signed(NamedTuple):
    """A group of pairs `(u_i, v_i)`: blocks of both members, and `(pairs, P + 1)` signs of each block."""

    first: list[Any]
    second: list[Any]
    signs: list[torch.Tensor]


class SignResult(NamedTuple):
    """Sums over all pairs, and `Σ k(z, z)` over all points."""

    sums: SignedSums
    own_total: float


@dataclass(frozen=True)
class SignTask:
    """A test by sign flips: `permutations` random sign vectors, or none for the true one alone."""

    ground: Ground
    permutations: int

    @property
    def count(self) -> int:
        """n, pairs."""
        return len(self.ground.tables[0])

    def keys(self) -> list[tuple[int, ...]]:
        return upper_pairs(len(self.ground.tiling.groups(self.count)))

    def describe(self) -> dict[str, Any]:
        return {"items": "signs", "permutations": self.permutations, **self.ground.describe()}

    def order(self) -> Order:
        """The shuffle of the pairs."""
        return pair_order(self.count, self.ground.seed)

    def labellings(self) -> Labellings:
        """All sign vectors, of pairs in the shuffled order."""
        order = self.order()
        return random_sign_vectors(order.truth, self.permutations, order.rng)

    def open(self, device: str) -> Callable[[tuple[int, ...]], np.ndarray]:
        kernel, tiling = self.ground.kernel, self.ground.tiling
        order, labellings, rows = self.order().rows, self.labellings(), self.ground.open(device)
        members = order[0::2], order[1::2]
        groups = tiling.groups(self.count)

        def make(group: int) -> Signed:
            blocks = tiling.blocks(groups[group])
            first, second = ([rows.ready(side[block.start : block.stop]) for block in blocks] for side in members)
            return Signed(first, second, [labellings.signs(block, device, kernel.products) for block in blocks])

        return on_pairs(make, partial(sums_of_groups, kernel))

    def merge(self, results: Iterable[np.ndarray]) -> SignResult:
        width = self.permutations + 1
        total = np.zeros(width + 4)
        for result in results:
            total += result
        cross, whole, magnitude, own_total = (float(value) for value in total[width:])
        sums = SignedSums(torch.from_numpy(total[:width]), cross, whole, magnitude)
        return SignResult(sums, own_total)


def sums_of_groups(kernel: TileKernel, first: Signed, second: Signed) -> np.ndarray:
    """Over the ordered pairs `i ≠ j` of two groups of pairs, or of a group with itself (then the same object):
    `epsᵀ H0 eps` for all signs, then `Σ_i k(u_i, v_i)`, the sum of k over different points, about the sum of |k|, and
    `Σ k(z, z)`; float64. H needs no shift: what all values share cancels in it."""
    same_group = first is second
    width, device = first.signs[0].shape[1], first.signs[0].device
    forms = zeros(width).to(device)
    cross_own, total, magnitude, own_total = zeros(4).to(device)
    for i, row_signs in enumerate(first.signs):
        for j in range(i if same_group else 0, len(second.signs)):
            diagonal = same_group and i == j
            weight = 1.0 if diagonal else 2.0
            same = kernel.tile(first.first[i], second.first[j]).add_(kernel.tile(first.second[i], second.second[j]))
            cross = kernel.tile(first.first[i], second.second[j]).add_(kernel.tile(first.second[i], second.first[j]))
            if diagonal:
                cross_own += 0.5 * cross.diagonal().sum(dtype=torch.float64)
                same.fill_diagonal_(0.0)
                own_total += kernel.diagonal(first.first[i]).sum() + kernel.diagonal(first.second[i]).sum()
            row_sums = torch.stack([same.sum(1), cross.sum(1)]).to(torch.float64)
            total += weight * row_sums.sum()
            magnitude += weight * row_sums.abs().sum()
            tile = same.sub_(cross)
            if diagonal:
                tile.fill_diagonal_(0.0)
            products = (tile.to(kernel.products) @ second.signs[j]).mul_(row_signs)
            forms += weight * products.sum(0, dtype=torch.float64)
    return torch.cat([forms, torch.stack([cross_own, total, magnitude, own_total])]).cpu().numpy()
