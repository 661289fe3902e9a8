"""Two-sample tests against other libraries', at equal work: the same samples, bandwidth and number of permutations.

`python -m tests.benchmarks.two_sample [--quick] [--dimensions 2,64,1280] [--sizes 500,...] [--limit SECONDS]
[--json FILE] [--plot FILE.png]`. n = m points of two Gaussians. Ours: all pairs with permutations, sign flips and bins,
the incomplete statistic, and MMDAgg of 20 kernels; beside them alibi-detect, hyppo, torchmetrics' KID, goodpoints'
compress-then-test at g = 0 to 4, and the deep-kernel code's fast path. Peers run in an environment of their own
(`make peers`) as a process, are timed inside it, and get the same cores. A peer that is not there, that takes longer
than the limit, or that would by the square of n, gets a row that says so.

`of rate`: arithmetic of the distances and of the products with all labellings, each used once, over the time, as a
share of the machine's matrix rate, which is measured before and after every row.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from gebm.cluster import storage
from gebm.evaluation.kernel_distance import kernel_distance
from gebm.evaluation.two_sample import aggregated_mmd_test, mmd_test
from gebm.evaluation.two_sample.bandwidth import median_bandwidth
from tests.benchmarks.harness import machine, matrix_rate
from tests.benchmarks.two_sample_peers import Peers, einsum_test

PERMUTATIONS = 199
SIZES, DIMENSIONS = (500, 1000, 2000, 5000, 10_000, 20_000), (2, 64, 1280)
QUICK_SIZES, QUICK_DIMENSIONS = (100, 200), (2,)
LARGEST_STORED = 10_000  # points a sample whose kernel matrix fits into memory with what einsum makes of it
LEVELS = (0, 1, 2, 3, 4)  # of goodpoints' compression
SHORT = 1.0  # seconds of repeats


@dataclass(frozen=True)
class Row:
    """What one test took; `seconds` is None where there is none, and `note` says why.

    Attributes:
        name: of the test.
        n: points a sample.
        dimension: of the points.
        seconds: the shortest of some calls.
        of_rate: share of the matrix rate; None where arithmetic is not counted.
        note: why there is no time.
    """

    name: str
    n: int
    dimension: int
    seconds: float | None
    of_rate: float | None = None
    note: str = ""


def samples(n: int, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Float32 `(n, d)` twice, the second a little wider."""
    rng = np.random.default_rng([n, dimension])
    x, y = (rng.normal(size=(n, dimension)).astype(np.float32) for _ in range(2))
    return x, (1.0 + 0.5 / dimension) * y


def shortest(work: Callable[[], object]) -> float:
    """Seconds of the shortest of at least two calls, after one that warms up if it was short."""
    times: list[float] = []
    while len(times) < 2 or sum(times) < SHORT:
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def our_rows(x: np.ndarray, y: np.ndarray, bandwidth: float, permutations: int) -> Iterator[Row]:
    n, d = x.shape
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    entries = (2 * n) ** 2 / 2
    tests: dict[str, tuple[Callable[[], object], float | None]] = {
        "permutations": (
            lambda: mmd_test(a, b, bandwidth=bandwidth, permutations=permutations),
            entries * 2 * (d + permutations + 1),
        ),
        "permutations, bandwidth by median": (lambda: mmd_test(a, b, permutations=permutations), None),
        "permutations, 999 of them": (
            lambda: mmd_test(a, b, bandwidth=bandwidth, permutations=999),
            entries * 2 * (d + 1000),
        ),
        "sign flips": (
            lambda: mmd_test(a, b, bandwidth=bandwidth, null="sign_flip", permutations=permutations),
            entries * 2 * d + n**2 / 2 * 2 * (permutations + 1),
        ),
        "bins": (
            lambda: mmd_test(a, b, bandwidth=bandwidth, null="bins", permutations=permutations),
            entries * 2 * d,
        ),
        "blocks of 16, sign flips": (
            lambda: mmd_test(
                a, b, bandwidth=bandwidth, null="sign_flip", statistic="block", block=16, permutations=permutations
            ),
            None,
        ),
        "MMDAgg, 20 kernels, bins": (lambda: aggregated_mmd_test(a, b), None),
        "KID, 100 subsets": (lambda: kernel_distance(x, y), None),
    }
    for name, (work, operations) in tests.items():
        if "MMDAgg" in name and n * d > 5000 * 64:
            yield Row(f"ours: {name}", n, d, None, None, "left out of larger samples: a row would take minutes")
            continue
        rate = matrix_rate(seconds=0.2)
        seconds = shortest(work)
        rate = (rate + matrix_rate(seconds=0.2)) / 2
        yield Row(f"ours: {name}", n, d, seconds, operations / seconds / rate if operations else None)


def einsum_row(x: np.ndarray, y: np.ndarray, bandwidth: float, permutations: int) -> Row:
    n, d = x.shape
    if n > LARGEST_STORED:
        return Row("einsum on the stored kernel", n, d, None, None, f"kernel of {16e-9 * n**2:.0f} GB not stored")
    a, b = torch.from_numpy(x), torch.from_numpy(y)
    return Row("einsum on the stored kernel", n, d, shortest(lambda: einsum_test(a, b, bandwidth, permutations)))


