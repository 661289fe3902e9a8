"""The MMD two-sample test of samples in files: the test of `mmd_test`, done in pieces.

The same shuffle, bandwidth, labellings and ties as in one process, so the p-value is the same; the statistic differs by
the rounding of sums that are added in another order.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample import statistics
from gebm.evaluation.two_sample.compositions import check_sizes, compose
from gebm.evaluation.two_sample.designs import Design
from gebm.evaluation.two_sample.distributed.bin_items import BinTask
from gebm.evaluation.two_sample.distributed.blocks import Ground, Tiling, choose_tiling
from gebm.evaluation.two_sample.distributed.design_items import BlockTask, DesignTask
from gebm.evaluation.two_sample.distributed.executor import Execute, here
from gebm.evaluation.two_sample.distributed.kernel_choice import (
    KernelWish,
    Precision,
    bandwidth_of_chosen,
    check_precision,
    is_plain,
    kernel_of_tables,
    name_of_wish,
)
from gebm.evaluation.two_sample.distributed.label_items import LabelTask
from gebm.evaluation.two_sample.distributed.orders import Order, bin_order, pair_order, pooled_order
from gebm.evaluation.two_sample.distributed.sign_items import SignTask
from gebm.evaluation.two_sample.distributed.table import FeatureTable, Points, check_tables
from gebm.evaluation.two_sample.distributed.tile_kernel import PlainKernel, TileKernel
from gebm.evaluation.two_sample.kernels import Bandwidth, KernelChoice
from gebm.evaluation.two_sample.mmd import (
    Form,
    Outcome,
    TestResult,
    check_permutations,
    check_settings,
    design_of,
    result_of,
)
from gebm.evaluation.two_sample.nulls.bins import check_bins, labelled_bin_sums, points_per_bin
from gebm.evaluation.two_sample.nulls.normal import NormalNull
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean
from gebm.evaluation.two_sample.nulls.permutation import random_labels
from gebm.evaluation.two_sample.nulls.spectrum import LARGEST_SPECTRUM, Limit, draw_limit, eigenvalues

_Found = Outcome[TileKernel]


class _Request(NamedTuple):
    """Everything but the form of the test."""

    x: FeatureTable
    y: FeatureTable
    wish: KernelWish
    seed: int
    tiling: Tiling | None
    on_gpu: bool
    execute: Execute

    def ground(self, order: Order, work_per_entry: float) -> Ground:
        """work_per_entry: floating-point operations for a pair of rows, of which `order` has so many."""
        tables = self.x, self.y
        kernel, centre = kernel_of_tables(self.wish, tables, order.some, len(order.rows))
        return Ground(tables, centre, kernel, self.tiling or choose_tiling(work_per_entry, self.on_gpu), self.seed)


def distributed_mmd_test(
    x: FeatureTable,
    y: FeatureTable,
    *,
    kernel: KernelChoice | TileKernel = "gaussian",
    bandwidth: Bandwidth = "median",
    statistic: str | None = None,
    null: str = "permutation",
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    block: int | None = None,
    reach: int = 1,
    bins: int | None = None,
    precision: Precision = "float32",
    tiling: Tiling | None = None,
    on_gpu: bool = False,
    execute: Execute = here,
) -> TestResult:
    """Test whether `x` and `y` are samples of one distribution, a tile of the kernel matrix at a time.

    Arguments as for `mmd_test`, and its result: the same p-value, and the same statistic to rounding.

    Args:
        x: n rows.
        y: m rows.
        kernel: as for `mmd_test`, or any object that computes tiles.
        null: all but `auto`.
        precision: `float32`, which is float64 where `mmd_test` takes that, or `bf16`: inner products of points and
            products with labels in bfloat16. Costs some digits of the statistic; an exact null stays exact.
        tiling: rows of a tile and of an item; None for what suits the work. Part of the result's last bits.
        on_gpu: whether items are done on GPUs, for the tiling.
        execute: does the items: `here`, or `on_farm` with its arguments bound.

    Raises:
        InputError: samples that cannot be compared, or settings that do not fit together.
    """
    check_settings(kernel if is_plain(kernel) else "gaussian", bandwidth, level)  # type: ignore[arg-type]
    check_permutations(permutations, level)
    check_precision(precision)
    if null == "auto":
        raise InputError("null: 'auto' chooses for one process; name the null of a distributed test")
    statistic_name, null_name = compose(statistic, null)
    check_tables((x, y))
    n, m = len(x), len(y)
    check_sizes(statistic_name, null_name, n, m)
    form = Form(statistic_name, null_name, permutations, level, block, reach, bins)
    wish = KernelWish(kernel, bandwidth, precision)
    request = _Request(x, y, wish, derive_seed(seed, "two_sample", null_name), tiling, on_gpu, execute)
    run = {"permutation": _permutation, "bins": _bins, "sign_flip": _sign_flip, "normal": _normal}
    found = run.get(null_name, _spectrum)(request, form)
    named = name_of_wish(kernel), bandwidth_of_chosen(found.kernel)
    return result_of(found, form, (n, m, x.dimension), named, seed)


def _permutation(request: _Request, form: Form) -> _Found:
    n, m = len(request.x), len(request.y)
    total = n + m
    work = 2.0 * request.x.dimension + 2.0 * (form.permutations + 1)
    task = LabelTask(request.ground(pooled_order(n, m, request.seed), work), form.permutations)
    sums, own, own_total = task.merge(request.execute(task))
    if form.statistic == "biased":
        values = statistics.biased(sums, own, own_total, n, m)
    else:
        values = statistics.unbiased(sums, n, m)
    kernel = task.ground.kernel
    rounding = rounding_of_mean(sums.magnitude / (total * (total - 1)), total, kernel.precision)
    return _Found(NullSample.around(values, task.labellings().position, rounding), kernel, total)


def _sign_flip(request: _Request, form: Form) -> _Found:
    design = design_of(form.statistic, len(request.x), form.block, form.reach)
    if design is not None:
        return _design_sign_flip(request, form, design)
    n = len(request.x)
    work = 8.0 * request.x.dimension + 2.0 * (form.permutations + 1)
    task = SignTask(request.ground(pair_order(n, request.seed), work), form.permutations)
    sums, own_total = task.merge(request.execute(task))
    if form.statistic == "paired":
        values = statistics.paired(sums.forms, n)
    elif form.statistic == "unbiased":
        values = statistics.unbiased_of_pairs(sums, n)
    else:
        values = statistics.biased_of_pairs(sums, own_total, n)
    kernel = task.ground.kernel
    rounding = rounding_of_mean(sums.magnitude / (n * (n - 1)), n, kernel.precision)
    return _Found(NullSample.around(values, task.labellings().position, rounding), kernel, 2 * n)


def _design_sign_flip(request: _Request, form: Form, design: Design) -> _Found:
    work = 8.0 * request.x.dimension + 2.0 * (form.permutations + 1)
    ground = _ground_of_design(request, design, work)
    task = DesignTask(ground, design, form.permutations)
    forms, magnitude = task.merge(request.execute(task))
    rounding = rounding_of_mean(magnitude / design.entries, design.pairs, ground.kernel.precision)
    null = NullSample.around(forms / design.entries, task.signs().position, rounding)
    return _Found(null, ground.kernel, 2 * design.pairs, design)


def _normal(request: _Request, form: Form) -> _Found:
    design = design_of(form.statistic, len(request.x), form.block, form.reach)
    assert design is not None, "the normal null takes statistics of blocks alone"
    task = BlockTask(_ground_of_design(request, design, 8.0 * request.x.dimension), design)
    values, magnitude = task.merge(request.execute(task))
    kernel = task.ground.kernel
    rounding = rounding_of_mean(magnitude / design.entries, design.pairs, kernel.precision)
    error = float(values.std(correction=1)) / design.blocks**0.5
    return _Found(NormalNull(float(values.mean()), error, rounding), kernel, 2 * design.pairs, design)


def _ground_of_design(request: _Request, design: Design, work_per_entry: float) -> Ground:
    """A group is as many pairs as make an item of some seconds: blocks are compared with few others."""
    ground = request.ground(pair_order(len(request.x), request.seed), work_per_entry)
    if request.tiling is not None:
        return ground
    pairs = ground.tiling.group**2 // (design.block * (1 + design.reach))
    return replace(ground, tiling=Tiling(design.block, max(1, pairs // design.block) * design.block))


def _bins(request: _Request, form: Form) -> _Found:
    n, m = len(request.x), len(request.y)
    size = points_per_bin(n, m, form.bins)
    check_bins(n, m, size, form.level)
    order = bin_order(n, m, size, request.seed)
    task = BinTask(request.ground(order, 2.0 * request.x.dimension), size)
    found, own_of_bins = task.merge(request.execute(task))
    is_x = torch.from_numpy(order.truth)
    labels, position = random_labels(is_x, form.permutations, order.rng)
    sums = labelled_bin_sums(found, labels)
    total, used = len(order.rows), int(is_x.sum()) * size
    if form.statistic == "biased":
        own = labels.to(torch.float64) @ own_of_bins
        values = statistics.biased(sums, own, float(own_of_bins.sum()), used, total - used)
    else:
        values = statistics.unbiased(sums, used, total - used)
    kernel = task.ground.kernel
    rounding = rounding_of_mean(sums.magnitude / (total * (total - 1)), total, kernel.precision)
    return _Found(NullSample.around(values, position, rounding), kernel, total, bins=len(is_x))


def _spectrum(request: _Request, form: Form) -> _Found:
    """The observed statistic by items, without random labels; its limit from the first rows, here."""
    n, m = len(request.x), len(request.y)
    total = n + m
    if form.statistic == "paired":
        order = pair_order(n, request.seed)
        signs = SignTask(request.ground(order, 8.0 * request.x.dimension), 0)
        found, _ = signs.merge(request.execute(signs))
        half = LARGEST_SPECTRUM // 2
        limit = _limit(signs.ground, _members_apart(order, half), form.permutations, order)
        rounding = rounding_of_mean(found.magnitude / (n * (n - 1)), n, signs.ground.kernel.precision)
        null = NullSample(float(statistics.paired(found.forms, n)[0]), 2.0 / n * (limit.squares - limit.mean), rounding)
        return _Found(null, signs.ground.kernel, total)
    order = pooled_order(n, m, request.seed)
    task = LabelTask(request.ground(order, 2.0 * request.x.dimension), 0)
    sums, own, own_total = task.merge(request.execute(task))
    kernel = task.ground.kernel
    rounding = rounding_of_mean(sums.magnitude / (total * (total - 1)), total, kernel.precision)
    limit, scale = _limit(task.ground, order.rows[:LARGEST_SPECTRUM], form.permutations, order), total / (n * m)
    if form.statistic == "biased":
        observed = statistics.biased(sums, own, own_total, n, m)
        return _Found(NullSample(float(observed[0]), scale * limit.squares, rounding), kernel, total)
    observed = statistics.unbiased(sums, n, m)
    return _Found(NullSample(float(observed[0]), scale * (limit.squares - limit.mean), rounding), kernel, total)


def _members_apart(order: Order, pairs: int) -> np.ndarray:
    """Rows of the first so many pairs: the first members, then the second ones."""
    return np.concatenate([order.rows[side::2][:pairs] for side in range(2)])


def _limit(ground: Ground, index: np.ndarray, draws: int, order: Order) -> Limit:
    kernel = ground.kernel
    if not isinstance(kernel, PlainKernel):
        raise InputError("null: 'spectrum' is for the library's kernels in float32; take 'permutation'")
    rows = kernel.prepare(Points(ground.tables, ground.centre).rows(index))
    return draw_limit(eigenvalues(rows, kernel.kernel), draws, order.rng)
