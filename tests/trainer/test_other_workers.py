"""A run goes on with another number of workers: the same data in the same order, equal to rounding."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gebm.trainer.checkpoints.manifest import read_manifest
from gebm.trainer.council import STOP
from gebm.trainer.loop import TrainingJob
from gebm.trainer.metrics import read_metrics
from tests.trainer.tiny_runs import PulseWithWord, run_alone, tiny_job, write_points
from tests.trainer.worker_of_a_run import CHANGES

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> TrainingJob:
    job = tiny_job(tmp_path_factory.mktemp("run") / "undisturbed", data, **CHANGES)
    run_alone(job)
    return job


def run_on_two(job: TrainingJob, stop_after: int) -> list[str]:
    """What the two processes say at their end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "tests.trainer.worker_of_a_run", job.run, job.data, "2", port]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(stop_after)], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return [output.strip() for output in outputs]


def assert_close(job: TrainingJob, other: TrainingJob) -> None:
    """In float64 two ways of adding up differ by rounding alone, also after 14 rounds."""
    rows, expected = read_metrics(job.run), read_metrics(other.run)
    assert [row["round"] for row in rows] == [row["round"] for row in expected] == [4, 8, 12, 14]
    for row, there in zip(rows, expected, strict=True):
        assert row.pop("phase") == there.pop("phase")
        assert row == pytest.approx(there, rel=1e-8, abs=1e-10)
    weights, there = (load_file(Path(each.run) / "model" / "weights.safetensors") for each in (job, other))
    torch.testing.assert_close(weights, there, rtol=1e-6, atol=1e-6)  # exported in float32


def test_a_run_goes_on_with_two_workers_and_then_with_one_again(data, undisturbed, tmp_path):
    """Stopped in the middle of lines. The two, of which one alone hears the word, stop after the same round."""
    job = tiny_job(tmp_path, data, **CHANGES)
    run_alone(job, pulse=PulseWithWord(STOP, 3))
    assert run_on_two(job, stop_after=10) == [STOP, STOP]
    newest = read_manifest(job.run, job.run_digest).checkpoints[-1]
    assert newest.round == 10
    assert {"__0_0.distcp", "__1_0.distcp"} <= {file.name for file in newest.files}
    run_alone(job)
    assert_close(job, undisturbed)
