"""The relative test of samples in files: the test of `relative_mmd_test`, done in pieces."""

import torch

from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.distributed.blocks import Ground, Tiling, choose_tiling
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
from gebm.evaluation.two_sample.distributed.orders import triple_order
from gebm.evaluation.two_sample.distributed.relative_items import RelativeTask
from gebm.evaluation.two_sample.distributed.table import FeatureTable, check_tables
from gebm.evaluation.two_sample.distributed.tile_kernel import TileKernel
from gebm.evaluation.two_sample.kernels import Bandwidth, KernelChoice
from gebm.evaluation.two_sample.mmd import check_permutations, check_settings
from gebm.evaluation.two_sample.relative import RelativeResult, check_equal_sizes, outcome_of_sums


def distributed_relative_test(
    x: FeatureTable,
    model: FeatureTable,
    base: FeatureTable,
    *,
    kernel: KernelChoice | TileKernel = "gaussian",
    bandwidth: Bandwidth = "median",
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    precision: Precision = "float32",
    tiling: Tiling | None = None,
    on_gpu: bool = False,
    execute: Execute = here,
) -> RelativeResult:
    """Test whether `model` is closer to `x` than `base` is, in MMD, a tile of the kernel matrices at a time.

    Arguments as for `relative_mmd_test` and `distributed_mmd_test`.

    Raises:
        InputError: samples that cannot be compared, unequal sizes, settings that do not fit together.
    """
    check_settings(kernel if is_plain(kernel) else "gaussian", bandwidth, level)  # type: ignore[arg-type]
    check_permutations(permutations, level)
    check_precision(precision)
    tables = x, model, base
    check_tables(tables)
    n = check_equal_sizes(tables)
    derived = derive_seed(seed, "two_sample", "relative")
    order = triple_order(n, derived)
    wish = KernelWish(kernel, bandwidth, precision)
    chosen, centre = kernel_of_tables(wish, tables, order.some, 3 * n)
    task = RelativeTask(Ground(tables, centre, chosen, tiling or choose_tiling(16.0 * x.dimension, on_gpu), derived))
    sums = task.merge(execute(task))
    found = outcome_of_sums(sums, torch.from_numpy(order.truth), chosen.precision, permutations, order.rng)
    return RelativeResult(
        **found.measured(),
        reject=found.p_value <= level,
        n=n,
        dimension=x.dimension,
        kernel=name_of_wish(kernel),
        bandwidth=bandwidth_of_chosen(chosen),
        permutations=permutations,
        level=level,
        seed=seed,
    )
