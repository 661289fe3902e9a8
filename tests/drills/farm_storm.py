"""A drill: `gebm sample` on a cluster of two nodes, struck at random until it is done, against an undisturbed run.

`make drill`, or `python -m tests.drills.farm_storm --seed 0 --strikes 24 --shards 80`: some minutes. What strikes, whom
and when comes from the seed: `kill -9` of an actor, of all actors, of the command; SIGTERM; a node removed, and another
one added; the command killed and then a finished shard, or a file of the journal, cut short, or removed; a second
command on the same output. At the end the set must be complete, every shard there once with the bytes of the
undisturbed run, and nothing else beside them; any difference ends the drill with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.cluster_utils import Cluster

from gebm.cluster.index import load_index
from gebm.cluster.journal import FOLDER as JOURNAL
from gebm.cluster.manifest import Manifest, load_manifest
from gebm.cluster.processes import birth, is_alive
from gebm.launch.config import dump_recipe, load_recipe
from tests.sampler.small_models import save_small_model

STRIKES = (
    *("kill an actor", "kill all actors", "remove a node"),
    *("kill the command", "SIGTERM", "cut a shard short", "remove a shard", "cut the journal short"),
    "a second command",
)
SHARD_SIZE = 20
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}
PATIENCE = 180.0
IN_USE, KILLED, TERMINATED = 2, -signal.SIGKILL, 128 + signal.SIGTERM


class Storm:
    """A folder with a run, the cluster, and the command as it was last started."""

    def __init__(self, folder: Path, shards: int, steps: int):
        self.folder, self.shards, self.steps = folder, shards, steps
        (folder / "run").mkdir()
        (folder / "run" / "config.toml").write_text(dump_recipe(load_recipe("mnist", ())))
        save_small_model(str(folder / "run" / "model"))
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 80 << 20}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.nodes: list[Any] = [self.cluster.add_node(**NODE) for _ in range(2)]
        self.command: subprocess.Popen[bytes] | None = None

    def start(self, out: str) -> subprocess.Popen[bytes]:
        """Start the command, in a session of its own."""
        program = [sys.executable, "-c", "from gebm.launch.cli.main import main; main()", "sample", "run"]
        program += ["--out", out, "--address", self.cluster.address, "--actors", "2", "--checkpoint-seconds", "0.2"]
        program += ["--count", str(self.shards * SHARD_SIZE), "--shard-size", str(SHARD_SIZE), "--chains", "10"]
        program += ["--sampler", "mala", "--steps", str(self.steps), "--step-size", "0.05"]
        return subprocess.Popen(
            program,
            cwd=self.folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / f"{out}.log").open("a"),
            start_new_session=True,
        )

    def again(self, code: int) -> None:
        """The command must have ended with this code, or be through; start it anew."""
        assert self.command is not None
        got = self.command.wait(PATIENCE)
        if got not in (code, 0):
            sys.exit(f"drill failed: exit code {got}, not {code}; see {self.folder / 'stormy.log'}")
        self.command = self.start("stormy")

    def done(self) -> int:
        """Shards that manifest and journal name."""
        manifest = load_manifest(str(self.folder / "stormy"))
        return 0 if manifest is None else len(manifest.items)

    def actors(self) -> list[tuple[int, str]]:
        """Number and birth of the processes in which actors run: their titles say so, and this cluster started them."""
        names = (path.name for path in Path("/proc").iterdir() if path.name.isdigit())
        mine = (pid for pid in map(int, names) if "ray::_Actor" in _title(pid) and _is_below(pid, os.getpid()))
        return [(pid, birth(pid)) for pid in sorted(mine)]

    def strike(self, kind: str, moments: random.Random) -> None:
        """Do it, and start the command again where it was ended."""
        assert self.command is not None
        output = self.folder / "stormy"
        match kind:
            case "kill an actor" | "kill all actors":
                actors = self.actors()
                for pid, born in actors if kind == "kill all actors" else actors[:1]:
                    if is_alive(pid, born):
                        os.kill(pid, signal.SIGKILL)
            case "remove a node":
                gone = self.nodes.pop(moments.randrange(len(self.nodes)))
                self.cluster.remove_node(gone, allow_graceful=False)
                self.nodes.append(self.cluster.add_node(**NODE))
            case "kill the command":
                self.command.kill()
                self.again(KILLED)
            case "SIGTERM":
                self.command.terminate()
                self.again(TERMINATED)
            case "a second command":
                second = self.start("stormy")
                if second.wait(PATIENCE) != IN_USE and self.command.poll() is None:
                    sys.exit(f"drill failed: a second command was not refused; see {self.folder / 'stormy.log'}")
            case _:
                self.command.kill()
                self.command.wait(PATIENCE)
                files = sorted((output / JOURNAL).glob("*.json") if "journal" in kind else output.glob("shard-*.tar"))
                if files:
                    damage(moments.choice(files), whole="remove" in kind)
                self.again(KILLED)

    def close(self) -> None:
        if self.command is not None and self.command.poll() is None:
            self.command.kill()
            self.command.wait()
        self.cluster.shutdown()


def damage(file: Path, whole: bool) -> None:
    """Remove a file, or its second half."""
    if whole:
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2)


def run_through(storm: Storm, strikes: int, seed: int, choice: Sequence[str]) -> Counter[str]:
    """Sample to the end, struck `strikes` times, each time after more shards; returns how often by what."""
    moments, struck = random.Random(seed), Counter[str]()
    kinds: list[str] = []
    storm.command = storm.start("stormy")
    while struck.total() < strikes:
        before = storm.done()
        wait_until(lambda before=before: storm.done() > before or over(storm), PATIENCE, "no new shard")
        if over(storm):
            break
        time.sleep(moments.uniform(0.0, 0.6))
        kinds = kinds or moments.sample(choice, len(choice))  # each once before any comes again
        kind, begun, done = kinds.pop(), time.monotonic(), storm.done()
        storm.strike(kind, moments)
        struck[kind] += 1
        print(f"{kind}, after {done} shards: {time.monotonic() - begun:.1f} s", flush=True)
    if (code := storm.command.wait(PATIENCE + storm.shards)) != 0:
        sys.exit(f"drill failed: exit code {code}; see {storm.folder / 'stormy.log'}")
    return struck


def over(storm: Storm) -> bool:
    return storm.command is not None and storm.command.poll() is not None


def differences(calm: Path, stormy: Path) -> str | None:
    """What is other in the one set than in the other, None when nothing is."""
    sets: list[Manifest] = []
    for output in (calm, stormy):
        manifest = load_manifest(str(output))
        if manifest is None or not manifest.complete:
            return f"{output} is not complete"
        named = {"manifest.json", "index.json", "summary.json", *(each["name"] for each in manifest.items.values())}
        there = {path.name for path in output.iterdir()}
        if there != named:
            return f"{output}: missing {sorted(named - there)}, strays {sorted(there - named)}"
        if load_index(str(output)).total != sum(each["count"] for each in manifest.items.values()):
            return f"{output}: the index counts other samples than the manifest"
        sets.append(manifest)
    bytes_of = [{item: record["sha256"] for item, record in each.items.items()} for each in sets]
    return None if bytes_of[0] == bytes_of[1] else f"{stormy}: shards have other bytes than in {calm}"


def wait_until(done: Callable[[], bool], seconds: float, failure: str) -> None:
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > seconds:
            sys.exit(f"drill failed: {failure} within {seconds:.0f} s")
        time.sleep(0.1)


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _is_below(pid: int, top: int) -> bool:
    while pid > 1:
        try:
            pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            return False
        if pid == top:
            return True
    return False


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--strikes", type=int, default=24)
    arguments.add_argument("--shards", type=int, default=80)
    arguments.add_argument("--steps", type=int, default=600, help="of a chain: how long a shard takes")
    arguments.add_argument("--kind", action="append", choices=STRIKES, help="only these strikes; all of them without")
    given = arguments.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    folder = Path(tempfile.mkdtemp(prefix="gebm-drill-"))
    storm = Storm(folder, given.shards, given.steps)
    try:
        if (code := storm.start("calm").wait(PATIENCE + 10 * given.shards)) != 0:
            sys.exit(f"drill failed: the undisturbed run: exit code {code}; see {folder / 'calm.log'}")
        struck = run_through(storm, given.strikes, given.seed, given.kind or STRIKES)
    finally:
        storm.close()
        ray.shutdown()
    if (difference := differences(folder / "calm", folder / "stormy")) is not None:
        sys.exit(f"drill failed: {difference}")
    print(f"the same {given.shards} shards, each once, after {dict(struck)}")


if __name__ == "__main__":
    main()
