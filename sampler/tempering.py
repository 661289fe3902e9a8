"""Parallel tempering: replicas of every chain at a ladder of inverse temperatures, which exchange their places.

Replica r has the target `U_r = V + beta_r E`, the coldest (`r = 0`) that of the sampler. A step moves all replicas
with a kernel that is exact at every rung, then proposes to exchange neighbours, by turns (0,1), (2,3), … and
(1,2), (3,4), …, and accepts with probability

    min(1, exp((beta_r - beta_s) (E(z_r) - E(z_s)))),

which leaves the product of all targets exactly invariant. Hot replicas cross between modes and hand them down; the
samples are the coldest replicas. All replicas of all chains are one batch: one call of the networks.
Geyer, 1991; Syed et al., 2022, https://arxiv.org/abs/1905.02939 (on taking turns).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, Potential, StepSize, TransitionInfo
from gebm.sampler.random_numbers import uniform
from gebm.sampler.temperature import at_temperature, tempered


class TemperingState(NamedTuple):
    """replicas: the kernel's state of `rungs * chains` rows, rung by rung, the coldest first.

    done: transitions so far, `()` int64. swaps: `(rungs - 1,)` float64, the probabilities with which neighbours were
    to be exchanged, averaged over chains and summed over transitions.
    """

    replicas: Any
    done: Tensor
    swaps: Tensor

    @property
    def position(self) -> Tensor:
        """`(chains, p)`: the coldest replicas."""
        latents: Tensor = self.replicas.position
        return latents[: len(latents) // (len(self.swaps) + 1)]


def ladder(inverse_temperature: float, hottest: float, rungs: int) -> Tensor:
    """`(rungs,)` float64: from `inverse_temperature` down to `hottest`, each the same factor below the one before."""
    return torch.logspace(0, 1, rungs, base=hottest / inverse_temperature, dtype=torch.float64) * inverse_temperature


def swap_acceptance(state: TemperingState) -> Tensor:
    """`(rungs - 1,)`: how likely neighbours were exchanged when their turn came; 0 where it never did."""
    pair = torch.arange(len(state.swaps), device=state.swaps.device)
    turns = (state.done + 1 - pair % 2) // 2
    return state.swaps / turns.clamp(min=1)


def partners(rungs: int, done: Tensor) -> Tensor:
    """`(rungs,)`: with whom each rung is exchanged, itself where with none; the even pairs when `done` is even."""
    rung = torch.arange(rungs, device=done.device)
    partner = torch.where((rung + done) % 2 == 0, rung + 1, rung - 1)
    return torch.where((partner < 0) | (partner >= rungs), rung, partner)


def log_exchange_ratio(energy: Tensor, betas: Tensor, partner: Tensor) -> Tensor:
    """`(beta_r - beta_s) (E(z_r) - E(z_s))`, `(rungs, chains)`, of every rung r and its partner s.

    energy: `(rungs, chains)`. betas: `(rungs,)`.
    """
    return (betas - betas[partner])[:, None] * (energy - energy[partner])


def one_coin_a_pair(energy: Tensor, partner: Tensor, generator: torch.Generator) -> Tensor:
    """Uniforms `(rungs, chains)`, the same for both members of a pair: they come to one decision."""
    coins = uniform(energy, generator)
    return coins[torch.minimum(torch.arange(len(partner), device=partner.device), partner)]


def exchange(
    replicas: Any, prior: Potential, betas: Tensor, done: Tensor, generator: torch.Generator
) -> tuple[Any, Tensor]:
    """Exchange neighbours on the ladder `betas` `(rungs,)`, even pairs when `done` is even.

    Returns the state and `(rungs - 1,)` the mean probability of each exchange, 0 for pairs whose turn it was not.
    """
    with torch.no_grad():
        energy = (replicas.potential - prior(replicas.position).double()).view(len(betas), -1) / betas[:, None]
    partner = partners(len(betas), done)
    log_ratio = log_exchange_ratio(energy, betas, partner)
    accepted = one_coin_a_pair(energy, partner, generator).log() < log_ratio
    rung, chain = (torch.arange(size, device=betas.device) for size in energy.shape)
    source = torch.where(accepted, partner[:, None], rung[:, None])
    rows = (source * len(chain) + chain).flatten()
    moved = type(replicas)(*(tensor[rows] for tensor in replicas))
    probability = log_ratio.nan_to_num(nan=-torch.inf).clamp(max=0).exp().mean(1)
    return (
        at_temperature(moved, prior, (betas[:, None] / betas[source]).flatten()),
        torch.where(partner > rung, probability, 0)[:-1],
    )


def parallel_tempering(
    kernel: Callable[[Potential, StepSize], Algorithm],
    energy: Potential,
    prior: Potential,
    betas: Tensor,
    step_size: StepSize,
    sample_prior: Callable[[int, torch.Generator], Tensor],
) -> Algorithm:
    """`kernel`, exact on any potential (`mala`, `hmc`, `rwmh`), on a ladder of inverse temperatures.

    energy, prior: `E` and `V`, of `rungs * chains` rows. betas: `(rungs,)` float64, positive, the coldest first, on the
    chains' device. step_size: `()`, or `(rungs,)`, one a rung. sample_prior: `(count, generator) -> (count, p)`: where
    the replicas begin; the coldest begin where they are told.

    The info of a step has the rows of all replicas.
    """
    rungs = len(betas)

    def on_rungs(chains: int, dtype: torch.dtype) -> Algorithm:
        sizes = step_size
        if isinstance(sizes, Tensor) and sizes.dim():
            sizes = sizes.repeat_interleave(chains).to(dtype)
        return kernel(tempered(energy, prior, betas.repeat_interleave(chains)), sizes)

    def init(position: Tensor, generator: torch.Generator) -> TemperingState:
        chains = len(position)
        others = sample_prior((rungs - 1) * chains, generator).to(position)
        replicas = on_rungs(chains, position.dtype).init(torch.cat([position, others]), generator)
        return TemperingState(replicas, torch.zeros_like(betas[0], dtype=torch.int64), torch.zeros_like(betas[1:]))

    def step(state: TemperingState, generator: torch.Generator) -> tuple[TemperingState, TransitionInfo]:
        latents = state.replicas.position
        replicas, info = on_rungs(len(latents) // rungs, latents.dtype).step(state.replicas, generator)
        replicas, probability = exchange(replicas, prior, betas, state.done, generator)
        return TemperingState(replicas, state.done + 1, state.swaps + probability), info

    return Algorithm(init, step)
