"""Kernel sums by tiles: the kernel matrix is never stored.

A tile is a pair of row blocks. Its kernel values serve all labellings at once, by one matrix product; what
leaves a tile is a handful of float64 sums. Tiles are visited, and their sums added, in one fixed order, so
they could be computed anywhere without changing the result.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import torch

from gebm.evaluation.two_sample.kernels import AnyKernel, Geometry, Space
from gebm.evaluation.two_sample.samples import Rows

TILE_ROWS = 768  # passes over a tile stay in cache, and starting them is little against them
ACCELERATOR_TILE_ROWS = 4096  # on a GPU what starts an operation must be little against it
BAND = 8  # row blocks that are visited together, so that a column block is prepared once for all of them
LABELS_AT_A_TIME = 64  # labellings turned into float64 numbers together
COORDINATES_FROM = 2**14  # pairs from which a pass over the tile a coordinate beats a loop over pairs


def tile_rows(device: torch.device) -> int:
    """Rows of a tile on this device."""
    return TILE_ROWS if device.type == "cpu" else ACCELERATOR_TILE_ROWS


def row_blocks(count: int, size: int = TILE_ROWS) -> list[slice]:
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def upper_tiles(count: int, size: int = TILE_ROWS) -> Iterator[tuple[slice, slice]]:
    """Pairs of row blocks that cover the upper triangle of a `count x count` matrix with its diagonal, in bands of
    row blocks."""
    blocks = row_blocks(count, size)
    for start in range(0, len(blocks), BAND):
        for j in range(start, len(blocks)):
            for rows in blocks[start : min(start + BAND, j + 1)]:
                yield rows, blocks[j]


def geometry_tile(a: Rows, b: Rows, geometry: Geometry) -> torch.Tensor:
    """Distances or inner products `(rows of a, rows of b)`; of blocks, `(blocks, b, b)`."""
    match geometry:
        case "inner_product":
            return a.points @ b.points.mT
        case "squared_euclidean" if a.by_differences:
            mode = "donot_use_mm_for_euclid_dist"
            return torch.cdist(a.points, b.points, compute_mode=mode).square_()
        case "squared_euclidean":
            tile = a.squared_norms[..., :, None] + b.squared_norms[..., None, :]
            product = tile.baddbmm_ if tile.dim() == 3 else tile.addmm_
            return product(a.points, b.points.mT, alpha=-2.0).clamp_(min=0.0)
        case "manhattan":
            return manhattan_tile(a.points, b.points)


def manhattan_tile(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`Σ_k |a_ik - b_jk|`, `(rows of a, rows of b)`; of blocks, `(blocks, b, b)`.

    On a CPU torch's own goes through pairs one by one; passes over the whole tile, one a coordinate, take half as
    long in float32.
    """
    pairs = a.shape[:-1].numel() * b.shape[-2]
    if a.device.type != "cpu" or a.dtype != torch.float32 or pairs < COORDINATES_FROM:
        return torch.cdist(a, b, p=1.0)
    total = torch.zeros(*a.shape[:-1], b.shape[-2], dtype=a.dtype)
    difference = torch.empty_like(total)
    of_a, of_b = (side.movedim(-1, 0).contiguous() for side in (a, b))
    for left, right in zip(of_a.unsqueeze(-1), of_b.unsqueeze(-2), strict=True):
        total += torch.sub(left, right, out=difference).abs_()
    return total


def kernel_tiles(a: Rows, b: Rows, kernels: Sequence[AnyKernel]) -> Iterator[torch.Tensor]:
    """Kernel values of each kernel in turn, distances computed once for all of them."""
    left = Counter(term.space for kernel in kernels for term in kernel.terms)
    geometries: dict[Space, torch.Tensor] = {}
    for kernel in kernels:
        tile = None
        for term in kernel.terms:
            space = term.space
            if space not in geometries:
                geometries[space] = geometry_tile(a.tail(space.tail), b.tail(space.tail), space.geometry)
            left[space] -= 1
            shared = geometries[space] if left[space] else geometries.pop(space)
            values = term.values(shared.to(a.precision, copy=bool(left[space])))
            tile = values if tile is None else tile.add_(values)
        assert tile is not None
        yield tile


def kernel_tile(a: Rows, b: Rows, kernel: AnyKernel) -> torch.Tensor:
    """Kernel values `(rows of a, rows of b)`; of blocks, `(blocks, b, b)`."""
    return next(kernel_tiles(a, b, [kernel]))


