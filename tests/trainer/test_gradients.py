"""Transform and clipping of gradients are what their formulas say, and the steps apply them before the optimiser."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from gebm.trainer.gradients import condition_gradients
from gebm.trainer.model.networks.mlp import MLPBase, MLPEnergy
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.steps import base_step, energy_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers


def parameters_with(*gradients: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(gradient), dtype=torch.float64)) for gradient in gradients]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
    return [*parameters, nn.Parameter(torch.zeros(1))]  # the last one was not in the loss


def test_clipping_scales_all_gradients_together_to_the_norm_and_leaves_smaller_ones_alone():
    parameters = parameters_with([3.0, 0.0], [4.0])
    assert float(condition_gradients(parameters, clip_norm=0.5)) == 5.0
    torch.testing.assert_close(parameters[0].grad, torch.tensor([0.3, 0.0], dtype=torch.float64))
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.4], dtype=torch.float64))
    assert parameters[2].grad is None
    assert float(condition_gradients(parameters, clip_norm=0.6)) == pytest.approx(0.5)
    torch.testing.assert_close(parameters[1].grad, torch.tensor([0.4], dtype=torch.float64))
    assert float(condition_gradients(parameters_with([0.0, 0.0]), clip_norm=1.0)) == 0.0


def test_the_transform_is_that_of_the_reference_and_comes_before_clipping():
    parameters = parameters_with([0.0, 0.5, -1.0], [10.0])
    # 2g / (1 + g^2)
    expected = [0.0, 0.8, -1.0, 20 / 101]
    norm = float(condition_gradients(parameters, transform=True))
    seen = torch.cat([parameters[0].grad, parameters[1].grad])
    torch.testing.assert_close(seen, torch.tensor(expected, dtype=torch.float64))
    assert norm == pytest.approx(sum(g**2 for g in expected) ** 0.5)

    parameters = parameters_with([0.0, 0.5, -1.0], [10.0])
    assert float(condition_gradients(parameters, clip_norm=norm / 2, transform=True)) == pytest.approx(norm)
    torch.testing.assert_close(torch.cat([parameters[0].grad, parameters[1].grad]), seen / 2)


@pytest.mark.parametrize("options", [{}, {"clip_norm": 0.01}, {"transform": True}])
def test_the_steps_move_the_weights_by_the_conditioned_gradient(options):
    """Plain gradient descent at rate 1: the weights' movement is the gradient that the optimiser was given."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(1)
    energy, base = MLPEnergy((2,), (6,)).double(), MLPBase(3, (2,), (5,)).double()
    real, latent = torch.randn(8, 2, generator=generator).double(), torch.randn(8, 3, generator=generator).double()
    workers, kale = Workers(Accelerator(cpu=True)), OBJECTIVES["kale"]

    def moves(network: nn.Module, step, **kwargs) -> tuple[torch.Tensor, float]:
        start = [p.detach().clone() for p in network.parameters()]
        norm = float(
            step(
                WholeOptimizer(network, torch.optim.SGD(network.parameters(), lr=1.0), workers, **kwargs)
            ).gradient_norm
        )
        moved = torch.cat([(s - p.detach()).view(-1) for s, p in zip(start, network.parameters(), strict=True)])
        with torch.no_grad():
            for s, p in zip(start, network.parameters(), strict=True):
                p.copy_(s)
        return moved, norm

    def step_energy(optimizer):
        return energy_step(
            energy,
            optimizer,
            kale,
            workers,
            real=real,
            fake=base(latent).detach(),
            mixing=torch.rand(8, generator=torch.Generator().manual_seed(3)).double(),
            log_partition=None,
            gradient_penalty=1.0,
            log_partition_rate=1.0,
        )

    def step_base(optimizer):
        return base_step(base, energy, optimizer, kale, workers, latent)

    for network, step in ((energy, step_energy), (base, step_base)):
        raw, raw_norm = moves(network, step)
        assert float(raw.norm()) == pytest.approx(raw_norm) and raw_norm > 0.02
        moved, norm = moves(network, step, **options)
        expected = raw
        if "clip_norm" in options:
            assert norm == pytest.approx(raw_norm)
            expected = raw * 0.01 / raw_norm
        if "transform" in options:
            expected = 2 * raw / (1 + raw**2)
            assert norm == pytest.approx(float(expected.norm()))
        torch.testing.assert_close(moved, expected)


def still(network: nn.Module) -> WholeOptimizer:
    return WholeOptimizer(network, torch.optim.SGD(network.parameters(), lr=0.0), Workers(Accelerator(cpu=True)))


def test_without_a_log_partition_a_step_starts_at_that_of_the_batch():
    torch.manual_seed(1)
    energy = MLPEnergy((2,), (6,)).double()
    real, fake = torch.randn(2, 8, 2, dtype=torch.float64)
    result = energy_step(
        energy,
        still(energy),
        OBJECTIVES["kale"],
        Workers(Accelerator(cpu=True)),
        real=real,
        fake=fake,
        mixing=torch.zeros(8, dtype=torch.float64),
        log_partition=None,
        gradient_penalty=0.0,
        log_partition_rate=0.1,
    )
    expected = torch.logsumexp(-energy(fake).detach(), 0) - math.log(8)
    torch.testing.assert_close(result.log_partition, expected)


@pytest.mark.parametrize("name", ["kale", "pearson", "mmd"])
def test_losses_of_half_precision_networks_are_taken_in_single_precision(name):
    """A bfloat16 sum over a batch keeps two or three digits: what is summed are the same energies in float32."""
    torch.manual_seed(2)
    energy = MLPEnergy((2,), (16,), feature_dimension=4).to(torch.bfloat16)
    real, fake = torch.randn(2, 16, 2).to(torch.bfloat16)
    result = energy_step(
        energy,
        still(energy),
        OBJECTIVES[name],
        Workers(Accelerator(cpu=True)),
        real=real,
        fake=fake,
        mixing=torch.full((16,), 0.5, dtype=torch.bfloat16),
        log_partition=None,
        gradient_penalty=0.1,
        log_partition_rate=1.0,
    )
    objective = OBJECTIVES[name]
    with torch.no_grad():
        read = energy.features if objective.reads == "features" else energy
        on_real, on_fake = read(real).float(), read(fake).float()
        expected = objective.critic_loss(on_real, on_fake, result.log_partition.float())
    assert result.critic_loss.dtype == torch.float32
    torch.testing.assert_close(result.critic_loss, expected)
    assert all(torch.isfinite(p.grad).all() for p in energy.parameters() if p.grad is not None)
