"""The input side of training by itself: images a second against plain WebDataset and DataLoader, and its memory.

`python -m tests.benchmarks.input [--shards FOLDER]`: the same images in the same plain .tar shards, batches of the
same size, in the same run. A side's clock starts when its first batch is there, so that nobody pays for starting a
process. Shards that are compressed are unpacked first: a DataLoader must find an image anywhere.

`python -m tests.benchmarks.input --million`: 1,000,000 images of 16x16 go once through a real training run of small
perceptrons, and then 100,000 through another; each image must come exactly once. The peak memory of both is told,
with the reader's cache at 16 MiB: smaller than either set.
"""

from __future__ import annotations

import argparse
import gzip
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from rich.console import Console
from rich.table import Table

from gebm.cluster import storage
from gebm.cluster.index import build_index, load_index, write_index
from gebm.cluster.lanes import LaneReader
from gebm.cluster.shards import encode_png, write_shard
from tests.benchmarks.harness import Record, machine, write_records
from tests.benchmarks.numbered_images import write_numbered_images
from tests.benchmarks.tar_images import data_loader, webdataset_pipeline

BATCH = 128
REPEATS = 5
OURS = "gebm"
PEERS = {
    "WebDataset": webdataset_pipeline,
    "DataLoader, in the process": lambda folder, batch: data_loader(folder, batch, workers=0),
    "DataLoader, one worker": lambda folder, batch: data_loader(folder, batch, workers=1),
}


class Batch(Protocol):
    def __len__(self) -> int: ...


def lanes(folder: str, batch: int) -> Iterator[np.ndarray]:
    """One epoch of ours, from the first image of a new reader."""
    with closing(LaneReader(folder, seed=0, batch_size=batch)) as reader:
        for step in range(reader.index.total // batch):
            yield reader.batch(step).images


def lanes_again(folder: str, batch: int) -> Iterator[np.ndarray]:
    """The second epoch of a reader: of a set that fits into its cache, nothing is decoded again."""
    with closing(LaneReader(folder, seed=0, batch_size=batch)) as reader:
        steps = reader.index.total // batch
        for step in range(2 * steps):
            images = reader.batch(step).images
            if step >= steps:
                yield images


def rate(batches: Iterator[Batch]) -> float:
    """Images a second, from the moment that the first batch is there."""
    next(batches)
    begun, count = time.perf_counter(), 0
    for batch in batches:
        count += len(batch)
    return count / (time.perf_counter() - begun)


def measure(folder: str, batch: int = BATCH, repeats: int = REPEATS) -> dict[str, list[float]]:
    """Images a second of every side, in turns: the indexed plain .tar shards in `folder`, once through."""
    sides: dict[str, Callable[[str, int], Iterator[Any]]] = {
        OURS: lanes,
        **PEERS,
        f"{OURS}, second epoch": lanes_again,
    }
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, side in sides.items():
            rates[name].append(rate(side(folder, batch)))
    return rates


def records(rates: dict[str, list[float]], total: int) -> list[Record]:
    """Median seconds for `total` images, ours and each peer's."""
    here = machine()
    seconds = {name: total / statistics.median(found) for name, found in rates.items()}
    return [Record(f"{total:,} images", seconds[OURS], peer, seconds[peer], None, here) for peer in PEERS]


def print_rates(rates: dict[str, list[float]], title: str) -> None:
    """Medians and ranges; `ratio` is ours over the peer: above 1, ours is faster."""
    table = Table("side", "images/s", "least", "most", "ratio", title=title, title_justify="left")
    ours = statistics.median(rates[OURS])
    for name, found in rates.items():
        median = statistics.median(found)
        ratio = f"{ours / median:.2f}" if name in PEERS else ""
        table.add_row(name, f"{median:,.0f}", f"{min(found):,.0f}", f"{max(found):,.0f}", ratio)
    Console(highlight=False).print(table)


def lay_out(source: str | None, out: Path, count: int) -> str:
    """Plain .tar shards with an index in `out`: those at `source`, unpacked, until there are `count`; or noise."""
    out.mkdir()
    if source is None:
        random = np.random.default_rng(0)
        for shard in range(-(-count // 1000)):
            images = random.integers(0, 256, (min(1000, count - 1000 * shard), 32, 32, 3), dtype=np.uint8)
            write_shard(
                str(out / f"{shard:04d}.tar"),
                [
                    {"__key__": f"{shard:04d}-{n:04d}", "png": encode_png(image), "cls": b"0"}
                    for n, image in enumerate(images)
                ],
            )
    else:
        found = 0
        for path in sorted(Path(source).glob("train*.tar*")) or sorted(Path(source).glob("*.tar*")):
            data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
            (out / path.name.removesuffix(".gz")).write_bytes(data)
            found += build_index(str(out), path.name.removesuffix(".gz")).total
            if found >= count:
                break
    write_index(str(out), build_index(str(out)))
    return str(out)


def run_through(folder: str, out: str, batch: int = 1000) -> dict[str, Any]:
    """Train on the numbered images in `folder`, once through, in a process of its own; see `once_through`."""
    command = [sys.executable, "-m", "tests.benchmarks.once_through", folder, out, str(batch)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def million(counts: Sequence[int]) -> list[dict[str, Any]]:
    """What `run_through` says of so many images each."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="gebm-input-") as folder:
        for count in counts:
            begun = time.perf_counter()
            shards = write_numbered_images(Path(folder) / str(count), count)
            made = time.perf_counter() - begun
            lines.append(run_through(shards, f"{folder}/run-{count}") | {"making_seconds": made, "machine": machine()})
    return lines


def print_million(lines: Sequence[dict[str, Any]]) -> None:
    title = "Images once through a training run, each exactly once"
    table = Table("images", "seconds", "images/s", "peak memory, MB", title=title, title_justify="left")
    for line in lines:
        count, seconds = line["images"], line["seconds"]
        table.add_row(f"{count:,}", f"{seconds:.0f}", f"{count / seconds:,.0f}", f"{line['peak_bytes'] / 1e6:.0f}")
    Console(highlight=False).print(table)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", metavar="FOLDER", help="images to read; without it noise is written")
    parser.add_argument("--million", action="store_true", help="memory over 1,000,000 images instead of rates")
    parser.add_argument("--quick", action="store_true", help="small sizes: ends within a minute")
    parser.add_argument("--json", metavar="FILE", help="file that gets the records")
    options = parser.parse_args(arguments)
    if options.million:
        lines = million((20_000, 10_000) if options.quick else (1_000_000, 100_000))
        print_million(lines)
        if options.json:
            storage.write_json_atomic(storage.absolute(options.json), lines)
        return
    with tempfile.TemporaryDirectory(prefix="gebm-input-") as folder:
        shards = lay_out(options.shards, Path(folder) / "shards", 2000 if options.quick else 20_000)
        index = load_index(shards)
        rates = measure(shards, repeats=1 if options.quick else REPEATS)
        shape = "x".join(map(str, index.image_shape))
        print_rates(rates, f"{index.total:,} images {shape}, batches of {BATCH}")
        if options.json:
            write_records(options.json, records(rates, index.total))


if __name__ == "__main__":
    main()
