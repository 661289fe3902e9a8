"""`gebm train` is ended early, and run again: it ends as if nothing had been.

In processes and on a cluster of its own, as a user has it. Moments are drawn with a stated seed.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gebm.launch.cli.main import run
from gebm.trainer.metrics import read_metrics
from tests.trainer.tiny_runs import weights_digest, write_points

SEED = 0
PATIENCE = 240.0  # seconds
RECIPE = """
name = "points"
[data]
source = "shards"
[model]
network = "mlp"
latent_dimension = 2
base_widths = [16]
energy_widths = [16]
[trainer]
batch_size = 16
lanes = 8
log_every = 50
checkpoint_every = 100
log_partition_draws = 128
[trainer.joint]
steps = 1500
[trainer.energy]
steps = 500
[trainer.watch]
every = 0
tensorboard = false
[tune]
count = 40
[[tune.grids]]
sampler = "ula"
step_sizes = [0.01]
steps = [4]
[sampler]
name = "ula"
[evaluation.extractor]
name = "raw"
"""


def command(folder: Path, out: str) -> list[str]:
    return ["train", str(folder / "recipe.toml"), "--data", str(folder / "points"), "--out", out, "--workers", "1"]


@contextmanager
def training(folder: Path) -> Iterator[subprocess.Popen]:
    """The command in a process group of its own, as a shell starts it."""
    program = [sys.executable, "-c", "from gebm.launch.cli.main import main; main()"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*program, *command(folder, "run")],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.kill()


def newest_checkpoint(run: Path) -> int:
    """The round of a run's newest checkpoint, 0 where there is none."""
    location = run / "checkpoints" / "manifest.json"
    checkpoints = json.loads(location.read_text())["checkpoints"] if location.exists() else []
    return checkpoints[-1]["round"] if checkpoints else 0


def wait_until_it_trains(process: subprocess.Popen, folder: Path) -> None:
    """Until there is a checkpoint more."""
    before, begun = newest_checkpoint(folder / "run"), time.monotonic()
    while newest_checkpoint(folder / "run") <= before:
        assert process.poll() is None and time.monotonic() - begun < PATIENCE
        time.sleep(0.02)


def test_sigterm_and_kill_9_of_the_command_change_neither_metrics_nor_weights(ray_cluster, tmp_path):
    (tmp_path / "recipe.toml").write_text(RECIPE)
    write_points(tmp_path / "points")
    moments = random.Random(SEED)
    with training(tmp_path) as process:
        wait_until_it_trains(process, tmp_path)
        time.sleep(moments.uniform(0.0, 0.5))
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + signal.SIGTERM, errors
    said = re.search(r"training stopped at round ([\d,]+) of 2,000, of which there is a checkpoint", errors)
    assert said is not None and errors.splitlines()[-1].endswith("the same command goes on from there"), errors
    assert int(said[1].replace(",", "")) == newest_checkpoint(tmp_path / "run")
    # Never the same twice: if it is the same afterwards, these rounds were not done again.
    first_rounds = tmp_path / "run" / "metrics" / "timings-00000000.jsonl"
    seconds = first_rounds.read_bytes()
    with training(tmp_path) as process:
        wait_until_it_trains(process, tmp_path)
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
    assert not (tmp_path / "run" / "model").exists()
    with training(tmp_path) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, errors
    assert first_rounds.read_bytes() == seconds

    assert run(command(tmp_path, str(tmp_path / "calm"))) == 0
    assert read_metrics(str(tmp_path / "run")) == read_metrics(str(tmp_path / "calm"))
    assert weights_digest(tmp_path / "run") == weights_digest(tmp_path / "calm")
