"""A confidence interval on MMD² itself: how far apart, not only whether.

The delete-group jackknife of MMD²_u. All that leaving out a group needs is the matrix of kernel sums between groups,
which one pass over the tiles gives. Away from P = Q the statistic is nearly normal and the interval has its coverage;
near P = Q it is wider than it needs to be, since there the jackknife counts the second-order variance twice.
"""

from dataclasses import dataclass

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.jackknife import jackknife_interval
from gebm.evaluation.two_sample.kernels import (
    AnyKernel,
    Bandwidth,
    KernelChoice,
    bandwidth_of,
    check_bandwidth,
    name_of,
)
from gebm.evaluation.two_sample.samples import Rows, Sample, as_samples
from gebm.evaluation.two_sample.shuffles import shuffle_pooled
from gebm.evaluation.two_sample.tiles import kernel_tile, upper_tiles


@dataclass(frozen=True)
class MMDInterval:
    """An interval on MMD² and everything needed to repeat it.

    Attributes:
        estimate: MMD²_u; it may be negative.
        low: not below 0, as MMD² is not.
        high: likewise.
        standard_error: of the estimate.
        confidence: that the interval holds MMD², asymptotically.
        groups: of the jackknife.
        n: points in `x`.
        m: points in `y`.
        dimension: of the points.
        kernel: name of the kernel.
        bandwidth: its `s`; the interval is on MMD² under this very kernel.
        seed: of the groups.
    """

    estimate: float
    low: float
    high: float
    standard_error: float
    confidence: float
    groups: int
    n: int
    m: int
    dimension: int
    kernel: str
    bandwidth: float | tuple[float | None, ...] | None
    seed: int


def mmd_interval(
    x: Sample,
    y: Sample,
    *,
    kernel: KernelChoice = "gaussian",
    bandwidth: Bandwidth = "median",
    confidence: float = 0.95,
    groups: int = 20,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> MMDInterval:
    """An interval that holds MMD² between the distributions of `x` `(n, d)` and `y` `(m, d)`; any sizes.

    Arguments and errors as for `mmd_test`.

    Raises:
        InputError: also for fewer than two points of either sample a group.
    """
    check_bandwidth(kernel, bandwidth)
    if not 0 < confidence < 1:
        raise InputError(f"confidence: must be between 0 and 1, got {confidence}")
    points_x, points_y = as_samples({"x": x, "y": y}, device)
    n, m = len(points_x), len(points_y)
    if groups < 2 or min(n, m) < 2 * groups:
        raise InputError(
            f"groups: {n} points of x and {m} of y cannot be split into {groups} groups; the jackknife needs at "
            f"least two groups of at least two points of each"
        )
    rng = np.random.default_rng(derive_seed(seed, "two_sample", "interval"))
    pooled = shuffle_pooled(points_x, points_y, kernel, bandwidth, rng)
    # In random order the k-th point of X is a random one: groups are dealt out in turn.
    is_x = pooled.is_x
    rank = torch.where(is_x, is_x.cumsum(0) - 1, (~is_x).cumsum(0) - 1)
    group = rank % groups + torch.where(is_x, 0, groups)
    sums = group_sums(pooled.rows, pooled.kernel, group, 2 * groups)
    sizes = torch.bincount(group, minlength=2 * groups).to(torch.float64)
    estimate, left_out = leave_one_out(sums, sizes)
    interval = jackknife_interval(estimate, left_out.tolist(), confidence)
    return MMDInterval(
        estimate=estimate,
        low=max(0.0, interval.low),
        high=max(0.0, interval.high),
        standard_error=interval.standard_error,
        confidence=confidence,
        groups=groups,
        n=n,
        m=m,
        dimension=points_x.shape[1],
        kernel=name_of(kernel),
        bandwidth=bandwidth_of(pooled.kernel),
        seed=seed,
    )


def group_sums(rows: Rows, kernel: AnyKernel, group: torch.Tensor, count: int) -> torch.Tensor:
    """Sums of the kernel over pairs of different rows between groups, `(count, count)` float64 on the CPU.

    Args:
        rows: N points.
        kernel: the kernel.
        group: `(N,)` int64, the group of each.
        count: of groups.
    """
    device = rows.points.device
    group = group.to(device)
    member = torch.nn.functional.one_hot(group, count).to(rows.precision)
    sums = torch.zeros(count, count, dtype=torch.float64, device=device)
    for row_block, column_block in upper_tiles(len(group)):
        tile = kernel_tile(rows.take(row_block), rows.take(column_block), kernel)
        if row_block == column_block:
            tile.fill_diagonal_(0.0)
        by_column_group = (tile @ member[column_block]).to(torch.float64)
        part = member[row_block].to(torch.float64).T @ by_column_group
        sums += part if row_block == column_block else part + part.T
    return sums.cpu()


def leave_one_out(sums: torch.Tensor, sizes: torch.Tensor) -> tuple[float, torch.Tensor]:
    """MMD²_u on all points, and without group g of both samples, `(groups,)`.

    Args:
        sums: `(2G, 2G)`, groups of X first.
        sizes: `(2G,)`, points in each.
    """
    groups = len(sizes) // 2
    xx, yy, xy = sums[:groups, :groups], sums[groups:, groups:], sums[:groups, groups:]

    def without(block: torch.Tensor) -> torch.Tensor:
        """The sum of a block without row g and column g, for each g; last, the whole sum."""
        left = block.sum() - block.sum(1) - block.sum(0) + block.diagonal()
        return torch.cat([left, block.sum()[None]])

    of_x, of_y = sizes[:groups], sizes[groups:]
    n, m = (torch.cat([side.sum() - side, side.sum()[None]]) for side in (of_x, of_y))
    values = without(xx) / (n * (n - 1)) + without(yy) / (m * (m - 1)) - 2.0 * without(xy) / (n * m)
    return float(values[-1]), values[:-1]
