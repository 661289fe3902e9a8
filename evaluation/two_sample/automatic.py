"""`null="auto"`: the most powerful exact form of a test that fits a time budget.

In order: all pairs of points with random labels of the points (permutation), of the members of pairs (sign flips,
n = m: the same power for a quarter of the multiply-adds), of bins (the same statistic, fewer labellings, no
multiply-adds); then fewer entries of the kernel matrix: incomplete statistics with as wide a reach as fits, down to
blocks and to the linear-time statistic. Times are predicted from n, d, the number of labellings and a calibration
that takes a fraction of a second; they decide the form and never see which sample a point belongs to.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.compositions import NullName, StatisticName
from gebm.evaluation.two_sample.designs import Design
from gebm.evaluation.two_sample.kernels import Bandwidth, KernelChoice
from gebm.evaluation.two_sample.shuffles import shuffle_pooled
from gebm.evaluation.two_sample.tiles import TILE_ROWS, kernel_tile

DEFAULT_BUDGET = 10.0  # seconds
DESIGN_BLOCK = 256  # pairs: large enough for the matrix rate
SMALLER_BLOCKS = (64, 16, 2)
SMALL_BLOCK_FACTOR = 3.0  # how much slower an entry is in a small block
CALIBRATION_REPEATS = 3


class Rates(NamedTuple):
    """Seconds that parts of a test take on this machine, for these points and so many labellings.

    Attributes:
        kernel: a kernel value.
        product: a kernel value times all labellings.
        reduction: a kernel value summed into its bin.
        label: a random label or sign, of one point in one labelling.
        preparation: shuffling, bandwidth, centring; once.
    """

    kernel: float
    product: float
    reduction: float
    label: float
    preparation: float


class Plan(NamedTuple):
    """A form of the test, how long it should take in seconds, and why it was taken."""

    statistic: StatisticName
    null: NullName
    block: int | None
    reach: int
    seconds: float
    why: str


class _Option(NamedTuple):
    statistic: StatisticName
    null: NullName
    seconds: float
    name: str
    block: int | None = None
    reach: int = 0


def choose_form(n: int, m: int, permutations: int, rates: Rates, budget_seconds: float) -> Plan:
    """The first of the forms, most powerful first, whose predicted time is within the budget.

    Raises:
        InputError: none is; says how much the cheapest needs.
    """
    options = _options(n, m, permutations, rates)
    too_long: list[str] = []
    for option in options:
        if option.seconds <= budget_seconds:
            passed = f", since {' and '.join(too_long[-2:])} would take longer than that" if too_long else ""
            why = f"{option.name}: about {_spell(option.seconds)} of the {_spell(budget_seconds)} allowed{passed}"
            return Plan(option.statistic, option.null, option.block, option.reach, option.seconds, why)
        too_long.append(f"{option.name} ({_spell(option.seconds)})")
    cheapest = min(options, key=lambda option: option.seconds)
    advice = "" if n == m else ", or samples of equal size, of which a part of the pairs can be used"
    raise InputError(
        f"budget_seconds: {n} and {m} points need about {_spell(cheapest.seconds)} for {cheapest.name}, the cheapest "
        f"exact form, more than the {_spell(budget_seconds)} allowed; take a larger budget{advice}"
    )


def _options(n: int, m: int, permutations: int, rates: Rates) -> list[_Option]:
    """All forms, most powerful first."""
    count, total = permutations + 1, n + m
    half = total**2 / 2  # the kernel matrix is symmetric
    options = [
        _Option(
            "unbiased",
            "permutation",
            rates.preparation + half * (rates.kernel + rates.product) + total * count * rates.label,
            "all pairs, all labellings",
        )
    ]
    if n == m:
        seconds = rates.preparation + half * rates.kernel + n**2 / 2 * rates.product + n * count * rates.label
        options.append(_Option("paired", "sign_flip", seconds, "all pairs, sign flips"))
    seconds = rates.preparation + half * (rates.kernel + rates.reduction)
    options.append(_Option("unbiased", "bins", seconds, "all pairs, labels of bins"))
    if n != m:
        return options
    entry = 4 * rates.kernel + rates.product
    blocks = n // DESIGN_BLOCK
    for reach in range((blocks - 1) // 2, 0, -1):
        design = Design(DESIGN_BLOCK, blocks, reach)
        tiles = blocks * (reach + 1) * DESIGN_BLOCK**2
        seconds = rates.preparation + tiles * entry + (1 + 2 * reach) * n * count * rates.label
        name = f"{design.entries / (n * (n - 1)):.0%} of the entries, sign flips"
        options.append(_Option("incomplete", "sign_flip", seconds, name, DESIGN_BLOCK, reach))
    for block in (DESIGN_BLOCK, *SMALLER_BLOCKS):
        if n // block < 2:
            continue
        slower = 1.0 if block == DESIGN_BLOCK else SMALL_BLOCK_FACTOR
        seconds = rates.preparation + slower * n * block * entry + n * count * rates.label
        statistic: StatisticName = "linear_time" if block == 2 else "block"
        options.append(
            _Option(statistic, "sign_flip", seconds, f"blocks of {block}, sign flips", None if block == 2 else block)
        )
    return options


def calibrate(
    x: torch.Tensor,
    y: torch.Tensor,
    kernel: KernelChoice,
    bandwidth: Bandwidth,
    permutations: int,
    rng: np.random.Generator,
) -> Rates:
    """Time one tile of these points, its product with all labellings, its sums and its labels."""
    begun = time.perf_counter()
    pooled = shuffle_pooled(x, y, kernel, bandwidth, rng)
    preparation = time.perf_counter() - begun
    rows = pooled.rows.take(slice(TILE_ROWS))
    count = len(rows.points)
    tile = kernel_tile(rows, rows, pooled.kernel)
    labels = torch.zeros(count, permutations + 1, dtype=tile.dtype, device=tile.device)
    zeros = np.zeros((min(64, permutations + 1), count), dtype=np.uint8)

    def product() -> None:
        ((tile @ labels).mul_(labels)).sum(0, dtype=torch.float64)

    def reduction() -> None:
        torch.linalg.vector_norm(tile, dim=1)
        tile.view(count, 1, -1).sum(2)

    return Rates(
        kernel=_seconds(lambda: kernel_tile(rows, rows, pooled.kernel), tile.device) / count**2,
        product=_seconds(product, tile.device) / count**2,
        reduction=_seconds(reduction, tile.device) / count**2,
        label=_seconds(lambda: rng.permuted(zeros, axis=1), tile.device) / zeros.size,
        preparation=preparation,
    )


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The shortest of a few calls, after one that warms up."""
    times = []
    for _ in range(CALIBRATION_REPEATS + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - begun)
    return min(times[1:])


def _spell(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 100 else f"{seconds:.0f} s"
