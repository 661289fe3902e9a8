"""The median heuristic, and kernels with a bandwidth chosen by it."""

import torch

from gebm.evaluation.two_sample.kernels import KERNELS, AnyKernel, Bandwidth, KernelChoice, build_kernel

LARGEST_SUBSAMPLE = 1000
SMALLEST_OF_NORMS = 1e-6  # squared distance against squared norm: ten digits are left in float64


def median_bandwidth(pooled: torch.Tensor, kernel_name: str) -> float:
    """Median distance of pairs of the first 1,000 rows of `pooled` `(N, d)`, in the kernel's own norm.

    `pooled` holds all samples in a seeded order, so that the subsample, like the bandwidth, knows nothing of
    which row belongs to which sample: a test with this bandwidth keeps its level. Where more than half of the
    distances are zero, the median of the others; where all are, 1 (every bandwidth then gives the same
    answer).
    """
    points = pooled[:LARGEST_SUBSAMPLE].to(torch.float64)
    manhattan = KERNELS[kernel_name].geometry == "manhattan"
    median = 0.0 if manhattan else _median_by_inner_products(points)
    if median > 0.0:
        return median
    # By differences and not by the norm trick: duplicates must be at distance zero.
    distances = torch.pdist(points, p=1.0 if manhattan else 2.0)
    median = float(distances.median())
    if median == 0.0:
        positive = distances[distances > 0]
        median = float(positive.median()) if len(positive) else 1.0
    return median


def _median_by_inner_products(points: torch.Tensor) -> float:
    """The median distance of pairs of rows, several times faster than by differences in many dimensions; 0 where it
    is too small against the points' norms for that to have enough digits."""
    centred = points - points.mean(0)
    norms = centred.square().sum(1)
    squared = torch.addmm(norms, centred, centred.T, alpha=-2.0).add_(norms[:, None])
    above = torch.triu_indices(len(points), len(points), offset=1, device=squared.device)
    median = float(squared[above[0], above[1]].median())
    return median**0.5 if median > SMALLEST_OF_NORMS * float(norms.max()) else 0.0


def choose_kernel(kernel: KernelChoice, bandwidth: Bandwidth, pooled: torch.Tensor) -> AnyKernel:
    """The kernel with its bandwidth, chosen on pooled rows in a seeded order if it is `median`."""
    return build_kernel(kernel, bandwidth, pooled.shape[1], lambda family: median_bandwidth(pooled, family))
