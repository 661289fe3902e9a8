"""Parallel tempering: every rung keeps its law exactly, and modes get the masses that they have."""

from __future__ import annotations

import importlib
import itertools

import pytest
import torch
from scipy import stats
from torch import Tensor

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.hmc import hmc
from gebm.sampler.mala import mala
from gebm.sampler.rwmh import rwmh
from gebm.sampler.temperature import tempered
from gebm.sampler.tempering import (
    TemperingState,
    exchange,
    ladder,
    log_exchange_ratio,
    parallel_tempering,
    swap_acceptance,
)
from tests.sampler.targets import FarModes, far_modes, normal, p_value, tempered_gaussian

LEVEL = 1e-4
CHAINS = 15_000
BETAS = torch.tensor([2.0, 1.0, 0.3], dtype=torch.float64)

KERNELS = {
    "mala": lambda u, h: mala(u, h),
    "hmc": lambda u, h: hmc(u, 2 * h, 2),
    "rwmh": lambda u, h: rwmh(u, h),
}


def prior_of(dimension: int):
    return lambda count, generator: normal(count, dimension, generator)


def on_ladder(name: str, step_size: float | Tensor = 0.15) -> Algorithm:
    target = tempered_gaussian()
    return parallel_tempering(KERNELS[name], target.energy, target.prior, BETAS, step_size, prior_of(3))


def run(algorithm: Algorithm, steps: int = 12) -> TemperingState:
    """Replicas that begin at exact draws of every rung, after some steps."""
    target = tempered_gaussian()
    generator = torch.Generator().manual_seed(0)
    rungs = torch.cat([target.at(float(beta)).draw(CHAINS, generator) for beta in BETAS])
    state = algorithm.init(rungs[:CHAINS], generator)
    kernel = KERNELS["mala"](tempered(target.energy, target.prior, BETAS.repeat_interleave(CHAINS)), 0.1)
    fields = kernel.init(rungs, generator)
    state = state._replace(replicas=type(state.replicas)(*fields[: len(state.replicas)]))
    for _ in range(steps):
        state, _ = algorithm.step(state, generator)
    return state


def p_values(state: TemperingState) -> list[float]:
    """Of "the replicas of this rung have its law" for each rung, and of "neighbouring rungs are uncorrelated"."""
    target = tempered_gaussian()
    rungs = state.replicas.position.chunk(len(BETAS))
    laws = [p_value(target.at(float(beta)), rung) for beta, rung in zip(BETAS, rungs, strict=True)]
    pairs = [
        stats.pearsonr(one[:, k].numpy(), other[:, k].numpy()).pvalue
        for one, other in itertools.pairwise(rungs)
        for k in range(3)
    ]
    return [*laws, len(pairs) * min(pairs)]


@pytest.mark.parametrize("name", KERNELS)
def test_every_rung_keeps_its_law(name: str) -> None:
    """Three rungs, and that they are independent: false-alarm rate 4e-4 for each kernel. Exchanges do happen."""
    state = run(on_ladder(name))
    assert min(p_values(state)) > LEVEL
    assert ((swap_acceptance(state) > 0.05) & (swap_acceptance(state) < 0.9)).all()
    assert torch.equal(state.position, state.replicas.position[:CHAINS])


def wrong_sign(energy: Tensor, betas: Tensor, partner: Tensor) -> Tensor:
    return -log_exchange_ratio(energy, betas, partner)


def dropped_factor(energy: Tensor, betas: Tensor, partner: Tensor) -> Tensor:
    return betas[:, None] * (energy - energy[partner])


def two_coins(energy: Tensor, partner: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(energy.shape, generator=generator, dtype=energy.dtype)


def stale(state, prior, ratio: Tensor):
    return state


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("log_exchange_ratio", wrong_sign),
        ("log_exchange_ratio", dropped_factor),
        ("one_coin_a_pair", two_coins),
        ("at_temperature", stale),
    ],
)
def test_the_check_rejects_planted_errors(monkeypatch: pytest.MonkeyPatch, name: str, error) -> None:
    monkeypatch.setattr(importlib.import_module("gebm.sampler.tempering"), name, error)
    assert min(p_values(run(on_ladder("mala")))) < LEVEL


