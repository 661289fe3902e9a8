"""The block test of two streams in one pass, in memory for a few blocks (Zaremba, Gretton, Blaschko 2013).

Blocks are consecutive pairs: nothing can be shuffled that is not all there, and samples that are independent draws need
no shuffle. A seeded coin orders the members of each pair, so that rounding knows nothing of the labels.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.npy import read_header
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.bandwidth import LARGEST_SUBSAMPLE, choose_kernel
from gebm.evaluation.two_sample.designs import Design, Signs, block_values, design_forms
from gebm.evaluation.two_sample.kernels import (
    AnyKernel,
    Bandwidth,
    KernelChoice,
    bandwidth_of,
    name_of,
    translation_invariant,
)
from gebm.evaluation.two_sample.mmd import TestResult, check_permutations, check_settings
from gebm.evaluation.two_sample.nulls.normal import NormalNull
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean, verdict
from gebm.evaluation.two_sample.samples import as_sample, prepare_rows

PAIRS_AT_A_TIME = 2048  # or one block, where it is larger
READ_BYTES = 8 * 2**20
LONGEST_HEADER = 2**16

Piece = torch.Tensor | np.ndarray


@dataclass
class _Sums:
    """What is kept of the blocks so far: how many, mean and centred squares of their values, the forms of all signs."""

    blocks: int = 0
    mean: float = 0.0
    squares: float = 0.0
    magnitude: float = 0.0
    forms: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.float64))

    def add(self, values: torch.Tensor, magnitude: float) -> None:
        """Values of further blocks (Chan et al. 1983)."""
        count, mean = len(values), float(values.mean())
        total = self.blocks + count
        self.squares += float((values - mean).square().sum()) + (mean - self.mean) ** 2 * self.blocks * count / total
        self.mean += (mean - self.mean) * count / total
        self.blocks = total
        self.magnitude += magnitude


def stream_block_test(
    x: Iterable[Piece],
    y: Iterable[Piece],
    *,
    block: int,
    null: Literal["normal", "sign_flip"] = "normal",
    kernel: KernelChoice = "gaussian",
    bandwidth: Bandwidth = "median",
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
) -> TestResult:
    """The block test of `x` and `y`, given piece by piece: the mean over blocks of the paired form in each.

    Bandwidth and centre are taken from the first rows of both, whichever sample they are of.

    Args:
        x: pieces `(k, d)` of any length, independent draws in any order.
        y: likewise, as many rows altogether.
        block: pairs in a block, 2 or more; pairs that fill no block at the end are left out.
        null: `normal`, the limit; or `sign_flip`, exact, with `permutations` sign vectors.
        kernel: as for `mmd_test`.
        bandwidth: likewise.
        permutations: of sign flips.
        level: probability of a false alarm.
        seed: of coins and sign vectors.

    Raises:
        InputError: streams that are not equally long, too short for two blocks, or hold what no test can take.
    """
    check_settings(kernel, bandwidth, level)
    if null not in ("normal", "sign_flip"):
        raise InputError(f"null: a stream is tested with 'normal' or 'sign_flip', got {null!r}")
    if null == "sign_flip":
        check_permutations(permutations, level)
    if block < 2:
        raise InputError(f"block: a block has at least 2 pairs, got {block}")
    rng = np.random.default_rng(derive_seed(seed, "two_sample", "stream"))
    position = int(rng.integers(permutations + 1))
    sums, pairs, chosen, centre = _Sums(), 0, None, None
    for some_x, some_y in _in_step(x, y, max(block, PAIRS_AT_A_TIME // block * block)):
        pairs, used = pairs + len(some_x), len(some_x) // block * block
        if used == 0:
            continue
        pooled, signs = _shuffle(some_x[:used], some_y[:used], rng)
        if chosen is None:
            if translation_invariant(kernel):
                centre = pooled.mean(0, dtype=torch.float64).to(pooled.dtype)
            chosen = choose_kernel(kernel, bandwidth, pooled[:LARGEST_SUBSAMPLE])
        _add_blocks(
            sums,
            pooled if centre is None else pooled - centre,
            signs,
            chosen,
            block,
            Signs(signs, permutations, rng) if null == "sign_flip" else None,
            position,
        )
    if chosen is None or sums.blocks < 2:
        raise InputError(f"block: {pairs} pairs do not make 2 blocks of {block}; take smaller ones")
    design = Design(block, sums.blocks, 0)
    found: NullSample | NormalNull
    rounding = rounding_of_mean(sums.magnitude / design.entries, design.pairs, torch.float32)
    if null == "normal":
        error = (sums.squares / (sums.blocks - 1) / sums.blocks) ** 0.5
        found = NormalNull(sums.mean, error, rounding)
    else:
        found = NullSample.around(sums.forms / design.entries, position, rounding)
    return TestResult(
        **verdict(found, level),
        n=pairs,
        m=pairs,
        dimension=chosen.terms[0].dimension,
        statistic_name="linear_time" if block == 2 else "block",
        kernel=name_of(kernel),
        bandwidth=bandwidth_of(chosen),
        null=null,
        permutations=permutations,
        level=level,
        seed=seed,
        exact=null == "sign_flip",
        block=block,
        reach=0,
        bins=None,
        points_used=2 * design.pairs,
    )


def pieces_of_file(path: str) -> Iterator[np.ndarray]:
    """The rows of a `.npy` file `(n, d)` or `(n, ...)`, in order, some at a time, on any storage. Nothing is mapped.

    Raises:
        InputError: no such file, no array of numbers in C order.
    """
    url = storage.absolute(path)
    try:
        header = read_header(storage.read_range(url, 0, LONGEST_HEADER), source=url)
    except FileNotFoundError as error:
        raise InputError(f"no file {url}") from error
    if header.fortran_order or len(header.shape) < 2 or header.dtype.kind not in "fiub":
        raise InputError(f"{url}: a stream is an array (n, d) of real numbers in C order; write it with numpy.save")
    width = int(np.prod(header.shape[1:]))
    step = max(1, READ_BYTES // (width * header.dtype.itemsize))
    for start in range(0, header.shape[0], step):
        stop = min(start + step, header.shape[0])
        begin, end = (header.begin + row * width * header.dtype.itemsize for row in (start, stop))
        data = storage.read_range(url, begin, end)
        if len(data) != end - begin:
            raise InputError(f"{url} is cut short; write it again")
        yield np.frombuffer(data, dtype=header.dtype).reshape(-1, width).copy()


def _add_blocks(
    sums: _Sums,
    pooled: torch.Tensor,
    signs: torch.Tensor,
    kernel: AnyKernel,
    block: int,
    flips: Signs | None,
    position: int,
) -> None:
    rows = prepare_rows(pooled, kernel)
    first, second = rows.every(2, 0), rows.every(2, 1)
    design = Design(block, len(signs) // block, 0)
    if flips is None:
        sums.add(*block_values(first, second, kernel, design, signs))
        return
    flips.position = position  # the same column in every piece
    forms, magnitude = design_forms(first, second, kernel, design, flips)
    sums.forms = forms if sums.blocks == 0 else sums.forms + forms
    sums.blocks += design.blocks
    sums.magnitude += magnitude


def _shuffle(x: torch.Tensor, y: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs one after the other, `(2k, d)`, their members ordered by a coin, and `(k,)` signs, 1 where X is first."""
    heads = torch.from_numpy(rng.integers(0, 2, size=len(x))).bool()
    first, second = torch.where(heads[:, None], x, y), torch.where(heads[:, None], y, x)
    return torch.stack([first, second], 1).flatten(0, 1), torch.where(heads, 1, -1).to(torch.int8)


