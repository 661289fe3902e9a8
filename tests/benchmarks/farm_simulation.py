"""`python -m tests.benchmarks.farm_simulation [--quick] [--json FILE]`: the farm at a thousand actors, simulated.

Crew, scheduler, staffing, manifest and journal are the real ones, the journal on this machine's disk. The actors only
pretend (`tests/cluster/virtual_actors.py`): their items take random seconds of known cost on a virtual clock, some
raise, some kill their actor, some take very long. The driver's own seconds are real and pass on that clock too, with
`CALL_SECONDS` for each call that would go to Ray; so where the driver cannot follow its actors, they are idle.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from gebm.cluster import storage
from gebm.cluster.crew import Crew
from gebm.cluster.farm import PUBLISH_SECONDS
from gebm.cluster.ledger import Ledger
from gebm.cluster.manifest import WorkItem
from gebm.cluster.scheduler import Policy
from tests.cluster.virtual_actors import Deed, VirtualActors

CALL_SECONDS = 0.0007
"""Of the driver for a call to an actor and its answer through Ray, see `tests/benchmarks/farm_calls.py`."""
ITEM_SECONDS = 60.0
"""Mean; log-normal with a standard deviation of a quarter of it."""
START_SECONDS = (5.0, 15.0)
DEATHS, ERRORS, AWAY, SLOW = 0.002, 0.002, 0.004, 0.001
"""Shares of attempts whose actor dies, that raise, that meet with storage that is away, and that take SLOWNESS times as
long."""
SLOWNESS = 20.0
CASES = ((10, 1_000), (100, 10_000), (1_000, 10_000), (1_000, 100_000))
QUICK = ((10, 100), (100, 1_000))


@dataclass(frozen=True)
class Simulation:
    """What one simulated run came to. Seconds are the virtual clock's where nothing else is said."""

    actors: int
    items: int
    makespan: float
    ideal: float
    """All useful seconds, shared evenly, after the slowest start."""
    efficiency: float
    """Useful seconds over those of all actors, from their start to their end."""
    events: int
    """Answers of actors."""
    driver_seconds: float
    """Real, of scheduling alone, Ray's calls aside."""
    publish_seconds: float
    """Real, of the journal."""
    close_seconds: float
    """Real, at the end, when all is put together."""
    resume_seconds: float
    """Real, until a run that was killed just before its end would know what is done; files are not looked at."""
    bytes_written: int
    files_written: int
    peak_mib: float
    deaths: int
    retried: int
    reissued: int

    @property
    def event_microseconds(self) -> float:
        return 1e6 * self.driver_seconds / self.events

    @property
    def events_a_second(self) -> float:
        """That the driver could serve, Ray's calls and the journal included."""
        return self.events / (self.driver_seconds + self.publish_seconds + self.events * CALL_SECONDS)

    @property
    def limit(self) -> str:
        """What keeps the run from its ideal makespan, the largest part."""
        busy = (self.driver_seconds + self.publish_seconds + self.events * CALL_SECONDS) / self.makespan
        if busy > 0.5:
            return f"the driver ({busy:.0%} busy)"
        if self.makespan / self.ideal < 1.02:
            return "the work"
        return "the end: items are whole" if self.items < 50 * self.actors else "failures and the end"


