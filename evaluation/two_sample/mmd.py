"""The MMD two-sample test: are two samples from one distribution? (Gretton et al., JMLR 2012)"""

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.bandwidth import median_bandwidth
from gebm.evaluation.two_sample.kernels import KERNELS, Kernel
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, allowed
from gebm.evaluation.two_sample.nulls.permutation import permutation_null
from gebm.evaluation.two_sample.nulls.sign_flip import sign_flip_null
from gebm.evaluation.two_sample.samples import Rows, Sample, as_samples, pool, prepare_rows

NULLS = ("permutation", "sign_flip")


@dataclass(frozen=True)
class TestResult:
    """A test's outcome and everything needed to repeat it.

    Attributes:
        statistic: the estimate of MMD²; it may be negative.
        p_value: probability, under P = Q, of a p-value at most this large is at most this large.
        reject: whether `p_value <= level`.
        threshold: the critical value of the statistic at `level`.
        n: points in `x`.
        m: points in `y`.
        dimension: of the points.
        statistic_name: `unbiased` (MMD²_u) or `paired` (its form for pairs, used by sign flips).
        kernel: name of the kernel.
        bandwidth: its `s`; None for kernels without one.
        null: `permutation` or `sign_flip`.
        permutations: how many random labellings.
        level: the level tested at.
        seed: of everything random.
    """

    __test__: ClassVar[bool] = False  # not a test case, whatever its name makes pytest think

    statistic: float
    p_value: float
    reject: bool
    threshold: float
    n: int
    m: int
    dimension: int
    statistic_name: str
    kernel: str
    bandwidth: float | None
    null: str
    permutations: int
    level: float
    seed: int


def mmd_test(
    x: Sample,
    y: Sample,
    *,
    kernel: str = "gaussian",
    bandwidth: float | Literal["median"] = "median",
    null: str = "permutation",
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> TestResult:
    """Test whether `x` and `y` are samples of one distribution.

    The level is exact in finite samples for every kernel, bandwidth choice and data: everything that is
    chosen from the data (bandwidth, centring, precision) sees the pooled points only, in a seeded order, and
    never which sample a point belongs to.

    Args:
        x: `(n, d)` or images `(n, ...)`, which are flattened; array or tensor of any real dtype.
        y: `(m, d)`; n and m may differ.
        kernel: `gaussian`, `laplace`, `imq`, `rational_quadratic`, `energy`, `polynomial` or `linear`.
        bandwidth: the kernel's `s`, or `median` for the median heuristic. Not used by kernels without one.
        null: `permutation`, or `sign_flip` (n = m only): a quarter of the work, statistic in the paired form.
        permutations: random labellings; `level * (permutations + 1)` should be whole.
        level: probability of a false alarm.
        seed: of the shuffle and the labellings.
        device: where to compute; None for that of `x`.

    Raises:
        InputError: samples that cannot be compared, or settings that do not fit together.
    """
    check_settings(kernel, bandwidth, level)
    if null not in NULLS:
        raise InputError(f"null: no null distribution {null!r}; there are {', '.join(NULLS)}")
    if permutations < 1 or allowed(level, permutations) < 1:
        needed = int(np.ceil(1 / level)) - 1
        raise InputError(f"permutations: {permutations} are too few to reject at level {level}; use {needed} or more")
    points_x, points_y = as_samples({"x": x, "y": y}, device)
    n, m = len(points_x), len(points_y)
    if null == "sign_flip" and n != m:
        raise InputError(f"null: sign flips need pairs, but x has {n} points and y has {m}; use null='permutation'")
    rng = np.random.default_rng(derive_seed(seed, "two_sample", null))
    run = _permutation if null == "permutation" else _sign_flip
    outcome, chosen = run(points_x, points_y, kernel, bandwidth, permutations, rng)
    return TestResult(
        statistic=outcome.observed,
        p_value=outcome.p_value(),
        reject=outcome.rejects(level),
        threshold=outcome.threshold(level),
        n=n,
        m=m,
        dimension=points_x.shape[1],
        statistic_name="unbiased" if null == "permutation" else "paired",
        kernel=kernel,
        bandwidth=chosen.bandwidth if KERNELS[kernel].scaled else None,
        null=null,
        permutations=permutations,
        level=level,
        seed=seed,
    )


def check_settings(kernel: str, bandwidth: float | str, level: float) -> None:
    """Refuse an unknown kernel, a bandwidth that is neither positive nor `median`, a level outside (0, 1)."""
    if kernel not in KERNELS:
        raise InputError(f"kernel: no kernel {kernel!r}; there are {', '.join(KERNELS)}")
    positive = isinstance(bandwidth, int | float) and np.isfinite(bandwidth) and bandwidth > 0
    if bandwidth != "median" and not positive:
        raise InputError(f"bandwidth: must be a positive number or 'median', got {bandwidth!r}")
    if not 0 < level < 1:
        raise InputError(f"level: must be between 0 and 1, got {level}")


def choose_kernel(name: str, bandwidth: float | str, pooled: torch.Tensor) -> Kernel:
    """The kernel with its bandwidth, chosen on pooled rows in a seeded order if it is `median`."""
    if not KERNELS[name].scaled:
        return Kernel(name, 1.0, pooled.shape[1])
    chosen = median_bandwidth(pooled, name) if bandwidth == "median" else float(bandwidth)
    return Kernel(name, chosen, pooled.shape[1])


def _permutation(
    x: torch.Tensor,
    y: torch.Tensor,
    kernel_name: str,
    bandwidth: float | str,
    permutations: int,
    rng: np.random.Generator,
) -> tuple[NullSample, Kernel]:
    order = torch.from_numpy(rng.permutation(len(x) + len(y)))
    pooled = pool([x, y], order, KERNELS[kernel_name].translation_invariant)
    kernel = choose_kernel(kernel_name, bandwidth, pooled)
    outcome = permutation_null(prepare_rows(pooled, kernel), order < len(x), kernel, permutations, rng)
    return outcome, kernel


def _sign_flip(
    x: torch.Tensor,
    y: torch.Tensor,
    kernel_name: str,
    bandwidth: float | str,
    permutations: int,
    rng: np.random.Generator,
) -> tuple[NullSample, Kernel]:
    n = len(x)
    pairs = torch.from_numpy(rng.permutation(n))
    heads = torch.from_numpy(rng.integers(0, 2, size=n)).bool()
    # Pooled row p of x is p, of y is n + p; interleaved, so that the bandwidth's subsample holds whole pairs.
    order = torch.stack([torch.where(heads, pairs, pairs + n), torch.where(heads, pairs + n, pairs)], 1).flatten()
    pooled = pool([x, y], order, KERNELS[kernel_name].translation_invariant)
    kernel = choose_kernel(kernel_name, bandwidth, pooled)
    rows = prepare_rows(pooled, kernel)
    first = Rows(rows.points[0::2].contiguous(), rows.squared_norms[0::2].contiguous())
    second = Rows(rows.points[1::2].contiguous(), rows.squared_norms[1::2].contiguous())
    signs = torch.where(heads, 1, -1).to(torch.int8)
    return sign_flip_null(first, second, signs, kernel, permutations, rng), kernel
