"""`null="auto"`: the most powerful exact form of a test that fits a time budget.

In order: all pairs of points with random labels of the points (permutation), of the members of pairs (sign flips,
n = m: the same power for a quarter of the multiply-adds), of bins (the same statistic, fewer labellings, no
multiply-adds); then fewer entries of the kernel matrix: incomplete statistics with as wide a reach as fits, down to
blocks and to the linear-time statistic. Times are predicted from n, d, the number of labellings and a calibration
that takes a fraction of a second: the code of each form runs on a few tiles of these points. They decide the form and
never see which sample a point belongs to.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.compositions import NullName, StatisticName
from gebm.evaluation.two_sample.designs import Design, Signs, design_forms
from gebm.evaluation.two_sample.kernels import Bandwidth, KernelChoice
from gebm.evaluation.two_sample.nulls.bins import bin_sums, points_per_bin
from gebm.evaluation.two_sample.nulls.permutation import random_labels
from gebm.evaluation.two_sample.nulls.sign_flip import random_signs
from gebm.evaluation.two_sample.shuffles import shuffle_pooled
from gebm.evaluation.two_sample.tiles import TILE_ROWS, labelled_sums, signed_sums, tile_rows

DEFAULT_BUDGET = 10.0  # seconds
DESIGN_BLOCK = 256  # pairs: large enough for the matrix rate
SMALLER_BLOCKS = (64, 16, 2)
SMALL_BLOCK_FACTOR = 3.0  # how much slower an entry is in a small block
CALIBRATION_TILES = 2  # rows of the calibration, in tiles
CALIBRATION_REPEATS = 2
LABELLED_POINTS = 8192  # of which labels are drawn for the calibration


class Rates(NamedTuple):
    """Seconds that parts of a test take on this machine, for these points and so many labellings.

    Attributes:
        permutation: an entry of the pooled kernel, computed and multiplied with all labellings.
        sign_flip: an entry of the matrix of pairs, four kernel values, multiplied with all sign vectors.
        bins: an entry of the pooled kernel, computed and summed into its bin.
        design: an entry of the matrix of pairs within a block of `DESIGN_BLOCK`, multiplied with all sign vectors.
        label: a random label of one point in one labelling.
        sign: a random sign of one pair in one sign vector.
        unpacked: such a sign from its bit, as the designs have it for each tile.
        preparation: shuffling, bandwidth, centring; once.
    """

    permutation: float
    sign_flip: float
    bins: float
    design: float
    label: float
    sign: float
    unpacked: float
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
    options = [
        _Option(
            "unbiased",
            "permutation",
            rates.preparation + entries_of_tiles(total) * rates.permutation + total * count * rates.label,
            "all pairs, all labellings",
        )
    ]
    if n == m:
        seconds = rates.preparation + entries_of_tiles(n) * rates.sign_flip + n * count * rates.sign
        options.append(_Option("paired", "sign_flip", seconds, "all pairs, sign flips"))
    seconds = rates.preparation + entries_of_tiles(total) * rates.bins
    options.append(_Option("unbiased", "bins", seconds, "all pairs, labels of bins"))
    if n != m:
        return options
    blocks = n // DESIGN_BLOCK
    for reach in range((blocks - 1) // 2, 0, -1):
        design = Design(DESIGN_BLOCK, blocks, reach)
        tiles = blocks * (reach + 1) * DESIGN_BLOCK**2
        seconds = rates.preparation + tiles * rates.design + (1 + 2 * reach) * n * count * rates.unpacked
        name = f"{design.entries / (n * (n - 1)):.0%} of the entries, sign flips"
        options.append(_Option("incomplete", "sign_flip", seconds, name, DESIGN_BLOCK, reach))
    for block in (DESIGN_BLOCK, *SMALLER_BLOCKS):
        if n // block < 2:
            continue
        slower = 1.0 if block == DESIGN_BLOCK else SMALL_BLOCK_FACTOR
        seconds = rates.preparation + slower * n * block * rates.design + n * count * rates.unpacked
        statistic: StatisticName = "linear_time" if block == 2 else "block"
        options.append(
            _Option(statistic, "sign_flip", seconds, f"blocks of {block}, sign flips", None if block == 2 else block)
        )
    return options


def entries_of_tiles(count: int, size: int = TILE_ROWS) -> int:
    """Entries of the tiles that cover the upper triangle of a `count x count` matrix; those on the diagonal whole."""
    full, rest = divmod(count, size)
    return size**2 * full * (full + 1) // 2 + rest * (full * size + rest)


def calibrate(
    x: torch.Tensor,
    y: torch.Tensor,
    kernel: KernelChoice,
    bandwidth: Bandwidth,
    permutations: int,
    rng: np.random.Generator,
) -> Rates:
    """Time each form of the test on the first few of these points."""
    begun = time.perf_counter()
    pooled = shuffle_pooled(x, y, kernel, bandwidth, rng)
    preparation = time.perf_counter() - begun
    device, chosen = pooled.rows.points.device, pooled.kernel
    size = tile_rows(device)
    rows = pooled.rows.take(slice(CALIBRATION_TILES * size))
    count = len(rows.points)
    labels, _ = random_labels(pooled.is_x[:count], permutations, rng)
    labels = labels.to(device)

    paired = pooled.rows.take(slice(2 * CALIBRATION_TILES * size))
    pairs = len(paired.points) // 2
    first, second = paired.take(slice(pairs)), paired.take(slice(pairs, 2 * pairs))
    true_signs = torch.ones(pairs, dtype=torch.int8)
    signs, _ = random_signs(true_signs, permutations, rng)
    signs = signs.to(device)
    block = min(DESIGN_BLOCK, pairs)
    design = Design(block, pairs // block, 0)

    per_bin = points_per_bin(len(x), len(y), None)
    binned = pooled.rows.take(slice(max(1, CALIBRATION_TILES * TILE_ROWS // per_bin) * per_bin))

    packed = Signs(true_signs, permutations, rng)

    def unpack() -> None:
        packed.rows(0, pairs).to(device, rows.precision).mul_(2.0).sub_(1.0)

    labelled = pooled.is_x[:LABELLED_POINTS]
    entries = design.blocks * block**2
    return Rates(
        permutation=_seconds(lambda: labelled_sums(rows, chosen, labels), device) / entries_of_tiles(count, size),
        sign_flip=_seconds(lambda: signed_sums(first, second, chosen, signs), device) / entries_of_tiles(pairs, size),
        bins=_seconds(lambda: bin_sums(binned, per_bin, [chosen]), device) / entries_of_tiles(len(binned.points)),
        design=_seconds(lambda: design_forms(first, second, chosen, design, packed), device) / entries,
        label=_seconds(lambda: random_labels(labelled, permutations, rng), device)
        / (len(labelled) * (permutations + 1)),
        sign=_seconds(lambda: random_signs(true_signs, permutations, rng), device) / (pairs * (permutations + 1)),
        unpacked=_seconds(unpack, device) / (pairs * (permutations + 1)),
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
