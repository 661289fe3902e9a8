"""Kernel sums by tiles: the kernel matrix is never stored.

A tile is a pair of row blocks. Its kernel values serve all labellings at once, by one matrix product; what
leaves a tile is a handful of float64 sums. Tiles are visited, and their sums added, in one fixed order, so
they could be computed anywhere without changing the result.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch

from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.samples import Rows

TILE_ROWS = 1024


def row_blocks(count: int, size: int = TILE_ROWS) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def upper_tiles(count: int) -> Iterator[tuple[slice, slice]]:
    """Pairs of row blocks that cover the upper triangle of a `count x count` matrix with its diagonal."""
    blocks = row_blocks(count)
    for i, rows in enumerate(blocks):
        for columns in blocks[i:]:
            yield rows, columns


def kernel_tile(a: Rows, b: Rows, kernel: Kernel) -> torch.Tensor:
    """Kernel values `(rows of a, rows of b)`."""
    match kernel.family.geometry:
        case "inner_product":
            geometry = a.points @ b.points.T
        case "squared_euclidean":
            geometry = a.squared_norms[:, None] + b.squared_norms[None, :]
            geometry.addmm_(a.points, b.points.T, alpha=-2.0).clamp_(min=0.0)
        case "manhattan":
            geometry = torch.cdist(a.points, b.points, p=1.0)
    return kernel.values(geometry)


class LabelledSums(NamedTuple):
    """Sums over pairs `i ≠ j` of pooled rows, for each of P labellings `a ∈ {0,1}^N` (float64).

    Attributes:
        within: `(P,)`, `S_xx = aᵀ K0 a`.
        touching: `(P,)`, `aᵀ K0 1 = S_xx + S_xy`.
        total: `1ᵀ K0 1`.
        magnitude: about `Σ |K0|`, the scale of rounding errors.
    """

    within: torch.Tensor
    touching: torch.Tensor
    total: float
    magnitude: float


def labelled_sums(rows: Rows, kernel: Kernel, labels: torch.Tensor) -> LabelledSums:
    """Sums of the pooled kernel without its diagonal `K0`, for all labellings in one pass over the upper
    tiles.

    Args:
        rows: N pooled points.
        kernel: the kernel.
        labels: `(P, N)` uint8, 1 where a row is labelled X.

    N²/2 kernel values, each used in P multiply-adds; memory: one tile and the labels.
    """
    count, device, dtype = len(rows.points), rows.points.device, rows.points.dtype
    within = torch.zeros(len(labels), dtype=torch.float64, device=device)
    touching = torch.zeros_like(within)
    total = magnitude = 0.0
    for row_block, column_block in upper_tiles(count):
        tile = kernel_tile(rows.take(row_block), rows.take(column_block), kernel)
        diagonal = row_block == column_block
        if diagonal:
            tile.fill_diagonal_(0.0)
        row_labels = labels[:, row_block].to(dtype)
        column_labels = row_labels if diagonal else labels[:, column_block].to(dtype)
        ones = torch.ones(1, tile.shape[1], dtype=dtype, device=device)
        products = tile @ torch.cat([column_labels, ones]).T  # (rows, P + 1), the last column is the row sums
        row_sums = products[:, -1].to(torch.float64)
        products = products[:, :-1]
        weight = 1.0 if diagonal else 2.0  # an off-diagonal tile stands for its mirror image too
        within += weight * (row_labels.T * products).sum(0, dtype=torch.float64)
        touching += products.sum(0, dtype=torch.float64)
        if not diagonal:
            touching += (row_labels @ row_sums.to(dtype)).to(torch.float64)
        total += weight * float(row_sums.sum())
        magnitude += weight * float(row_sums.abs().sum())
    return LabelledSums(within, touching, total, magnitude)


def signed_sums(first: Rows, second: Rows, kernel: Kernel, signs: torch.Tensor) -> tuple[torch.Tensor, float]:
    """`epsᵀ H0 eps` for each of P sign vectors, and `Σ |H0|`, in one pass over the upper tiles of the n x n
    matrix H.

    `H_ij = k(u_i,u_j) + k(v_i,v_j) - k(u_i,v_j) - k(v_i,u_j)` of pairs `(u_i, v_i)`; `H0` is H without its
    diagonal.

    Args:
        first: the n points `u_i`.
        second: the n points `v_i`.
        kernel: the kernel.
        signs: `(P, n)` int8 of ±1; -1 swaps the members of a pair.
    """
    count, device, dtype = len(first.points), first.points.device, first.points.dtype
    forms = torch.zeros(len(signs), dtype=torch.float64, device=device)
    magnitude = 0.0
    for row_block, column_block in upper_tiles(count):
        u_rows, v_rows = first.take(row_block), second.take(row_block)
        u_columns, v_columns = first.take(column_block), second.take(column_block)
        tile = kernel_tile(u_rows, u_columns, kernel)
        tile += kernel_tile(v_rows, v_columns, kernel)
        tile -= kernel_tile(u_rows, v_columns, kernel)
        tile -= kernel_tile(v_rows, u_columns, kernel)
        diagonal = row_block == column_block
        if diagonal:
            tile.fill_diagonal_(0.0)
        weight = 1.0 if diagonal else 2.0
        products = tile @ signs[:, column_block].to(dtype).T
        forms += weight * (signs[:, row_block].to(dtype).T * products).sum(0, dtype=torch.float64)
        magnitude += weight * float(tile.abs_().sum(dtype=torch.float64))
    return forms, magnitude


def cross_sums(
    a: Rows, b: Rows, kernel: Kernel, weights_a: torch.Tensor, weights_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """`Σ_{j≠i} k(a_i, b_j) w_j` for each i, and `Σ_{i≠j} k(a_i, b_j) w_i` for each j, in one pass (float64).

    Args:
        a: n points.
        b: n points.
        kernel: the kernel.
        weights_a: `(n, c)`, c weightings of the points of `a`.
        weights_b: `(n, c)`, of the points of `b`.
    """
    rows = torch.zeros(weights_b.shape, dtype=torch.float64, device=a.points.device)
    columns = torch.zeros_like(rows)
    weights_a, weights_b = weights_a.to(a.points), weights_b.to(a.points)
    blocks = row_blocks(len(a.points))
    for row_block in blocks:
        for column_block in blocks:
            tile = kernel_tile(a.take(row_block), b.take(column_block), kernel)
            if row_block == column_block:
                tile.fill_diagonal_(0.0)
            rows[row_block] += tile @ weights_b[column_block]
            columns[column_block] += tile.T @ weights_a[row_block]
    return rows, columns