def kernel_diagonal(rows: Rows, kernel: AnyKernel) -> torch.Tensor:
    """`k(z_i, z_i)` of every row, `(N,)` float64."""
    total = torch.zeros(len(rows.points), dtype=torch.float64, device=rows.points.device)
    for term in kernel.terms:
        inner = term.family.geometry == "inner_product"
        norms = rows.tail(term.tail).squared_norms
        own = norms.to(torch.float64, copy=True) if inner else torch.zeros_like(total)
        total += term.values(own)
    return total


class LabelledSums(NamedTuple):
    """Sums over pairs `i ≠ j` of pooled rows, for each of P labellings `a ∈ {0,1}^N` (float64).

    Attributes:
        within: `(P,)`, `S_xx = aᵀ K0 a`.
        touching: `(P,)`, `aᵀ K0 1 = S_xx + S_xy`.
        total: `1ᵀ K0 1`.
        magnitude: about `Σ |K0|`, the scale of rounding errors.
        squares: `Σ K0²`.
    """

    within: torch.Tensor
    touching: torch.Tensor
    total: float
    magnitude: float
    squares: float


def labelled_sums(rows: Rows, kernel: AnyKernel, labels: torch.Tensor) -> LabelledSums:
    """`labelled_sums_of_each` for one kernel."""
    return labelled_sums_of_each(rows, [kernel], labels)[0]


def labelled_sums_of_each(rows: Rows, kernels: Sequence[AnyKernel], labels: torch.Tensor) -> list[LabelledSums]:
    """Sums of the pooled kernel without its diagonal `K0`, of every kernel for all labellings, in one pass over the
    upper tiles.

    A tile is multiplied with signs `s = 2a - 1`, whose sums stay smaller than those of labels, so that float32 rounds
    them less: `S_xx = (sᵀ K0 s + 4 aᵀr - 1ᵀr) / 4` with `r = K0 1`. An off-diagonal tile stands for its mirror image
    too: `s_iᵀ K_ij s_j` counts twice and needs one product.

    Args:
        rows: N pooled points.
        kernels: the kernels; distances are shared between them.
        labels: `(P, N)` uint8, 1 where a row is labelled X.

    N²/2 kernel values a kernel, each used in P multiply-adds; memory: one tile, its distances, its product and the
    labels.
    """
    count, device = len(rows.points), rows.points.device
    forms = torch.zeros(len(kernels), len(labels), dtype=torch.float64, device=device)
    row_sums = torch.zeros(len(kernels), count, dtype=torch.float64, device=device)
    magnitude, squares = (torch.zeros(len(kernels), dtype=torch.float64, device=device) for _ in range(2))
    signs = _prepared(lambda block: labels[:, block].to(rows.precision).mul_(2.0).sub_(1.0))
    for row_block, column_block in upper_tiles(count, tile_rows(device)):
        diagonal = row_block == column_block
        weight = 1.0 if diagonal else 2.0
        for index, tile in enumerate(kernel_tiles(rows.take(row_block), rows.take(column_block), kernels)):
            if diagonal:
                tile.fill_diagonal_(0.0)
            forms[index] += weight * tile_forms(tile, signs(row_block), signs(column_block))
            by_row = tile.sum(1)
            row_sums[index, row_block] += by_row
            if not diagonal:
                row_sums[index, column_block] += tile.sum(0)
            magnitude[index] += weight * by_row.abs().sum(dtype=torch.float64)
            squares[index] += weight * torch.linalg.vector_norm(tile, dim=1).to(torch.float64).square().sum()
    total = row_sums.sum(1)
    touching = torch.cat([some.to(torch.float64) @ row_sums.T for some in labels.split(LABELS_AT_A_TIME)]).T
    within = 0.25 * (forms - total[:, None]) + touching
    sums = zip(within, touching, total.tolist(), magnitude.tolist(), squares.tolist(), strict=True)
    return [LabelledSums(*each) for each in sums]


def tile_forms(tile: torch.Tensor, row_signs: torch.Tensor, column_signs: torch.Tensor) -> torch.Tensor:
    """`Σ_ij s_i k_ij s_j` of every sign vector, `(P,)` float64.

    Args:
        tile: `(rows, columns)` kernel values.
        row_signs: `(P, rows)`, of the tile's type.
        column_signs: `(P, columns)`.
    """
    return (column_signs @ tile.T).mul_(row_signs).sum(1).to(torch.float64)