def _in_step(x: Iterable[Piece], y: Iterable[Piece], step: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Pieces of both streams, of `step` rows each, the last shorter.

    Raises:
        InputError: one of them ends before the other; other dimensions.
    """
    sides = _regroup(x, "x", step), _regroup(y, "y", step)
    while True:
        some_x, some_y = (next(side, None) for side in sides)
        if some_x is None and some_y is None:
            return
        if some_x is None or some_y is None or len(some_x) != len(some_y):
            short = "x" if some_x is None or (some_y is not None and len(some_x) < len(some_y)) else "y"
            raise InputError(f"{short}: it ends before the other sample; a block test needs as many points of each")
        if some_x.shape[1] != some_y.shape[1]:
            raise InputError(f"x has dimension {some_x.shape[1]} and y has {some_y.shape[1]}: take the same space")
        dtype = torch.promote_types(some_x.dtype, some_y.dtype)
        yield some_x.to(dtype), some_y.to(dtype)


def _regroup(pieces: Iterable[Piece], name: str, step: int) -> Iterator[torch.Tensor]:
    """The same rows, `step` at a time; no more than a piece and `step` rows are held."""
    held: list[torch.Tensor] = []
    count = 0
    for piece in pieces:
        rest = as_sample(piece, name, None, fewest=1)
        while count + len(rest) >= step:
            yield torch.cat([*held, rest[: step - count]])
            rest, held, count = rest[step - count :], [], 0
        if len(rest):
            held.append(rest)
            count += len(rest)
    if held:
        yield torch.cat(held)
