"""The steps compute the gradients of MATH's losses; several workers compute what one computes."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from gebm.trainer.averaging import averaged_copy, move_average
from gebm.trainer.batch_norm import recompute_statistics
from gebm.trainer.model import ModelSettings, build_model
from gebm.trainer.objectives.kale import log_mean_exp
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.rounds import energy_steps_of_round
from gebm.trainer.settings import JointPhase
from gebm.trainer.steps import base_step, energy_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers

ROOT = Path(__file__).resolve().parents[2]

SMALL = ModelSettings(latent_dimension=8, base_widths=(16, 8, 8, 8), energy_widths=(8, 8, 16))


@pytest.fixture
def setting():
    model = build_model(SMALL, (1, 32, 32), seed=0).double()
    generator = torch.Generator().manual_seed(1)
    real = torch.rand(12, 1, 32, 32, generator=generator).double() * 2 - 1
    latent = torch.randn(12, 8, generator=generator).double()
    return model, Workers(Accelerator(cpu=True)), real, latent, torch.rand(12, generator=generator).double()


def gradients(network: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in network.parameters()]


def test_the_energy_step_follows_the_gradient_of_kale_with_penalty(setting):
    model, workers, real, latent, mixing = setting
    fake = model.eval().generate(latent).detach()
    still = WholeOptimizer(model.energy_network, torch.optim.SGD(model.energy_network.parameters(), lr=0.0), workers)
    result = energy_step(
        model.energy_network,
        still,
        OBJECTIVES["kale"],
        workers,
        real=real,
        fake=fake,
        mixing=mixing,
        log_partition=torch.tensor(0.2).double(),
        gradient_penalty=0.7,
        log_partition_rate=0.5,
    )
    ours = gradients(model.energy_network)

    model.energy_network.zero_grad()
    c = result.log_partition
    between = (mixing.view(-1, 1, 1, 1) * real + (1 - mixing.view(-1, 1, 1, 1)) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(model.energy(between).sum(), between, create_graph=True)
    penalty = slope.square().sum((1, 2, 3)).mean()
    on_fake = model.energy(fake)
    loss = model.energy(real).mean() + c + torch.exp(-on_fake - c).mean() - 1
    (loss + 0.7 * penalty).backward()
    for mine, expected in zip(ours, gradients(model.energy_network), strict=True):
        torch.testing.assert_close(mine, expected)
    torch.testing.assert_close(result.critic_loss, loss.detach())
    torch.testing.assert_close(result.penalty, penalty.detach())
    torch.testing.assert_close(result.log_mean_exp, log_mean_exp(-on_fake.detach()))


def test_the_base_step_follows_the_softmax_weighted_gradient_and_spares_the_energy(setting):
    model, workers, _, latent, _ = setting
    model.base.train()
    model.energy_network.eval()
    reference = averaged_copy(model.base).train().requires_grad_(True)
    base_step(
        model.base,
        model.energy_network,
        WholeOptimizer(model.base, torch.optim.SGD(model.base.parameters(), lr=0.0), workers),
        OBJECTIVES["kale"],
        workers,
        latent,
    )
    energies = model.energy(reference(latent))
    (torch.softmax(-energies, 0).detach() * energies).sum().backward()
    for mine, expected in zip(gradients(model.base), gradients(reference), strict=True):
        torch.testing.assert_close(mine, expected)


def test_energy_weights_take_no_gradient_in_a_base_step(setting):
    model, workers, _, latent, _ = setting
    optimizer = WholeOptimizer(model.base, torch.optim.SGD(model.base.parameters(), lr=0.1), workers)
    base_step(model.base, model.energy_network, optimizer, OBJECTIVES["kale"], workers, latent)
    assert all(p.grad is None and p.requires_grad for p in model.energy_network.parameters())


def test_energy_steps_come_more_often_at_the_start_and_at_every_multiple():
    joint = JointPhase(energy_steps=5, warmup_energy_steps=100, warmup_steps=2, warmup_every=500)
    assert [energy_steps_of_round(k, joint) for k in (0, 1, 2, 499, 500, 501, 1000)] == [100, 100, 5, 5, 100, 5, 100]
    never = JointPhase(energy_steps=2, warmup_energy_steps=20, warmup_steps=2)
    assert [energy_steps_of_round(k, never) for k in (0, 1, 2, 500)] == [20, 20, 2, 2]


def test_averages_move_by_their_decay():
    network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = averaged_copy(network)
    start = average[0].weight.clone()
    with torch.no_grad():
        network[0].weight.add_(1.0)
        network[1].running_mean.fill_(5.0)
    move_average(average, network, 0.9)
    torch.testing.assert_close(average[0].weight, start + 0.1)
    assert torch.equal(average[1].running_mean, torch.full((2,), 5.0))


def test_recomputed_statistics_are_the_means_over_the_draws():
    base = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3)).double()
    draws = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    recompute_statistics(base, draws, batch_size=16)
    seen = base[0](draws)
    torch.testing.assert_close(base[1].running_mean, seen.mean((0, 2, 3)))
    within = torch.stack([chunk.var((0, 2, 3)) for chunk in seen.split(16)]).mean(0)
    torch.testing.assert_close(base[1].running_var, within)
    assert base[1].momentum == 0.1


def run_processes(count: int, dtype: str, rounds: int) -> dict[str, list[float]]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.trainer.rounds_of_a_worker", str(count), str(port), dtype, str(rounds)]
    workers = [
        subprocess.Popen([*command, str(rank)], cwd=ROOT, stdout=subprocess.PIPE, text=True) for rank in range(count)
    ]
    outputs = [worker.communicate(timeout=120)[0] for worker in workers]
    assert all(worker.returncode == 0 for worker in workers)
    return {name: list(map(float, rest)) for name, *rest in (line.split() for line in outputs[0].splitlines())}


@pytest.mark.parametrize(("dtype", "rounds", "tolerance"), [("float64", 20, 1e-6), ("float32", 1, 1e-4)])
def test_two_worker_processes_compute_what_one_computes(dtype, rounds, tolerance):
    """Global batch norm, softmax weights, log-partition, penalty: over both phases, on real process groups."""
    one, two = run_processes(1, dtype, rounds), run_processes(2, dtype, rounds)
    assert one.keys() == two.keys() and len(one["weights"]) > 20
    for name in one:
        torch.testing.assert_close(
            torch.tensor(two[name]),
            torch.tensor(one[name]),
            rtol=tolerance,
            atol=tolerance,
            msg=lambda text, name=name: f"{name}: {text}",
        )
