"""Samples in an order that knows nothing of the labels (MATH: shuffles that keep a test blind).

What a test computes then depends on the labels through the labels alone: rounding, in whatever precision, can cost
power but never level. Bandwidth, centring and precision are chosen on the shuffled rows.
"""

from typing import NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.bandwidth import LARGEST_SUBSAMPLE, choose_kernel
from gebm.evaluation.two_sample.kernels import AnyKernel, Bandwidth, KernelChoice, translation_invariant
from gebm.evaluation.two_sample.samples import Rows, pool, prepare_rows


class Pooled(NamedTuple):
    """All points in random order.

    Attributes:
        rows: the N points.
        is_x: `(N,)` bool, the true labelling.
        kernel: with its bandwidth.
    """

    rows: Rows
    is_x: torch.Tensor
    kernel: AnyKernel


class Pairs(NamedTuple):
    """Pairs `(x_i, y_i)` in random order, the members of each ordered by a coin.

    Attributes:
        first: one member of each of the n pairs.
        second: the other.
        signs: `(n,)` int8, 1 where `first` holds the point of X, else -1.
        kernel: with its bandwidth.
    """

    first: Rows
    second: Rows
    signs: torch.Tensor
    kernel: AnyKernel


class Bins(NamedTuple):
    """Bins of equally many points of one sample each, in random order; points that fill no bin are left out.

    Attributes:
        rows: the points, bin by bin.
        size: points in a bin.
        is_x: `(bins,)` bool, the true labelling of the bins.
        kernel: with its bandwidth.
    """

    rows: Rows
    size: int
    is_x: torch.Tensor
    kernel: AnyKernel


def shuffle_pooled(
    x: torch.Tensor, y: torch.Tensor, kernel: KernelChoice, bandwidth: Bandwidth, rng: np.random.Generator
) -> Pooled:
    """All points in random order."""
    order = torch.from_numpy(rng.permutation(len(x) + len(y)))
    pooled = pool([x, y], order, translation_invariant(kernel))
    chosen = choose_kernel(kernel, bandwidth, pooled)
    return Pooled(prepare_rows(pooled, chosen), order < len(x), chosen)


def shuffle_pairs(
    x: torch.Tensor, y: torch.Tensor, kernel: KernelChoice, bandwidth: Bandwidth, rng: np.random.Generator
) -> Pairs:
    """Pairs of `x` and `y`, both `(n, d)`, in random order."""
    order, signs = order_of_pairs(len(x), rng)
    pooled = pool([x, y], order, translation_invariant(kernel))
    chosen = choose_kernel(kernel, bandwidth, pooled)
    rows = prepare_rows(pooled, chosen)
    return Pairs(rows.every(2, 0), rows.every(2, 1), signs, chosen)


def order_of_pairs(n: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random order `(2n,)` of the stacked samples in which pairs follow each other, and `(n,)` signs, 1 where X is
    first. Whole pairs follow each other, so that the bandwidth's subsample holds whole pairs."""
    pairs = torch.from_numpy(rng.permutation(n))
    heads = torch.from_numpy(rng.integers(0, 2, size=n)).bool()
    order = torch.stack([torch.where(heads, pairs, pairs + n), torch.where(heads, pairs + n, pairs)], 1).flatten()
    return order, torch.where(heads, 1, -1).to(torch.int8)


def order_of_bins(n: int, m: int, size: int, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A random order of the stacked samples, bin by bin, and `(bins,)` bool, which bins hold points of X.

    Points are shuffled within their sample, those of a last bin that is not full are left out, and bins are shuffled.
    """
    own = rng.permutation(n)[: n // size * size].reshape(-1, size)
    other = n + rng.permutation(m)[: m // size * size].reshape(-1, size)
    bins = rng.permutation(len(own) + len(other))
    return torch.from_numpy(np.concatenate([own, other])[bins].reshape(-1)), torch.from_numpy(bins < len(own))


def shuffle_bins(
    x: torch.Tensor, y: torch.Tensor, size: int, kernel: KernelChoice, bandwidth: Bandwidth, rng: np.random.Generator
) -> Bins:
    """Bins of `size` points each. The bandwidth's subsample is drawn over all bins: the first rows are few of them."""
    order, is_x = order_of_bins(len(x), len(y), size, rng)
    pooled = pool([x, y], order, translation_invariant(kernel))
    mixed = torch.from_numpy(rng.permutation(len(pooled))).to(pooled.device)
    chosen = choose_kernel(kernel, bandwidth, pooled[mixed[:LARGEST_SUBSAMPLE]])
    return Bins(prepare_rows(pooled, chosen), size, is_x, chosen)
