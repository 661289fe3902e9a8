"""The MMD two-sample test: are two samples from one distribution? (Gretton et al., JMLR 2012)"""

from dataclasses import dataclass
from math import ceil, isqrt
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.automatic import DEFAULT_BUDGET, calibrate, choose_form
from gebm.evaluation.two_sample.compositions import NULLS, NullName, StatisticName, check_sizes, compose
from gebm.evaluation.two_sample.designs import Design
from gebm.evaluation.two_sample.kernels import (
    AnyKernel,
    Bandwidth,
    KernelChoice,
    bandwidth_of,
    check_bandwidth,
    name_of,
)
from gebm.evaluation.two_sample.nulls.bins import bins_null, check_bins, points_per_bin
from gebm.evaluation.two_sample.nulls.normal import normal_null
from gebm.evaluation.two_sample.nulls.null_sample import Null, allowed, verdict
from gebm.evaluation.two_sample.nulls.permutation import permutation_null
from gebm.evaluation.two_sample.nulls.sign_flip import design_sign_flip_null, sign_flip_null
from gebm.evaluation.two_sample.nulls.spectrum import paired_spectrum_null, spectrum_null
from gebm.evaluation.two_sample.samples import Sample, as_samples
from gebm.evaluation.two_sample.shuffles import shuffle_bins, shuffle_pairs, shuffle_pooled

FEWEST_BLOCKS = 2


