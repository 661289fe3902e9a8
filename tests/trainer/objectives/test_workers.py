"""Real process groups: for every objective, two workers compute what one computes."""

import socket
import subprocess
import sys
from pathlib import Path

import torch
from accelerate import Accelerator

from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.workers import Workers
from tests.trainer.objectives import rounds_of_a_worker

ROOT = Path(__file__).resolve().parents[3]


def rounds_of_two_processes() -> dict[str, list[float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", rounds_of_a_worker.__name__, "2", str(port)]
    workers = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=400)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return {name: list(map(float, rest)) for name, *rest in map(str.split, outputs[0].splitlines())}


def test_two_worker_processes_compute_what_one_computes_for_every_objective():
    """20 rounds in float64, one in float32, with batch norm, penalty, transform and clipping; some conditional."""
    one = rounds_of_a_worker.rounds_of_every_objective(Workers(Accelerator(cpu=True)))
    two = rounds_of_two_processes()
    names = [*OBJECTIVES, "kale-conditional", "mmd-conditional"]
    assert one.keys() == two.keys() == {f"{name}-{kind}" for name in names for kind in ("float64", "float32")}
    for name in one:
        tolerance = 1e-6 if name.endswith("float64") else 1e-4
        torch.testing.assert_close(
            torch.tensor(two[name], dtype=torch.float64),
            torch.tensor(one[name], dtype=torch.float64),
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )
    # Each trained on its own loss: no two ended in the same place.
    ends = [[round(value, 10) for value in values] for values in one.values()]
    assert all(a != b for i, a in enumerate(ends) for b in ends[:i])