def simulate(actors: int, items: int, seed: int = 0) -> Simulation:
    """One run, from an empty directory to the complete manifest."""
    chance = random.Random(f"{seed} {actors} {items}")
    work = [WorkItem(f"shard-{n:06d}", n, {"first": n * 1000, "count": 1000}) for n in range(items)]
    starts = [0.0]

    def start(number: int) -> Deed:
        starts.append(chance.uniform(*START_SECONDS))
        return Deed(starts[-1], {})

    def deeds(item: WorkItem, attempt: int, actor: int) -> Deed:
        seconds, fate = chance.lognormvariate(0.0, 0.25) * ITEM_SECONDS * 0.969, chance.random()
        for share, outcome in ((DEATHS, None), (ERRORS, ValueError("no")), (AWAY, TimeoutError("storage is away"))):
            if fate < share:
                return Deed(seconds * chance.random(), outcome)
            fate -= share
        return Deed(seconds * (SLOWNESS if fate < SLOW else 1.0), record(item, seconds))

    pretended = VirtualActors(deeds, start, driver_counts=True, call_seconds=CALL_SECONDS)
    written = [0, 0]
    write = storage.write_bytes_atomic

    def counted(url: str, data: bytes) -> None:
        written[0] += len(data)
        written[1] += 1
        write(url, data)

    publishing = 0.0
    with tempfile.TemporaryDirectory(prefix="gebm-simulation-") as output:
        with patch("gebm.cluster.storage.write_bytes_atomic", counted):
            ledger = Ledger(output, {"kind": "simulation"}, work)
            begun = time.perf_counter()
            crew = Crew(pretended, work, actors, Policy(tries=5), None)
            published = pretended.now()
            while crew.has_work():
                for item, found in crew.wait():
                    ledger.add(item.id, found)
                if ledger.has_news() and pretended.now() - published >= PUBLISH_SECONDS:
                    publishing += _timed(ledger.publish)
                    published = pretended.now()
            makespan = pretended.now()
            crew.dismiss()
            driving = time.perf_counter() - begun - publishing - pretended.own_seconds
            publishing += _timed(ledger.publish)
            resuming = _timed(lambda: Ledger(output, {"kind": "simulation"}, work))
            closing = _timed(ledger.close)
            crew.raise_failures(items)
        whole = json.loads((Path(output) / "manifest.json").read_bytes())
        assert whole["complete"] and len(whole["items"]) == items
    return Simulation(
        actors=actors,
        items=items,
        makespan=makespan,
        ideal=max(starts[1 : actors + 1]) + pretended.useful_seconds / actors,
        efficiency=pretended.useful_seconds / pretended.up_seconds,
        events=pretended.answered,
        driver_seconds=driving,
        publish_seconds=publishing,
        close_seconds=closing,
        resume_seconds=resuming,
        bytes_written=written[0],
        files_written=written[1],
        peak_mib=peak_mib(),
        deaths=crew.scheduler.deaths,
        retried=crew.scheduler.retried,
        reissued=crew.scheduler.reissued,
    )


def record(item: WorkItem, seconds: float) -> dict[str, Any]:
    """A record as long as one of `gebm sample`, 700 bytes, but of no file: nobody looks for it."""
    figures = {f"diagnostic_{n}": seconds / (n + 1) for n in range(14)}
    return {"count": item.description["count"], "bytes": 3_000_000, "sha256": "0" * 64, "seconds": seconds, **figures}


def _timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def peak_mib() -> float:
    """The most memory that this process ever had."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 1024


def simulate_apart(actors: int, items: int) -> Simulation:
    """The same in a process of its own, so that the peak of memory is this case's."""
    program = [sys.executable, "-m", "tests.benchmarks.farm_simulation", "--one", str(actors), str(items)]
    found = subprocess.run(program, check=True, stdout=subprocess.PIPE, text=True)
    return Simulation(**json.loads(found.stdout))


def table_of(simulations: Sequence[Simulation]) -> Table:
    """A line for each case."""
    heads = ("actors", "items", "makespan, h", "of ideal", "efficiency", "µs an event", "events/s", "written, MB")
    more = ("files", "close, s", "resume, s", "peak, MiB", "died/retried/twice", "limit")
    table = Table(*heads, *more, title="The farm, simulated", title_justify="left")
    for each in simulations:
        table.add_row(
            f"{each.actors:,}",
            f"{each.items:,}",
            f"{each.makespan / 3600:.2f}",
            f"{each.makespan / each.ideal:.3f}",
            f"{each.efficiency:.1%}",
            f"{each.event_microseconds:.0f}",
            f"{each.events_a_second:,.0f}",
            f"{each.bytes_written / 1e6:,.1f}",
            f"{each.files_written:,}",
            f"{each.close_seconds:.2f}",
            f"{each.resume_seconds:.2f}",
            f"{each.peak_mib:.0f}",
            f"{each.deaths}/{each.retried}/{each.reissued}",
            each.limit,
        )
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="The farm, simulated")
    parser.add_argument("--quick", action="store_true", help="small farms: ends within seconds")
    parser.add_argument("--json", metavar="FILE", help="file that gets the figures")
    parser.add_argument("--one", nargs=2, type=int, metavar=("ACTORS", "ITEMS"), help="one case alone, as JSON")
    options = parser.parse_args(arguments)
    if options.one:
        print(json.dumps(asdict(simulate(*options.one))))
        return
    simulations = [simulate_apart(*case) for case in (QUICK if options.quick else CASES)]
    Console(highlight=False, width=200).print(table_of(simulations))
    if options.json:
        storage.write_json_atomic(storage.absolute(options.json), [asdict(each) for each in simulations])


if __name__ == "__main__":
    main()
