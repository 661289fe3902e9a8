"""A drill: `gebm train` on two workers, struck at random again and again until it is done, against an undisturbed run.

`make drill`, or `python -m tests.drills.storms --seed 0 --strikes 12`: some minutes. What strikes, whom and when comes
from the seed: `kill -9` of a worker, of all workers, of the command; SIGTERM, Ctrl-C, Ctrl-C twice; a stopped worker,
which must be named and ended within two minutes. At the end all lines of values and the exported weights must be those
of the undisturbed run; any difference ends the drill with exit code 1.
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
from pathlib import Path

from gebm.trainer.metrics import read_metrics
from tests.launch.test_signals import RECIPE, newest_checkpoint
from tests.trainer.tiny_runs import weights_digest, write_points

STRIKES = (
    *("kill a worker", "kill all workers", "stop a worker"),
    *("kill the command", "SIGTERM", "Ctrl-C", "Ctrl-C twice"),
)
NAMED_WITHIN = 120.0
"""Seconds until a stopped worker must be gone."""
PATIENCE = 300.0


class Command:
    """One start of the command, in a process group of its own, as a shell starts it."""

    def __init__(self, folder: Path, out: str):
        program = [sys.executable, "-c", "from gebm.launch.cli.main import main; main()", "train", "recipe.toml"]
        arguments = ["--data", "points", "--out", out, "--workers", "2"]
        self.log = folder / f"{out}.log"
        self.process = subprocess.Popen(
            [*program, *arguments],
            cwd=folder,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=self.log.open("a"),
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def workers(self) -> list[int]:
        """Its training workers, as Ray names their processes."""
        parents = {int(path.name): path for path in Path("/proc").iterdir() if path.name.isdigit()}
        return [pid for pid in parents if "RayTrainWorker" in _title(pid) and self._is_below(pid)]

    def _is_below(self, pid: int) -> bool:
        while pid > 1:
            pid = _parent(pid)
            if pid == self.process.pid:
                return True
        return False


def _title(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def strike(kind: str, command: Command, moments: random.Random) -> int | None:
    """Strike; returns the exit code that the command must end with, None where it must go on by itself."""
    workers = command.workers()
    one = moments.choice(sorted(workers) or [0])
    match kind:
        case "kill a worker" | "stop a worker" if one:
            os.kill(one, signal.SIGKILL if kind == "kill a worker" else signal.SIGSTOP)
            wait_until(lambda: not _title(one), NAMED_WITHIN, f"process {one} is still there")
            return None
        case "kill all workers":
            for pid in workers:
                os.kill(pid, signal.SIGKILL)
            return None
        case "kill the command":
            command.process.kill()
            return -signal.SIGKILL
        case "SIGTERM":
            command.process.terminate()
            return 128 + signal.SIGTERM
        case "Ctrl-C" | "Ctrl-C twice":
            for _ in range(2 if kind == "Ctrl-C twice" else 1):
                os.killpg(command.process.pid, signal.SIGINT)
                time.sleep(0.2)
            return 128 + signal.SIGINT
    return None


def wait_until(done, seconds: float, failure: str) -> None:
    begun = time.monotonic()
    while not done():
        if time.monotonic() - begun > seconds:
            sys.exit(f"drill failed: {failure} after {seconds:.0f} s")
        time.sleep(0.05)


def run_through(folder: Path, strikes: int, seed: int) -> Counter[str]:
    """Train to the end, struck `strikes` times, from one checkpoint to the next; returns how often by what."""
    moments, struck = random.Random(seed), Counter[str]()
    command = Command(folder, "stormy")
    while struck.total() < strikes and not (folder / "stormy" / "model").exists():
        before = newest_checkpoint(folder / "stormy")
        wait_until(
            lambda before=before, command=command: (
                newest_checkpoint(folder / "stormy") > before or command.process.poll() is not None
            ),
            PATIENCE,
            "no new checkpoint",
        )
        if command.process.poll() is not None:
            break
        time.sleep(moments.uniform(0.0, 1.0))
        kind = moments.choice(STRIKES)
        begun, round_number = time.monotonic(), newest_checkpoint(folder / "stormy")
        code = strike(kind, command, moments)
        struck[kind] += 1
        if code is not None:
            got = command.process.wait(PATIENCE)
            if got != code and got != 0:
                sys.exit(f"drill failed: {kind}: exit code {got}, not {code}; see {command.log}")
            command = Command(folder, "stormy")
        print(f"{kind}, after the checkpoint of round {round_number}: {time.monotonic() - begun:.1f} s", flush=True)
    if (code := command.process.wait(PATIENCE)) != 0:
        sys.exit(f"drill failed: exit code {code}; see {command.log}")
    return struck


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--strikes", type=int, default=12)
    given = arguments.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="gebm-drill-"))
    # Long enough that the last strike finds it at work.
    rounds = max(2000, 400 * given.strikes)
    (folder / "recipe.toml").write_text(RECIPE.replace("steps = 1500", f"steps = {rounds}"))
    write_points(folder / "points")
    calm = Command(folder, "calm")
    if calm.process.wait(PATIENCE + rounds) != 0:
        sys.exit(f"drill failed: the undisturbed run; see {calm.log}")
    struck = run_through(folder, given.strikes, given.seed)
    rows, expected = (read_metrics(str(folder / out)) for out in ("stormy", "calm"))
    if rows != expected:
        first = next(pair for pair in zip(rows, expected, strict=False) if pair[0] != pair[1])
        sys.exit(f"drill failed: a line of values is {first[0]}, without strikes {first[1]}; see {folder}")
    if weights_digest(folder / "stormy") != weights_digest(folder / "calm"):
        sys.exit(f"drill failed: other weights; see {folder}")
    print(f"the same {len(rows)} lines of values and the same weights after {dict(struck)}")


if __name__ == "__main__":
    main()
