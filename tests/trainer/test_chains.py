"""Chains beside the prior draws: they move as Langevin says and weigh as the balance heuristic says."""

import math

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from gebm.trainer.chains import advance_chains, begin_chains
from gebm.trainer.model import ModelSettings
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.objectives.chains import critic_loss_with_chains
from gebm.trainer.settings import EnergyPhase, TrainerSettings
from gebm.trainer.state import TrainingState, initial_state
from gebm.trainer.workers import Workers

SETTINGS = TrainerSettings(
    batch_size=8,
    dtype="float64",
    energy=EnergyPhase(steps=4, chain_steps=1, chain_step_size=0.05, chain_inverse_temperature=3.0),
)


class Quadratic(nn.Module):
    """`E(x) = ||x||^2 / 4`."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.25, dtype=torch.float64))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.square().flatten(1).sum(1)


def state_with(energy: nn.Module, base: nn.Module, settings: TrainerSettings) -> TrainingState:
    small = ModelSettings(latent_dimension=3, base_widths=(4, 4, 4, 4), energy_widths=(4, 4, 4))
    state = initial_state(small, settings, (1, 32, 32), 0, Workers(Accelerator(cpu=True)))
    state.model.energy_network, state.model.base = energy, base
    state.phase = "energy"
    return state


def test_a_chain_takes_one_langevin_step_of_the_tempered_potential():
    state = state_with(Quadratic(), nn.Identity(), SETTINGS)
    begin_chains(state, SETTINGS, seed=5)
    before = state.chains.clone()
    noise = GlobalNoise(5, 8, torch.arange(8), torch.device("cpu"), torch.float64)
    images = advance_chains(state, SETTINGS, Workers(Accelerator(cpu=True)), noise)
    # U(z) = ||z||^2 / 2 + 3 ||z||^2 / 4
    expected = before - 0.05 * 2.5 * before + math.sqrt(0.1) * noise.normal("chain-noise", 0, 3)
    assert torch.allclose(state.chains, expected, atol=1e-14)
    assert torch.equal(images.images, state.chains)
    assert images.penalised.tolist() == [True, False] * 4


def test_chains_forget_the_prior_and_reach_the_tempered_law():
    # 2,000 chains; N(0, s^2) with s^2 = 1 / 2.5, up to the bias s^2 / (1 - h / (2 s^2)) of the discrete chain. The
    # sample variance of 6,000 draws has a standard error of 1.8%: within 6% but for one seed in a thousand.
    settings = SETTINGS.model_copy(
        update={"batch_size": 2000, "energy": SETTINGS.energy.model_copy(update={"chain_steps": 100})}
    )
    state = state_with(Quadratic(), nn.Identity(), settings)
    begin_chains(state, settings, seed=6)
    noise = GlobalNoise(6, 2000, torch.arange(2000), torch.device("cpu"), torch.float64)
    advance_chains(state, settings, Workers(Accelerator(cpu=True)), noise)
    assert state.chains.var().item() == pytest.approx(0.4 / (1 - 0.05 / 0.8), rel=0.06)


def test_without_chain_steps_there_are_no_chains():
    settings = SETTINGS.model_copy(update={"energy": EnergyPhase(steps=4)})
    state = state_with(Quadratic(), nn.Identity(), settings)
    begin_chains(state, settings, seed=5)
    noise = GlobalNoise(5, 8, torch.arange(8), torch.device("cpu"), torch.float64)
    assert state.chains is None
    assert advance_chains(state, settings, Workers(Accelerator(cpu=True)), noise) is None


def test_the_loss_pulls_with_bounded_weights_that_sum_to_one():
    generator = torch.Generator().manual_seed(0)
    real, fake, chain = (torch.randn(6, generator=generator).double().requires_grad_() for _ in range(3))
    c = torch.tensor(0.3).double()
    pulls = torch.autograd.grad(critic_loss_with_chains(real, fake, chain, c), [real, fake, chain])
    ratio = torch.exp(-torch.cat([fake, chain]).detach() - c)
    weights = ratio / (1 + ratio)
    assert torch.allclose(pulls[0], torch.full((6,), 1 / 6).double())
    assert torch.allclose(torch.cat(pulls[1:]), -weights / weights.sum(), atol=1e-12)


def test_pooled_draws_of_base_and_model_give_the_gradient_of_the_likelihood():
    # Q uniform on 5 states, model q exp(-E - c): the pull on each state's energy must be minus the model's probability
    # of it. Every state is given as often as the laws say, so that nothing is left to chance.
    energy = torch.tensor([0.0, 1.0, 2.0, 3.0, -1.0]).double()
    prior = torch.full((5,), 0.2).double()
    c = torch.log((prior * torch.exp(-energy)).sum())
    model = prior * torch.exp(-energy - c)
    counts = (model * 100_000).round().long()
    fake = torch.arange(5).repeat_interleave(20_000)
    chain = torch.arange(5).repeat_interleave(counts)
    table = energy.clone().requires_grad_()
    loss = critic_loss_with_chains(torch.zeros(1).double(), table[fake], table[chain], c)
    (pull,) = torch.autograd.grad(loss, table)
    assert torch.allclose(-pull, model, atol=1e-4)


def test_a_hole_in_the_energy_takes_the_weight_of_the_chain_that_fell_into_it():
    fake, chain = torch.full((4,), 1.0).double(), torch.tensor([1.0, 1.0, 1.0, -20.0]).double().requires_grad_()
    loss = critic_loss_with_chains(torch.zeros(4).double(), fake, chain, torch.tensor(-1.0).double())
    (pull,) = torch.autograd.grad(loss, chain)
    assert pull[3] == pull.min() and pull[3] == pytest.approx(-1 / (1 + 7 * 0.5), rel=1e-6)


def test_a_recipe_with_chains_that_its_objective_cannot_use_is_refused(monkeypatch):
    from gebm.trainer import settings

    deaf = settings.OBJECTIVES["kale"]._replace(critic_loss_with_chains=None)
    monkeypatch.setitem(settings.OBJECTIVES, "kale", deaf)
    with pytest.raises(ValueError, match=r"energy\.chain_steps: objective kale cannot learn from chains"):
        TrainerSettings(energy=EnergyPhase(chain_steps=2))
