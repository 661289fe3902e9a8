"""The witness function: where two samples differ, and which of their points show it.

`f(v) = mean_i k(x_i, v) - mean_j k(y_j, v)`: positive where X is denser at the kernel's scale, negative where Y is.
"""

from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.bandwidth import choose_kernel
from gebm.evaluation.two_sample.kernels import (
    KERNELS,
    AnyKernel,
    Bandwidth,
    KernelChoice,
    bandwidth_of,
    check_bandwidth,
    term_names,
)
from gebm.evaluation.two_sample.samples import Rows, Sample, as_samples, pool, prepare_rows
from gebm.evaluation.two_sample.tiles import kernel_diagonal, kernel_tile, row_blocks


class Witness(NamedTuple):
    """The witness at both samples' own points, each point's own term left out, and who stands out.

    Attributes:
        at_x: `(n,)` float64.
        at_y: `(m,)` float64.
        bandwidth: of the kernel.
    """

    at_x: np.ndarray
    at_y: np.ndarray
    bandwidth: float | tuple[float | None, ...] | None

    def least_alike(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of x and rows of y that are least like the other sample, the clearest first: there the own sample is
        denser by most."""
        return np.argsort(-self.at_x, kind="stable")[:count], np.argsort(self.at_y, kind="stable")[:count]

    def most_alike(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of x and rows of y that are most like the other sample: there the other sample is denser by most."""
        return np.argsort(self.at_x, kind="stable")[:count], np.argsort(-self.at_y, kind="stable")[:count]


def witness(
    points: Sample,
    x: Sample,
    y: Sample,
    *,
    kernel: KernelChoice = "gaussian",
    bandwidth: Bandwidth = "median",
    seed: int = 0,
    device: str | torch.device | None = None,
) -> np.ndarray:
    """`f` at `points` `(k, d)`: `(k,)` float64. Arguments and errors as for `mmd_test`."""
    check_bandwidth(kernel, bandwidth)
    at, points_x, points_y = as_samples({"points": points, "x": x, "y": y}, device, fewest={"points": 1})
    chosen, rows = _prepare([points_x, points_y, at], kernel, bandwidth, seed)
    of_x, of_y, of_points = rows
    sums_x, sums_y = (kernel_sums(of_points, side, chosen) for side in (of_x, of_y))
    return (sums_x / len(points_x) - sums_y / len(points_y)).cpu().numpy()


def witness_of_samples(
    x: Sample,
    y: Sample,
    *,
    kernel: KernelChoice = "gaussian",
    bandwidth: Bandwidth = "median",
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Witness:
    """`f` at the points of `x` `(n, d)` and `y` `(m, d)`, without what a point says of itself:
    `mean_{j≠i} k(x_j, x_i) - mean_j k(y_j, x_i)`, and the like at y. Arguments and errors as for `mmd_test`."""
    check_bandwidth(kernel, bandwidth)
    points_x, points_y = as_samples({"x": x, "y": y}, device)
    chosen, (of_x, of_y) = _prepare([points_x, points_y], kernel, bandwidth, seed)
    n, m = len(points_x), len(points_y)
    within_x, within_y = (kernel_sums(side, side, chosen) - kernel_diagonal(side, chosen) for side in (of_x, of_y))
    at_x = within_x / (n - 1) - kernel_sums(of_x, of_y, chosen) / m
    at_y = kernel_sums(of_y, of_x, chosen) / n - within_y / (m - 1)
    return Witness(at_x.cpu().numpy(), at_y.cpu().numpy(), bandwidth_of(chosen))


def kernel_sums(at: Rows, sample: Rows, kernel: AnyKernel) -> torch.Tensor:
    """`Σ_j k(v_i, z_j)` over the sample for each row i of `at`, `(k,)` float64, tile by tile."""
    sums = torch.zeros(len(at.points), dtype=torch.float64, device=at.points.device)
    for block in row_blocks(len(at.points)):
        for other in row_blocks(len(sample.points)):
            sums[block] += kernel_tile(at.take(block), sample.take(other), kernel).sum(1).to(torch.float64)
    return sums


def _prepare(
    samples: list[torch.Tensor], kernel: KernelChoice, bandwidth: Bandwidth, seed: int
) -> tuple[AnyKernel, list[Rows]]:
    """The kernel, its bandwidth chosen on the first two samples, and the rows of all, centred together."""
    sizes = [len(sample) for sample in samples]
    rng = np.random.default_rng(derive_seed(seed, "two_sample", "witness"))
    # MMD² under the linear kernel does not change when all points are moved, but the witness does, by a constant.
    distances_only = all(KERNELS[name].geometry != "inner_product" for name in term_names(kernel, bandwidth))
    everything = pool(samples, torch.arange(sum(sizes)), distances_only)
    order = torch.from_numpy(rng.permutation(sizes[0] + sizes[1])).to(everything.device)
    chosen = choose_kernel(kernel, bandwidth, everything[order])
    rows = prepare_rows(everything, chosen)
    ends = np.cumsum(sizes)
    return chosen, [rows.take(slice(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
