"""Two-sample tests over many kernels at once, without splitting the data.

MMDAgg (Schrab et al., JMLR 2023) takes the smallest p-value over the kernels and corrects it on the same labellings;
FUSE (Biggs, Schrab, Gretton 2023) takes a soft maximum of normalised statistics. Both are one number for each
labelling, so that the test on that number is exact. Distances are computed once for all kernels.
"""

from dataclasses import dataclass
from math import sqrt
from typing import Literal

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.kernel_collections import fuse_kernels, mmdagg_kernels
from gebm.evaluation.two_sample.kernel_values import KernelValues, values_of_bins, values_of_permutations
from gebm.evaluation.two_sample.mmd import check_permutations
from gebm.evaluation.two_sample.nulls.bins import check_bins, points_per_bin
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, verdict
from gebm.evaluation.two_sample.samples import Sample, as_samples

METHODS = ("mmdagg", "fuse")
AGGREGATED_NULLS = ("bins", "permutation")


@dataclass(frozen=True)
class AggregatedResult:
    """An aggregated test's outcome and everything needed to repeat it.

    Attributes:
        statistic: MMDAgg: minus the smallest weighted p-value, `min_k p_k / w_k`; FUSE: the soft maximum.
        p_value: exact in finite samples.
        reject: whether `p_value <= level`.
        threshold: the test rejects when the statistic exceeds it.
        n: points in `x`.
        m: points in `y`.
        dimension: of the points.
        method: `mmdagg` or `fuse`.
        kernels: names of the kernels.
        bandwidths: the `s` of each.
        mmd: MMD²_u under each.
        p_values: of each alone, not corrected for there being several.
        null: `bins` or `permutation`.
        permutations: how many random labellings.
        level: the level tested at.
        seed: of everything random.
        bins: how many bins there were.
        points_used: of both samples together; fewer than `n + m` where bins leave a remainder.
    """

    statistic: float
    p_value: float
    reject: bool
    threshold: float
    n: int
    m: int
    dimension: int
    method: str
    kernels: tuple[str, ...]
    bandwidths: tuple[float, ...]
    mmd: tuple[float, ...]
    p_values: tuple[float, ...]
    null: str
    permutations: int
    level: float
    seed: int
    bins: int | None
    points_used: int


def aggregated_mmd_test(
    x: Sample,
    y: Sample,
    *,
    method: Literal["mmdagg", "fuse"] = "mmdagg",
    bandwidths: int = 10,
    null: Literal["bins", "permutation"] = "bins",
    permutations: int = 1999,
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device | None = None,
    bins: int | None = None,
) -> AggregatedResult:
    """Test whether `x` and `y` are samples of one distribution, under Gaussian and Laplace kernels at many
    bandwidths.

    The level is exact in finite samples: bandwidths, like everything else, see the pooled points only.

    Args:
        x: `(n, d)`, as for `mmd_test`.
        y: `(m, d)`.
        method: `mmdagg` or `fuse`; see `mmdagg_statistics` and `fuse_statistics`.
        bandwidths: for each of the two kernels.
        null: `bins`, with which another kernel costs one pass over its values; `permutation`, with which it costs
            a product with all labellings.
        permutations: random labellings; `level * (permutations + 1)` should be whole.
        level: probability of a false alarm.
        seed: of the shuffle and the labellings.
        device: where to compute; None for that of `x`.
        bins: about how many, for `bins`; None for 256.

    Raises:
        InputError: samples that cannot be compared, or settings that do not fit together.
    """
    if method not in METHODS:
        raise InputError(f"method: no method {method!r}; there are {', '.join(METHODS)}")
    if null not in AGGREGATED_NULLS:
        raise InputError(
            f"null: an aggregated test has an exact null, {', '.join(AGGREGATED_NULLS)}, and none {null!r}: the limit "
            f"of a maximum over kernels is not known"
        )
    if bandwidths < 1:
        raise InputError(f"bandwidths: must be at least 1, got {bandwidths}")
    if not 0 < level < 1:
        raise InputError(f"level: must be between 0 and 1, got {level}")
    check_permutations(permutations, level)
    points_x, points_y = as_samples({"x": x, "y": y}, device)
    n, m = len(points_x), len(points_y)
    rng = np.random.default_rng(derive_seed(seed, "two_sample_aggregated", null))
    collect = mmdagg_kernels if method == "mmdagg" else fuse_kernels
    if null == "bins":
        size = points_per_bin(n, m, bins)
        check_bins(n, m, size, level)
        values = values_of_bins(points_x, points_y, size, collect, bandwidths, permutations, rng)
    else:
        values = values_of_permutations(points_x, points_y, collect, bandwidths, permutations, rng)
    if method == "mmdagg":
        outcome = NullSample.around(mmdagg_statistics(values), values.position, 0.0)
    else:
        smaller = min(values.n, values.m)
        fused = fuse_statistics(values, smaller)
        rounding = 2.0 * float((values.rounding / fuse_scales(values, smaller)).max())
        outcome = NullSample.around(fused, values.position, rounding)
    alone = [NullSample.around(v, values.position, float(r)) for v, r in zip(values.mmd, values.rounding, strict=True)]
    return AggregatedResult(
        **verdict(outcome, level),
        n=n,
        m=m,
        dimension=points_x.shape[1],
        method=method,
        kernels=tuple(kernel.name for kernel in values.kernels),
        bandwidths=tuple(kernel.bandwidth for kernel in values.kernels),
        mmd=tuple(each.observed for each in alone),
        p_values=tuple(each.p_value() for each in alone),
        null=null,
        permutations=permutations,
        level=level,
        seed=seed,
        bins=values.bins,
        points_used=values.n + values.m,
    )


def mmdagg_statistics(values: KernelValues) -> torch.Tensor:
    """`-S_b = -min_k p_kb / w_k` of each labelling, `(P + 1,)`, with equal weights `w_k = 1/K`.

    `p_kb` is the rank p-value of labelling b among all under kernel k, ties counted. Counts are whole numbers, so
    that equal statistics are equal.
    """
    count = values.mmd.shape[1]
    ordered = values.mmd.sort(dim=1).values
    below = torch.searchsorted(ordered, values.mmd - values.rounding[:, None])
    smallest = (count - below).min(0).values.to(torch.float64)
    return -smallest * len(values.mmd) / count


def fuse_statistics(values: KernelValues, smaller: int) -> torch.Tensor:
    """`T = (1/omega) log mean_r exp(omega MMD²_u,r / sqrt(N_r))` of each labelling, `(P + 1,)`, with
    `omega = sqrt(n(n-1))`, n the smaller size."""
    omega = sqrt(smaller * (smaller - 1))
    scaled = omega * values.mmd / fuse_scales(values, smaller)[:, None]
    return (torch.logsumexp(scaled, 0) - np.log(len(values.mmd))) / omega


def fuse_scales(values: KernelValues, smaller: int) -> torch.Tensor:
    """`sqrt(N_r)`, `N_r = 1/(n(n-1)) Σ_{i≠j} k_r(z_i, z_j)²` over all pooled points, `(K,)`. A kernel so narrow that
    all its values vanish has all its statistics zero; its scale is then of no account and set to 1."""
    scales = (values.squares / (smaller * (smaller - 1))).sqrt()
    return torch.where(scales > 0, scales, 1.0)
