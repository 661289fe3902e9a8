"""What a kernel is learnt by: `J = MMD² / sigma`, on which the power of its test depends (Liu et al., ICML 2020).

With `H_ij = k(x_i,x_j) + k(y_i,y_j) - k(x_i,y_j) - k(y_i,x_j)` over n pairs,
`MMD² = Σ_{i≠j} H_ij / (n(n-1))` and `sigma² = 4 ( Σ_i (Σ_j H_ij)² / n³ - (Σ_ij H_ij)² / n⁴ ) + 1e-8`, the diagonal of H
kept in sigma.

All of H that J needs is its row sums and its diagonal, and the row sums are `r_i = v(x_i) - v(y_i) + k(x_i,x_i) +
k(y_i,y_i)` with `v(z) = Σ_{z' ≠ z} s(z') k(z, z')` over the 2n pooled points, `s = 1` on X and -1 on Y. So one pass
over the upper tiles of the pooled kernel gives J, and a second over the same values its gradient: with `g_i = ∂J/∂r_i`,
points a and b of the pairs i and j count with the weight `s_a s_b (g_i + g_j)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from gebm.evaluation.two_sample.kernels import AnyKernel
from gebm.evaluation.two_sample.samples import Rows
from gebm.evaluation.two_sample.tiles import kernel_diagonal, kernel_tile, kernel_tiles, upper_tiles

VARIANCE_FLOOR = 1e-8
NEGLIGIBLE = 0.1  # of a rounding error: a mixing below this changes no value of the kernel
TILE_ROWS = 512  # two float32 tiles of kernel values stay in a core's cache
TILE_ROWS_OF_ACCELERATOR = 4096


class Power(NamedTuple):
    """The objective and what it is made of.

    Attributes:
        objective: J.
        mmd: the paired form of MMD².
        deviation: sigma.
    """

    objective: torch.Tensor
    mmd: torch.Tensor
    deviation: torch.Tensor


def power_of_row_sums(row_sums: torch.Tensor, diagonal: torch.Tensor) -> Power:
    """J from the row sums of H `(..., n)`, diagonal included, and its diagonal `(..., n)`; of many kernels at once."""
    n = row_sums.shape[-1]
    total = row_sums.sum(-1)
    mmd = (total - diagonal.sum(-1)) / (n * (n - 1))
    variance = 4.0 * (row_sums.square().sum(-1) / n**3 - total.square() / n**4) + VARIANCE_FLOOR
    deviation = variance.clamp(min=VARIANCE_FLOOR).sqrt()
    return Power(mmd / deviation, mmd, deviation)


def power_of_kernels(rows: Rows, kernels: Sequence[AnyKernel]) -> Power:
    """J of each kernel of the library, `(kernels,)` float64, without gradients; distances are shared between kernels.

    Args:
        rows: n points of X, then the n of Y that make pairs with them.
        kernels: any.
    """
    count, device = len(rows.points), rows.points.device
    n = count // 2
    signs = signs_of_pairs(n, device, rows.precision)
    sums = torch.zeros(len(kernels), count, dtype=torch.float64, device=device)
    for row_block, column_block in upper_tiles(count):
        for index, tile in enumerate(kernel_tiles(rows.take(row_block), rows.take(column_block), kernels)):
            if row_block == column_block:
                tile.fill_diagonal_(0.0)
            else:
                sums[index, column_block] += tile.T @ signs[row_block]
            sums[index, row_block] += tile @ signs[column_block]
    cross, own = [], []
    x, y = rows.take(slice(n)).blocks(1), rows.take(slice(n, count)).blocks(1)
    for kernel in kernels:
        cross.append(kernel_tile(x, y, kernel).view(n).to(torch.float64))
        own.append(kernel_diagonal(rows, kernel).view(2, n).sum(0))
    both, same = torch.stack(cross), torch.stack(own)
    return power_of_row_sums(sums[:, :n] - sums[:, n:] + same, same - 2.0 * both)


def signs_of_pairs(n: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """`(2n,)`, 1 for the points of X and -1 for those of Y."""
    signs = torch.ones(2 * n, dtype=dtype, device=device)
    signs[n:] = -1.0
    return signs


def deep_power(features: torch.Tensor, points: torch.Tensor, mixing: torch.Tensor) -> torch.Tensor:
    """J, a scalar, of `k = [(1 - eps) exp(-‖f - f'‖²) + eps] exp(-‖b - b'‖²)`; differentiable once in all arguments.

    Args:
        features: `(2n, p)`, `f = phi(z) / sqrt(sigma_phi)` of n points of X, then of the n of Y.
        points: `(2n, q)`, `b = z / sqrt(sigma_q)`.
        mixing: eps, a scalar in (0, 1).
    """
    return _DeepPower.apply(features, points, mixing)


class _Tile(NamedTuple):
    """Kernel values of a pair of row blocks: `both = exp(-‖f-f'‖² - ‖b-b'‖²)` and `plain = exp(-‖b-b'‖²)`, which is
    None where eps is so small that it is lost in the rounding of the other."""

    rows: slice
    columns: slice
    both: torch.Tensor
    plain: torch.Tensor | None


class _DeepPower(torch.autograd.Function):
    """The gradient is computed with the value, while the tiles are at hand: a step of training always wants it."""

    @staticmethod
    def forward(ctx: Any, features: torch.Tensor, points: torch.Tensor, mixing: torch.Tensor) -> torch.Tensor:
        # Far from the origin the norm trick would cancel digits; distances do not change.
        joint = torch.cat([features - features.mean(0), points - points.mean(0)], 1)
        width, n, eps = features.shape[1], len(features) // 2, float(mixing)
        signs = signs_of_pairs(n, joint.device, joint.dtype)
        mixed = eps > NEGLIGIBLE * torch.finfo(joint.dtype).eps
        tiles = _tiles(joint, width, mixed)
        both, plain = _signed_sums(tiles, signs)
        apart = joint[:n] - joint[n:]
        plain_cross = torch.exp(-apart[:, width:].square().sum(1))
        both_cross = torch.exp(-apart[:, :width].square().sum(1)) * plain_cross
        sums = ((1.0 - eps) * both + eps * plain).to(torch.float64)
        cross = ((1.0 - eps) * both_cross + eps * plain_cross).to(torch.float64)
        row_sums = sums[:n] - sums[n:] + 2.0
        power = power_of_row_sums(row_sums, 2.0 - 2.0 * cross)
        if any(ctx.needs_input_grad):
            by_mmd = 1.0 / (power.deviation * n * (n - 1))
            by_variance = -0.5 * power.mmd / power.deviation**3
            of_row = by_mmd + by_variance * 8.0 * (row_sums / n**3 - row_sums.sum() / n**4)
            weights = of_row.repeat(2).to(joint.dtype)
            of_cross = 2.0 * float(by_mmd)
            gradient = _gradient(tiles, joint, signs, weights, eps, width)
            # Points of one pair also meet in the diagonal of H, which MMD² leaves out.
            gradient[:n] -= 2.0 * of_cross * _scaled(apart, both_cross, plain_cross, eps, width)
            gradient[n:] += 2.0 * of_cross * _scaled(apart, both_cross, plain_cross, eps, width)
            of_mixing = (signs * weights * (plain - both)).sum() + of_cross * (plain_cross - both_cross).sum()
            if not mixed:  # nor would eps move: it is a sigmoid, whose own derivative is about eps
                of_mixing.zero_()
            ctx.save_for_backward(gradient[:, :width], gradient[:, width:], of_mixing.to(mixing.dtype))
        return power.objective.to(features.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor) -> tuple[torch.Tensor, ...]:  # type: ignore[override]
        features, points, mixing = ctx.saved_tensors
        return upstream * features, upstream * points, (upstream * mixing).view(())


def _tiles(joint: torch.Tensor, width: int, mixed: bool) -> list[_Tile]:
    """Kernel values of the upper tiles; the plain part only where it is `mixed` in. One matrix product makes an
    exponent: of `[2z, -‖z‖², -1]` and `[z, 1, ‖z'‖²]`."""
    size = TILE_ROWS_OF_ACCELERATOR if joint.is_cuda else TILE_ROWS
    tail = joint[:, width:]
    one = torch.ones(len(joint), 1, dtype=joint.dtype, device=joint.device)
    sides = []
    for z in (joint, tail):
        squares = z.square().sum(1, keepdim=True)
        sides.append((torch.cat([2.0 * z, -squares, -one], 1), torch.cat([z, one, squares], 1)))
    (left, right), (left_tail, right_tail) = sides
    blocks = [slice(start, min(start + size, len(joint))) for start in range(0, len(joint), size)]
    tiles = []
    for i, rows in enumerate(blocks):
        for columns in blocks[i:]:
            both = (left[rows] @ right[columns].T).exp_()
            alone = (left_tail[rows] @ right_tail[columns].T).exp_() if mixed else None
            if rows == columns:
                both.fill_diagonal_(0.0)
                if alone is not None:
                    alone.fill_diagonal_(0.0)
            tiles.append(_Tile(rows, columns, both, alone))
    return tiles


def _signed_sums(tiles: list[_Tile], signs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """`Σ_{z' ≠ z} s(z') k(z, z')` of every point, for the two parts of the kernel."""
    both, plain = torch.zeros_like(signs), torch.zeros_like(signs)
    for tile in tiles:
        for sums, values in ((both, tile.both), (plain, tile.plain)):
            if values is None:
                continue
            sums[tile.rows] += values @ signs[tile.columns]
            if tile.rows != tile.columns:
                sums[tile.columns] += signs[tile.rows] @ values
    return both, plain


def _gradient(
    tiles: list[_Tile], joint: torch.Tensor, signs: torch.Tensor, weights: torch.Tensor, eps: float, width: int
) -> torch.Tensor:
    """`∂/∂z_a Σ_{a≠b} s_a s_b g_a k_ab = -2 s_a Σ_b s_b (g_a + g_b) k_ab (z_a - z_b)`, `(2n, p + q)`. Overwrites the
    tiles."""
    signed = torch.cat([joint * signs[:, None], signs[:, None]], 1)
    pulled = torch.zeros_like(signed)
    pulled_tail = torch.zeros_like(signed[:, width:])
    for tile in tiles:
        weight = weights[tile.rows, None] + weights[tile.columns]
        for total, values, points in ((pulled, tile.both, signed), (pulled_tail, tile.plain, signed[:, width:])):
            if values is None:
                continue
            values.mul_(weight)
            total[tile.rows] += values @ points[tile.columns]
            if tile.rows != tile.columns:
                total[tile.columns] += values.T @ points[tile.rows]
    gradient = (1.0 - eps) * (joint * pulled[:, -1:] - pulled[:, :-1])
    gradient[:, width:] += eps * (joint[:, width:] * pulled_tail[:, -1:] - pulled_tail[:, :-1])
    return gradient.mul_(-2.0 * signs[:, None])


def _scaled(apart: torch.Tensor, both: torch.Tensor, plain: torch.Tensor, eps: float, width: int) -> torch.Tensor:
    """`(x_i - y_i)` times the part of `k(x_i, y_i)` that sees the column: features see `both` only."""
    scaled = (1.0 - eps) * both[:, None] * apart
    scaled[:, width:] += eps * plain[:, None] * apart[:, width:]
    return scaled