@dataclass(frozen=True)
class TestResult:
    """A test's outcome and everything needed to repeat it.

    Attributes:
        statistic: the estimate of MMD²; it may be negative.
        p_value: probability, under P = Q, of a p-value at most this large is at most this large; only about so for
            a null that is not exact.
        reject: whether `p_value <= level`.
        threshold: the critical value of the statistic at `level`.
        n: points in `x`.
        m: points in `y`.
        dimension: of the points.
        statistic_name: `unbiased` (MMD²_u), `biased`, `paired` (its form for pairs), `block`, `linear_time` or
            `incomplete`.
        kernel: name of the kernel.
        bandwidth: its `s`; None for kernels without one; for a sum, one for each term.
        null: `permutation`, `sign_flip`, `bins`, `normal` or `spectrum`.
        permutations: how many random labellings, or draws from the limit.
        level: the level tested at.
        seed: of everything random.
        exact: whether the level holds in finite samples.
        block: pairs in a block, for statistics of blocks.
        reach: with how many following blocks each block is compared, for `incomplete`.
        bins: how many bins there were.
        points_used: of both samples together; fewer than `n + m` where blocks or bins leave a remainder.
        why: with `null="auto"`, which form was taken and why; else empty.
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
    bandwidth: float | tuple[float | None, ...] | None
    null: str
    permutations: int
    level: float
    seed: int
    exact: bool
    block: int | None
    reach: int | None
    bins: int | None
    points_used: int
    why: str = ""


def mmd_test(
    x: Sample,
    y: Sample,
    *,
    kernel: KernelChoice = "gaussian",
    bandwidth: Bandwidth = "median",
    statistic: str | None = None,
    null: str = "permutation",
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device | None = None,
    block: int | None = None,
    reach: int = 1,
    bins: int | None = None,
    budget_seconds: float | None = None,
) -> TestResult:
    """Test whether `x` and `y` are samples of one distribution.

    The level of an exact null holds in finite samples for every kernel, bandwidth choice and data: everything that
    is chosen from the data (bandwidth, centring, precision) sees the pooled points only, in a seeded order, and
    never which sample a point belongs to.

    Args:
        x: `(n, d)` or images `(n, ...)`, which are flattened; array or tensor of any real dtype.
        y: `(m, d)`; n and m may differ, unless the statistic is made of pairs `(x_i, y_i)`.
        kernel: `gaussian`, `laplace`, `imq`, `rational_quadratic`, `energy`, `polynomial` or `linear`, or a sum:
            `gaussian+laplace`. Or a kernel that is ready, as `learnt` makes them.
        bandwidth: the kernel's `s`, or `median` for the median heuristic in its own norm. Not used by kernels
            without one. A sequence gives a sum one bandwidth for each term (None for a term without); one kernel
            with a sequence is its sum over those bandwidths.
        statistic: `unbiased`, `biased`, `paired`, `block`, `linear_time` or `incomplete`; None for the null's own,
            the first in the list below.
        null: exact ones: `permutation` (of unbiased, biased); `sign_flip` (of paired, unbiased, biased, block,
            linear_time, incomplete; n = m), a quarter of the work; `wild_bootstrap`, another name for sign flips, of
            `block` unless told otherwise; `bins` (of unbiased, biased), each kernel value used once. Asymptotic
            ones: `normal` (of block, linear_time; n = m), `spectrum` (of unbiased, biased, paired). `auto`: the most
            powerful exact form that fits `budget_seconds`; the result says which and why, and repeats by its name.
        permutations: random labellings, or draws from the limit; `level * (permutations + 1)` should be whole.
        level: probability of a false alarm.
        seed: of the shuffle and the labellings.
        device: where to compute; None for that of `x`.
        block: pairs in a block, for `block` and `incomplete`; None for about the root of n.
        reach: with how many following blocks each block is compared, for `incomplete`.
        bins: about how many, for `bins`; None for 256.
        budget_seconds: for `auto`; None for 10.

    Raises:
        InputError: samples that cannot be compared, or settings that do not fit together.
    """
    check_settings(kernel, bandwidth, level)
    check_permutations(permutations, level)
    check_budget(null, statistic, budget_seconds)
    points_x, points_y = as_samples({"x": x, "y": y}, device)
    n, m = len(points_x), len(points_y)
    why = ""
    if null == "auto":
        rng = np.random.default_rng(derive_seed(seed, "two_sample", "auto"))
        rates = calibrate(points_x, points_y, kernel, bandwidth, permutations, rng)
        plan = choose_form(n, m, permutations, rates, budget_seconds or DEFAULT_BUDGET)
        statistic, null, block, reach, _, why = plan
    statistic_name, null_name = compose(statistic, null)
    check_sizes(statistic_name, null_name, n, m)
    form = Form(statistic_name, null_name, permutations, level, block, reach, bins)
    rng = np.random.default_rng(derive_seed(seed, "two_sample", null_name))
    outcome = _run(points_x, points_y, kernel, bandwidth, form, rng)
    found = name_of(kernel), bandwidth_of(outcome.kernel)
    return result_of(outcome, form, (n, m, points_x.shape[1]), found, seed, why)


def result_of(
    outcome: "Outcome[Any]",
    form: "Form",
    shape: tuple[int, int, int],
    kernel: tuple[str, float | tuple[float | None, ...] | None],
    seed: int,
    why: str = "",
) -> TestResult:
    """The result of a test that has run. shape: n, m and d. kernel: its name, and the bandwidth that it had."""
    n, m, dimension = shape
    design = outcome.design
    return TestResult(
        **verdict(outcome.null, form.level),
        n=n,
        m=m,
        dimension=dimension,
        statistic_name=form.statistic,
        kernel=kernel[0],
        bandwidth=kernel[1],
        null=form.null,
        permutations=form.permutations,
        level=form.level,
        seed=seed,
        exact=NULLS[form.null].exact,
        block=design.block if design else None,
        reach=design.reach if design else None,
        bins=outcome.bins,
        points_used=outcome.points_used,
        why=why,
    )


def check_settings(kernel: KernelChoice, bandwidth: Bandwidth, level: float) -> None:
    """Refuse an unknown kernel, a bandwidth that is neither positive nor `median`, a level outside (0, 1)."""
    check_bandwidth(kernel, bandwidth)
    if not 0 < level < 1:
        raise InputError(f"level: must be between 0 and 1, got {level}")


def check_permutations(permutations: int, level: float) -> None:
    """Refuse so few labellings that no p-value could be as small as the level."""
    if permutations < 1 or allowed(level, permutations) < 1:
        needed = ceil(1 / level) - 1
        raise InputError(f"permutations: {permutations} are too few to reject at level {level}; use {needed} or more")


def check_budget(null: str, statistic: str | None, budget_seconds: float | None) -> None:
    """Refuse a budget or a statistic that does not go with the null."""
    if null != "auto":
        if budget_seconds is not None:
            raise InputError(f"budget_seconds: null={null!r} takes as long as it takes; a budget goes with null='auto'")
    elif statistic is not None:
        raise InputError(f"statistic: null='auto' chooses it; leave out {statistic!r}, or name a null")
    elif budget_seconds is not None and not budget_seconds > 0:
        raise InputError(f"budget_seconds: must be positive, got {budget_seconds}")


Kernel = TypeVar("Kernel")


class Form(NamedTuple):
    """The form of a test: see the arguments of `mmd_test`."""

    statistic: StatisticName
    null: NullName
    permutations: int
    level: float
    block: int | None
    reach: int
    bins: int | None


class Outcome(NamedTuple, Generic[Kernel]):
    """What a test came to, and the kernel that it chose."""

    null: Null
    kernel: Kernel
    points_used: int
    design: Design | None = None
    bins: int | None = None


def _run(
    x: torch.Tensor, y: torch.Tensor, kernel: KernelChoice, bandwidth: Bandwidth, form: Form, rng: np.random.Generator
) -> Outcome[AnyKernel]:
    total = len(x) + len(y)
    if form.null == "permutation":
        pooled = shuffle_pooled(x, y, kernel, bandwidth, rng)
        return Outcome(permutation_null(pooled, form.statistic, form.permutations, rng), pooled.kernel, total)
    if form.null == "bins":
        size = points_per_bin(len(x), len(y), form.bins)
        check_bins(len(x), len(y), size, form.level)
        bins = shuffle_bins(x, y, size, kernel, bandwidth, rng)
        found = bins_null(bins, form.statistic, form.permutations, rng)
        return Outcome(found, bins.kernel, len(bins.rows.points), bins=len(bins.is_x))
    if form.null == "spectrum" and form.statistic != "paired":
        pooled = shuffle_pooled(x, y, kernel, bandwidth, rng)
        return Outcome(spectrum_null(pooled, form.statistic, form.permutations, rng), pooled.kernel, total)
    design = design_of(form.statistic, len(x), form.block, form.reach)
    pairs = shuffle_pairs(x, y, kernel, bandwidth, rng)
    if form.null == "spectrum":
        return Outcome(paired_spectrum_null(pairs, form.permutations, rng), pairs.kernel, total)
    if design is None:
        return Outcome(sign_flip_null(pairs, form.statistic, form.permutations, rng), pairs.kernel, total)
    if form.null == "normal":
        return Outcome(normal_null(pairs, design), pairs.kernel, 2 * design.pairs, design)
    found = design_sign_flip_null(pairs, design, form.permutations, rng)
    return Outcome(found, pairs.kernel, 2 * design.pairs, design)


def design_of(statistic: StatisticName, n: int, block: int | None, reach: int) -> Design | None:
    """The block design of n pairs that a statistic names; None for statistics of all pairs.

    Raises:
        InputError: fewer than two blocks of at least two pairs, or a reach with which blocks would meet twice.
    """
    if statistic not in ("block", "linear_time", "incomplete"):
        return None
    size = 2 if statistic == "linear_time" else max(2, isqrt(n)) if block is None else block
    blocks = n // size if size > 0 else 0
    if size < 2 or blocks < FEWEST_BLOCKS:
        raise InputError(
            f"block: {n} pairs do not make {FEWEST_BLOCKS} blocks of {size}; take between 2 and {n // FEWEST_BLOCKS} "
            f"pairs a block, or statistic='paired'"
        )
    if statistic != "incomplete":
        return Design(size, blocks, 0)
    if not 0 <= reach <= (blocks - 1) // 2:
        raise InputError(
            f"reach: {blocks} blocks in a circle have a reach of 0 to {(blocks - 1) // 2}, got {reach}; take smaller "
            f"blocks, or statistic='paired', which is complete"
        )
    return Design(size, blocks, reach)