def _prepared(prepare: Callable[[slice], torch.Tensor]) -> Callable[[slice], torch.Tensor]:
    """`prepare` of a row block, kept while `upper_tiles` stays in a band."""

    @lru_cache(maxsize=BAND + 2)
    def of(start: int, stop: int) -> torch.Tensor:
        return prepare(slice(start, stop))

    return lambda block: of(block.start, block.stop)


class SignedSums(NamedTuple):
    """Sums over pairs `i ≠ j` of n pairs `(u_i, v_i)`, for each of P sign vectors (float64).

    `H_ij = k(u_i,u_j) + k(v_i,v_j) - k(u_i,v_j) - k(v_i,u_j)`; `H0` is H without its diagonal.

    Attributes:
        forms: `(P,)`, `epsᵀ H0 eps`.
        cross: `Σ_i k(u_i, v_i)`, which no sign changes.
        total: `Σ` of k over all ordered pairs of different points among the 2n.
        magnitude: about `Σ |k|` over the same, the scale of rounding errors.
    """

    forms: torch.Tensor
    cross: float
    total: float
    magnitude: float


def signed_sums(first: Rows, second: Rows, kernel: AnyKernel, signs: torch.Tensor) -> SignedSums:
    """`signed_sums_of_each` for one kernel."""
    return signed_sums_of_each(first, second, [kernel], signs)[0]


def signed_sums_of_each(
    first: Rows, second: Rows, kernels: Sequence[AnyKernel], signs: torch.Tensor
) -> list[SignedSums]:
    """`epsᵀ H0 eps` of every kernel for each of P sign vectors, in one pass over the upper tiles of the n x n
    matrix H.

    Args:
        first: the n points `u_i`.
        second: the n points `v_i`.
        kernels: the kernels; distances are shared between them.
        signs: `(P, n)` int8 of ±1; -1 swaps the members of a pair.
    """
    count, device = len(first.points), first.points.device
    forms = torch.zeros(len(kernels), len(signs), dtype=torch.float64, device=device)
    own, total, magnitude = (torch.zeros(len(kernels), dtype=torch.float64, device=device) for _ in range(3))
    signs_of = _prepared(lambda block: signs[:, block].to(first.precision))
    for row_block, column_block in upper_tiles(count, tile_rows(device)):
        u_rows, v_rows = first.take(row_block), second.take(row_block)
        u_columns, v_columns = first.take(column_block), second.take(column_block)
        diagonal = row_block == column_block
        weight = 1.0 if diagonal else 2.0
        tiles = zip(
            kernel_tiles(u_rows, u_columns, kernels),
            kernel_tiles(v_rows, v_columns, kernels),
            kernel_tiles(u_rows, v_columns, kernels),
            kernel_tiles(v_rows, u_columns, kernels),
            strict=True,
        )
        for index, (uu, vv, uv, vu) in enumerate(tiles):
            same, cross = uu.add_(vv), uv.add_(vu)
            if diagonal:
                own[index] += 0.5 * cross.diagonal().sum(dtype=torch.float64)
                same.fill_diagonal_(0.0)
            row_sums = torch.stack([same.sum(1), cross.sum(1)]).to(torch.float64)
            total[index] += weight * row_sums.sum()
            magnitude[index] += weight * row_sums.abs().sum()
            tile = same.sub_(cross)
            if diagonal:
                tile.fill_diagonal_(0.0)
            forms[index] += weight * tile_forms(tile, signs_of(row_block), signs_of(column_block))
    sums_of_each = zip(forms, own.tolist(), total.tolist(), magnitude.tolist(), strict=True)
    return [SignedSums(*each) for each in sums_of_each]


def cross_sums(
    a: Rows, b: Rows, kernel: AnyKernel, weights_a: torch.Tensor, weights_b: torch.Tensor
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
    device, dtype = a.points.device, a.precision
    weights_a, weights_b = weights_a.to(device, dtype), weights_b.to(device, dtype)
    blocks = row_blocks(len(a.points), tile_rows(device))
    for row_block in blocks:
        for column_block in blocks:
            tile = kernel_tile(a.take(row_block), b.take(column_block), kernel)
            if row_block == column_block:
                tile.fill_diagonal_(0.0)
            rows[row_block] += tile @ weights_b[column_block]
            columns[column_block] += tile.T @ weights_a[row_block]
    return rows, columns
