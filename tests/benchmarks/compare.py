"""`gebm compare` in pieces: time, share of the matrix rate and memory, against the cost model; bfloat16; streams.

`python -m tests.benchmarks.compare [--quick] [--json FILE]`, on CPUs, two actors of one thread each. n = m vectors of
d = 1,280 in files, as features are; 999 permutations:

- n = 10,000 in float32 and bfloat16, and n = 50,000 in float32. The share is of the float32 matrix rate of this run on
  both cores. The peer is the cost model, calibrated in this run. Operations counted: `N²/2 (2d + 2 (P + 1))`. Time from
  the call to its result, Ray itself already started.
- the block test of n = m = 1,000,000 vectors of d = 64, made while they are read, blocks of 1,000.

Memory is the driver's and the actors' together, pages that they share counted once; Ray's own processes and the
system's cache of files are not among it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from gebm.cluster.connect import connection
from gebm.cluster.farm import FarmProgress
from gebm.evaluation.comparison import ComparisonSettings, compare_sets
from gebm.evaluation.two_sample.distributed.cost import Rates, calibrate, estimate
from gebm.evaluation.two_sample.distributed.stream import stream_block_test
from tests.benchmarks.harness import Record, machine, main, matrix_rate, timed
from tests.benchmarks.memory import PeakMemory

ACTORS = 2
GPUS = 64
GPU_RATE = 50e12  # float32 operations a second of one H100 in large products: three quarters of its data sheet's 67e12
WRITTEN_AT_A_TIME = 10_000


class Scale(NamedTuple):
    """What is measured: sizes of complete tests, of which the first also in bfloat16, and of the stream."""

    sizes: tuple[int, ...]
    dimension: int
    permutations: int
    stream: int
    stream_block: int


FULL = Scale((10_000, 50_000), 1280, 999, 1_000_000, 1000)
QUICK = Scale((1_500,), 64, 99, 20_000, 100)


class Run(NamedTuple):
    """One comparison."""

    seconds: float
    peak: int
    result: dict[str, Any]


def measure(quick: bool) -> list[Record]:
    scale = QUICK if quick else FULL
    return [*complete(scale), stream(scale)]


def complete(scale: Scale) -> list[Record]:
    rate = matrix_rate()
    rates = calibrate(scale.dimension, scale.permutations, ACTORS)
    records = []
    with tempfile.TemporaryDirectory(prefix="gebm-compare-") as folder, connection("local", cpus=ACTORS):
        for size in scale.sizes:
            x, y = (
                vectors(f"{folder}/{name}-{size}.npy", size, scale.dimension, seed) for seed, name in enumerate("xy")
            )
            run = compare(x, y, scale, "float32", f"{folder}/out-{size}")
            records.append(record_of(run, size, scale, rates, rate))
            if size == scale.sizes[0]:
                half = compare(x, y, scale, "bf16", f"{folder}/half-{size}")
                tell_error(run.result, half.result)
                case = f"n = m = {size:,}, bf16"
                records.append(Record(case, half.seconds, "float32", run.seconds, None, of_run(half)))
            os.remove(x)
            os.remove(y)
    predict(rates, scale)
    return records


def vectors(path: str, count: int, dimension: int, seed: int) -> str:
    """Writes normal vectors, the second sample's a little wider."""
    rng = np.random.default_rng(seed)
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, dimension))
    for start in range(0, count, WRITTEN_AT_A_TIME):
        block = values[start : start + WRITTEN_AT_A_TIME]
        block[:] = rng.standard_normal(block.shape, dtype=np.float32)
        block *= 1.0 + 0.001 * seed
    values.flush()
    return path


def compare(x: str, y: str, scale: Scale, precision: str, output: str) -> Run:
    pids = {os.getpid()}
    told = time.monotonic()

    def look(farm: str, progress: FarmProgress) -> None:
        nonlocal told
        pids.update(progress.actor_pids)
        if time.monotonic() - told > 15:
            told = time.monotonic()
            print(f"{farm}: {progress.done} of {progress.total}", file=sys.stderr, flush=True)

    settings = ComparisonSettings(permutations=scale.permutations, precision=precision)  # type: ignore[arg-type]
    found: list[dict[str, Any]] = []
    with PeakMemory(lambda: list(pids)) as memory:
        seconds = timed(lambda: found.append(compare_sets(x, y, settings, output=output, actors=ACTORS, progress=look)))
    return Run(seconds, memory.peak, found[0])


