"""How long a permutation test in pieces will take: time against n, m, d, labellings and workers.

`seconds = start + 2 N (P + 1) label + [N²/2 (2d / product + entry + 2 (P + 1) / labels) + items item] / workers`, with
`N = n + m`: every worker draws all labels, and the driver at the end; the tiles are shared. The constants are measured
on this machine in some seconds, or stated.
"""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.distributed.blocks import TILE_ROWS, choose_tiling
from gebm.evaluation.two_sample.distributed.executor import THREADS
from gebm.evaluation.two_sample.distributed.labellings import permuted_labels
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.samples import RowForm
from gebm.evaluation.two_sample.tiles import kernel_tile

REPEATS = 5
START_SECONDS = 2.0  # until actors have imported torch and are at work
ITEM_SECONDS = 0.05  # to gather rows and to write a result


class Rates(NamedTuple):
    """What one worker does.

    Attributes:
        product: floating-point operations a second of inner products of rows.
        labels: of products with labels.
        entry: seconds for all else that is done to a kernel value.
        label: seconds to draw a label.
        item: seconds that an item costs beside its tiles.
        start: seconds until workers are at work.
    """

    product: float
    labels: float
    entry: float
    label: float
    item: float = ITEM_SECONDS
    start: float = START_SECONDS


class Estimate(NamedTuple):
    """Seconds in all, what they go to, and how many floating-point operations the tiles are."""

    seconds: float
    drawing: float
    tiles: float
    items: int
    operations: float


def estimate(n: int, m: int, dimension: int, permutations: int, workers: int, rates: Rates, on_gpu: bool) -> Estimate:
    """The time of a permutation test of `n` and `m` points by `workers`."""
    total, count = n + m, permutations + 1
    entries = total**2 / 2
    group = choose_tiling(2.0 * dimension + 2.0 * count, on_gpu).group
    groups = -(-total // group)
    items = groups * (groups + 1) // 2
    drawing = 2 * total * count * rates.label
    each = 2.0 * dimension / rates.product + rates.entry + 2.0 * count / rates.labels
    tiles = (entries * each + items * rates.item) / min(workers, items)
    operations = entries * 2.0 * (dimension + count)
    return Estimate(rates.start + drawing + tiles, drawing, tiles, items, operations)


def calibrate(dimension: int, permutations: int, workers: int = 1) -> Rates:
    """The rates of one worker on a CPU of this machine, one thread, while as many others work as it has CPUs for; for
    the Gaussian kernel in float32."""
    threads = torch.get_num_threads()
    form = RowForm(torch.float32, torch.float32, False)
    rows, columns = (form.rows(torch.randn(TILE_ROWS, dimension)) for _ in range(2))
    kernel = Kernel("gaussian", float(dimension) ** 0.5, dimension)
    tile = torch.rand(TILE_ROWS, TILE_ROWS)
    signs = torch.ones(TILE_ROWS, permutations + 1)
    is_x = np.arange(8 * TILE_ROWS) % 2 == 0
    parts: list[Callable[[], object]] = [
        lambda: rows.points @ columns.points.T,
        lambda: kernel_tile(rows, columns, kernel),
        lambda: (tile.sum(0), tile.sum(1)),
        lambda: (tile @ signs).mul_(signs).sum(0, dtype=torch.float64),
        lambda: permuted_labels(is_x, permutations, np.random.default_rng(0)),
    ]
    together = min(workers, os.cpu_count() or 1)
    with ThreadPoolExecutor(together) as pool:
        found = list(pool.map(lambda _: [_seconds(part) for part in parts], range(together)))
    torch.set_num_threads(threads)
    product, values, sums, by_labels, drawn = (median(each) for each in zip(*found, strict=True))
    entries = TILE_ROWS**2
    return Rates(
        product=2.0 * dimension * entries / product,
        labels=2.0 * (permutations + 1) * entries / by_labels,
        entry=max(0.0, values - product + sums) / entries,
        label=drawn / (len(is_x) * (permutations + 1)),
    )


def _seconds(work: Callable[[], object]) -> float:
    """The median of a few, by one thread."""
    torch.set_num_threads(THREADS)
    work()
    found = []
    for _ in range(REPEATS):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return median(found)