def test_what_exchanged_replicas_remember_is_of_their_new_temperature() -> None:
    target = tempered_gaussian()
    generator = torch.Generator().manual_seed(1)
    potential = tempered(target.energy, target.prior, BETAS.repeat_interleave(500))
    kernel = mala(potential, 0.1)
    before = kernel.init(normal(1500, 3, generator), generator)
    for done in (0, 1):
        after, probability = exchange(before, target.prior, BETAS, torch.tensor(done), generator)
        swapped = (after.position != before.position).any(1).view(3, 500).sum(1)
        pair = [swapped[:2], swapped[1:]][done]
        assert pair[0] == pair[1] > 50 and swapped.sum() == pair.sum()
        fresh = kernel.init(after.position, generator)
        torch.testing.assert_close(after, fresh)
        assert probability[1 - done] == 0
        assert probability[done].item() == pytest.approx(pair[0].item() / 500, abs=0.08)


def test_all_replicas_are_one_call_of_the_networks_and_exchanges_none() -> None:
    target, calls = tempered_gaussian(), []

    def energy(z: Tensor) -> Tensor:
        calls.append(len(z))
        return target.energy(z)

    algorithm = parallel_tempering(mala, energy, target.prior, BETAS, 0.1, prior_of(3))
    generator = torch.Generator().manual_seed(2)
    state = algorithm.init(normal(7, 3, generator), generator)
    for _ in range(10):
        state, info = algorithm.step(state, generator)
    assert calls == [21] * 11
    assert len(info.acceptance) == 21


def test_each_rung_moves_by_its_own_step_size() -> None:
    """Twelve steps, of 1e-12 at the first rung, of a size that moves at the others."""
    target = tempered_gaussian()
    sizes = torch.tensor([1e-12, 0.1, 0.2], dtype=torch.float64)
    algorithm = parallel_tempering(mala, target.energy, target.prior, BETAS, sizes, prior_of(3))
    generator = torch.Generator().manual_seed(3)
    state = algorithm.init(normal(40, 3, generator), generator)
    after, _ = algorithm.step(state._replace(done=torch.tensor(1)), generator)  # exchanges rungs 1 and 2 at most
    moved = (after.replicas.position - state.replicas.position).norm(dim=1).view(3, 40)
    assert moved[0].max() < 1e-4 and moved[1:].mean() > 0.1


def test_the_acceptance_of_exchanges_is_over_the_turns_of_each_pair() -> None:
    """Of three transitions the first pair has two turns, the second one; without any turn it is 0."""
    sums = torch.tensor([1.0, 0.25, 0.5], dtype=torch.float64)
    assert swap_acceptance(TemperingState(None, torch.tensor(3), sums)).tolist() == [0.5, 0.25, 0.25]
    assert swap_acceptance(TemperingState(None, torch.tensor(1), sums * 0)).tolist() == [0, 0, 0]


def test_the_ladder_goes_down_in_equal_ratios() -> None:
    torch.testing.assert_close(ladder(8.0, 1.0, 4), torch.tensor([8.0, 4, 2, 1], dtype=torch.float64))


def right_mode(target: FarModes, algorithm: Algorithm, chains: int, steps: int) -> int:
    """How many chains that all begin in the left mode end in the right one."""
    generator = torch.Generator().manual_seed(4)
    start = target.scale * normal(chains, 2, generator)
    start[:, 0] -= target.offset
    state = algorithm.init(start, generator)
    for _ in range(steps):
        state, _ = algorithm.step(state, generator)
    return int((state.position[:, 0] > 0).sum())


def test_tempering_gets_the_masses_of_modes_right_where_plain_mala_stays_in_one() -> None:
    """Modes of 16 standard deviations' distance and masses 0.3 and 0.7, all 3,000 chains begun in the smaller one.

    Binomial test of the share in the larger one, false-alarm rate 1e-4; its 99.99% interval is ±0.033 wide.
    """
    target, chains, steps = far_modes(), 3000, 400
    betas = ladder(1.0, 0.01, 6)
    sizes = torch.tensor([0.03, 0.07, 0.15, 0.3, 0.5, 0.6], dtype=torch.float64)
    tempering = parallel_tempering(mala, target.energy, target.prior, betas, sizes, prior_of(2))
    found = right_mode(target, tempering, chains, steps)
    assert stats.binomtest(found, chains, 1 - target.left).pvalue > LEVEL
    plain = mala(tempered(target.energy, target.prior, torch.tensor(1.0)), 0.03)
    assert right_mode(target, plain, chains, steps) == 0