def record_of(run: Run, size: int, scale: Scale, rates: Rates, rate: float) -> Record:
    predicted = estimate(size, size, scale.dimension, scale.permutations, ACTORS, rates, on_gpu=False)
    share = predicted.operations / run.seconds / rate
    print(
        f"n = m = {size:,}, d = {scale.dimension:,}, {scale.permutations} permutations: {run.seconds:.1f} s, predicted "
        f"{predicted.seconds:.1f} s, {predicted.operations:.3g} operations, {share:.0%} of {rate / 1e9:.0f} GFLOP/s, "
        f"peak {run.peak / 2**30:.2f} GiB, p = {run.result['p_value']}",
        flush=True,
    )
    return Record(f"n = m = {size:,}", run.seconds, "cost model", predicted.seconds, share, of_run(run))


def tell_error(full: dict[str, Any], half: dict[str, Any]) -> None:
    """What bfloat16 costs, beside the spread that a test decides on."""
    spread = abs(full["threshold"] - full["statistic"])
    error = abs(half["statistic"] - full["statistic"])
    moved = abs(half["threshold"] - full["threshold"])
    print(
        f"bf16: statistic {half['statistic']:.6g} for {full['statistic']:.6g}, threshold {half['threshold']:.6g} for "
        f"{full['threshold']:.6g}: off by {error:.2g} and {moved:.2g}, of {spread:.2g} between the two; p = "
        f"{half['p_value']} for {full['p_value']}",
        flush=True,
    )


def predict(rates: Rates, scale: Scale) -> None:
    """A million against a million on 64 GPUs, by arithmetic; labels are drawn at this machine's rate."""
    gpu = rates._replace(product=GPU_RATE, labels=GPU_RATE, entry=1e-11, item=0.2)
    found = estimate(10**6, 10**6, 1280, 999, GPUS, gpu, on_gpu=True)
    print(
        f"predicted, n = m = 1,000,000, d = 1,280, 999 permutations on {GPUS} GPUs of {GPU_RATE / 1e12:.0f} TFLOP/s: "
        f"{found.seconds:.0f} s, of which labels {found.drawing:.0f} s, tiles {found.tiles:.0f} s in {found.items} "
        f"items; {found.operations:.3g} operations"
    )


def stream(scale: Scale) -> Record:
    """The block test in one pass."""
    dimension = 64
    found: list[Any] = []

    def pieces(seed: int) -> Iterator[torch.Tensor]:
        rng = np.random.default_rng(seed)
        for start in range(0, scale.stream, WRITTEN_AT_A_TIME):
            count = min(WRITTEN_AT_A_TIME, scale.stream - start)
            yield torch.from_numpy(rng.standard_normal((count, dimension), dtype=np.float32))

    with PeakMemory(lambda: [os.getpid()]) as memory:
        seconds = timed(lambda: found.append(stream_block_test(pieces(2), pieces(3), block=scale.stream_block)))
    print(
        f"stream: n = m = {scale.stream:,}, d = {dimension}, blocks of {scale.stream_block:,}: {seconds:.1f} s, peak "
        f"{memory.peak / 2**30:.2f} GiB of the process with all that it has imported, p = {found[0].p_value:.3f}",
        flush=True,
    )
    case = f"block test of a stream, n = m = {scale.stream:,}"
    return Record(case, seconds, None, None, None, {**machine(), "peak_bytes": memory.peak})


def of_run(run: Run) -> dict[str, Any]:
    return {**machine(), "threads": 1, "actors": ACTORS, "peak_bytes": run.peak, "p_value": run.result["p_value"]}


if __name__ == "__main__":
    main("gebm compare", measure)
