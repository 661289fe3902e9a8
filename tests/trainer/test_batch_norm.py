"""Conditional batch norms: over several workers, and with recomputed statistics."""

import socket
import subprocess
import sys
from pathlib import Path

import torch

from gebm.trainer.batch_norm import recompute_statistics
from gebm.trainer.model import ModelSettings, build_model
from gebm.trainer.model.networks.conditional_norm import ConditionalBatchNorm2d

ROOT = Path(__file__).resolve().parents[2]


def test_a_conditional_norm_over_two_workers_is_one_over_the_whole_batch():
    """In float64, on a real process group: outputs, statistics, and the gradients of gains and shifts."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.trainer.norms_of_a_worker", str(port)]
    workers = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    errors = [worker.communicate(timeout=120)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(errors)


def test_statistics_of_vectors_are_recomputed_too():
    base = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    latents = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    recompute_statistics(base, latents, 16)
    torch.testing.assert_close(base[1].running_mean, base[0](latents).mean(0).detach())


def test_a_conditional_norm_is_a_plain_one_with_the_gain_and_shift_of_the_class():
    norm = ConditionalBatchNorm2d(3, classes=2).double()
    norm.gain.weight.data[1], norm.shift.weight.data[1] = 3.0, -1.0
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(0)).double()
    plain = torch.nn.BatchNorm2d(3).double()(x)
    torch.testing.assert_close(
        norm(x, torch.tensor([0, 1, 1, 0])), torch.stack([plain[0], 3 * plain[1] - 1, 3 * plain[2] - 1, plain[3]])
    )


def test_recomputed_statistics_of_a_conditional_base_are_those_of_its_labels():
    settings = ModelSettings(conditional=True, latent_dimension=4, base_widths=(4, 4), energy_widths=(4,))
    base = build_model(settings, (1, 8, 8), classes=2, seed=0).base
    base.project_norm.shift.weight.data[1] = 5.0
    latents = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    means = []
    for label in (0, 1):
        recompute_statistics(base, latents, 16, torch.full((64,), label))
        means.append(base.norms[0].norm.running_mean.clone())
    assert not torch.allclose(means[0], means[1])