def peer_requests(bandwidth: float, permutations: int) -> dict[str, dict[str, object]]:
    shared: dict[str, object] = {"bandwidth": bandwidth, "permutations": permutations}
    return {
        "alibi-detect": {"peer": "alibi-detect", **shared},
        "hyppo": {"peer": "hyppo", **shared},
        "torchmetrics KID": {"peer": "torchmetrics", **shared},
        **{f"compress-then-test, g = {g}": {"peer": "goodpoints", "g": g, **shared} for g in LEVELS},
    }


def measure(
    dimensions: Sequence[int], sizes: Sequence[int], permutations: int, limit: float, only: str = ""
) -> Iterator[Row]:
    """All rows. A peer whose time, grown by the square of n, would pass the limit is not asked."""
    last: dict[tuple[str, int], tuple[int, float]] = {}
    with Peers() as peers:
        for d in dimensions:
            for n in sizes:
                x, y = samples(n, d)
                bandwidth = median_bandwidth(torch.from_numpy(np.concatenate([x[:500], y[:500]])), "gaussian")
                if only in "ours":
                    yield from our_rows(x, y, bandwidth, permutations)
                    yield einsum_row(x, y, bandwidth, permutations)
                for name, request in peer_requests(bandwidth, permutations).items():
                    if only not in name:
                        continue
                    before = last.get((name, d))
                    expected = before[1] * (n / before[0]) ** 2 if before and name in ("alibi-detect", "hyppo") else 0.0
                    if expected > limit:
                        note = f"not run: {expected:.0f} s by the square of n, from {before[1]:.1f} s at {before[0]}"  # type: ignore[index]
                        yield Row(name, n, d, None, None, note)
                        continue
                    answer = peers.ask(x, y, request, limit_seconds=max(3 * limit, 60.0))
                    seconds = answer.get("seconds")
                    if seconds is not None:
                        last[name, d] = (n, seconds)
                    yield Row(name, n, d, seconds, None, answer.get("error", ""))


def ratios(rows: Sequence[Row]) -> list[str]:
    """How the targets are met, where both sides of one were measured."""
    found = {(row.name, row.n, row.dimension): row.seconds for row in rows if row.seconds is not None}
    lines = []
    for (name, n, d), seconds in found.items():
        if name.startswith("ours"):
            continue
        mine = found.get(("ours: KID, 100 subsets" if "KID" in name else "ours: permutations", n, d))
        if mine is not None:
            lines.append(f"{name} at n = {n}, d = {d}: {seconds / mine:.3g} times as long as ours")
    return lines


def plot(rows: Sequence[Row], path: Path) -> None:
    """Seconds against n, both logarithmic, a panel a dimension."""
    from matplotlib.figure import Figure

    dimensions = sorted({row.dimension for row in rows})
    figure = Figure(figsize=(5.5 * len(dimensions), 5), layout="constrained")
    axes = figure.subplots(1, len(dimensions), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(row.name for row in rows))
    for axis, d in zip(axes, dimensions, strict=True):
        for index, name in enumerate(names):
            points = [(row.n, row.seconds) for row in rows if row.name == name and row.dimension == d and row.seconds]
            if points:
                style = {"linewidth": 2} if name.startswith("ours") else {"linestyle": "--", "linewidth": 1}
                axis.plot(*zip(*points, strict=True), marker="o", ms=3, label=name, color=f"C{index % 10}", **style)
        axis.set(xscale="log", yscale="log", xlabel="n = m", title=f"d = {d}")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: ends within a minute")
    parser.add_argument("--dimensions", metavar="D,D", help="default 2,64,1280")
    parser.add_argument("--sizes", metavar="N,N", help="points a sample; default 500 to 20,000")
    parser.add_argument("--permutations", type=int, default=PERMUTATIONS)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds that a peer's test may take")
    parser.add_argument("--only", metavar="TEXT", default="", help="`ours`, or peers whose name holds this")
    parser.add_argument("--json", metavar="FILE", help="file that gets the rows")
    parser.add_argument("--plot", metavar="FILE", help="PNG that gets the curves")
    options = parser.parse_args(arguments)
    dimensions = _numbers(options.dimensions) or (QUICK_DIMENSIONS if options.quick else DIMENSIONS)
    sizes = _numbers(options.sizes) or (QUICK_SIZES if options.quick else SIZES)
    rows = list(measure(dimensions, sizes, options.permutations, options.limit, options.only))
    table = Table(
        "test", "n", "d", "seconds", "of rate", "", title=f"Two-sample tests, {options.permutations} permutations"
    )
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.4g}"
        share = "" if row.of_rate is None else f"{row.of_rate:.0%}"
        table.add_row(row.name, str(row.n), str(row.dimension), seconds, share, row.note)
    console = Console(highlight=False)
    console.print(table)
    for line in ratios(rows):
        console.print(line)
    here = machine()
    console.print("  ".join(f"{key}: {value}" for key, value in here.items() if value))
    if options.json:
        record = {"machine": here, "permutations": options.permutations, "rows": [asdict(row) for row in rows]}
        storage.write_json_atomic(storage.absolute(options.json), record)
    if options.plot:
        plot(rows, Path(options.plot))
    return 0


def _numbers(text: str | None) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",")) if text else ()


if __name__ == "__main__":
    sys.exit(main())
