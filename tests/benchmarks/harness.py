"""What every benchmark shares: the record, the machine, interleaved timing, the table and the JSON file.

`python -m tests.benchmarks.NAME [--quick] [--json FILE]`. A benchmark measures ours and a peer in the same run,
one after the other, over and over, so that a machine that slows down slows both; the medians are compared.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from gebm.cluster import storage


@dataclass(frozen=True)
class Record:
    """One line of a benchmark: what was measured, how long ours took and how long the peer.

    `share_of_peak` is the share of the matrix rate (`matrix_rate`) of the same run and precision that ours
    reached; None where arithmetic is not what the time goes to. No peer: `peer` and `peer_seconds` are None.
    """

    case: str
    ours_seconds: float
    peer: str | None
    peer_seconds: float | None
    share_of_peak: float | None
    machine: dict[str, Any]

    @property
    def ratio(self) -> float | None:
        """Peer over ours: above 1, ours is faster."""
        return self.peer_seconds / self.ours_seconds if self.peer_seconds is not None else None


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call, the accelerator's queue included."""
    begun = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object], repeats: int, warmup: int = 1
) -> tuple[float, float]:
    """Median seconds of ours and of the peer, called in turns."""
    for _ in range(warmup):
        ours()
        peer()
    seconds = [(timed(ours), timed(peer)) for _ in range(repeats)]
    return statistics.median(pair[0] for pair in seconds), statistics.median(pair[1] for pair in seconds)


def matrix_rate(dtype: torch.dtype = torch.float32, size: int = 1024, seconds: float = 1.0) -> float:
    """Floating-point operations a second of a square matrix product on the device of this run, the median."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = torch.randn(2, size, size, device=device).to(dtype)
    rates, begun = [], time.perf_counter()
    while time.perf_counter() - begun < seconds or len(rates) < 3:
        rates.append(2 * size**3 / timed(lambda: left @ right))
    return statistics.median(rates)


def main(title: str, measure: Callable[[bool], Sequence[Record]], arguments: Sequence[str] | None = None) -> None:
    """The command line of a benchmark: `measure(quick)` gives its records."""
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--quick", action="store_true", help="small sizes: ends within a minute")
    parser.add_argument("--json", metavar="FILE", help="file that gets the records")
    options = parser.parse_args(arguments)
    records = list(measure(options.quick))
    print_table(title, records)
    if options.json:
        write_records(options.json, records)


def print_table(title: str, records: Sequence[Record], console: Console | None = None) -> None:
    """The records as a table, and the machine below it."""
    console = console or Console(highlight=False)
    table = Table("case", "ours, s", "peer", "peer, s", "ratio", "of peak", title=title, title_justify="left")
    for record in records:
        table.add_row(
            record.case,
            f"{record.ours_seconds:.3g}",
            record.peer or "",
            _spell(record.peer_seconds, ".3g"),
            _spell(record.ratio, ".2f"),
            _spell(record.share_of_peak, ".0%"),
        )
    console.print(table)
    if records:
        console.print("  ".join(f"{key}: {value}" for key, value in records[0].machine.items() if value))


def write_records(path: str, records: Sequence[Record]) -> None:
    """The records as a JSON list, whole or not at all."""
    storage.write_json_atomic(storage.absolute(path), [{**asdict(record), "ratio": record.ratio} for record in records])


def _spell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _processor() -> str:
    """The processor's model name, where the system tells it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
