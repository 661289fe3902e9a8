"""Samplers that change with time can be recorded too: all that changes is in tensors of their state."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.annealing import annealed, temperature_of
from gebm.sampler.hmc import hmc
from gebm.sampler.mala import mala
from gebm.sampler.preconditioning import rescaled
from gebm.sampler.replay import cuda_graph, replayed, tensors
from gebm.sampler.schedule import polynomial, scheduled, stepwise
from gebm.sampler.settings import AnnealSettings
from gebm.sampler.tempering import ladder, parallel_tempering
from gebm.sampler.ula import ula
from tests.sampler.test_replay import by_running_again, on_a_gpu, path, prior


def energy(z: Tensor) -> Tensor:
    return torch.sin(3 * z[:, 0]) + z[:, 1].square()


def of_prior(z: Tensor) -> Tensor:
    return z.square().sum(1) / 2


def potential(z: Tensor) -> Tensor:
    return energy(z) + of_prior(z)


def on_ladder(device: str) -> Algorithm:
    betas = ladder(1.0, 0.1, 3).to(device)
    sizes = torch.tensor([0.1, 0.2, 0.4], dtype=torch.float64, device=device)
    return parallel_tempering(mala, energy, of_prior, betas, sizes, prior)


def in_units(device: str) -> Algorithm:
    scale = torch.tensor([0.5, 1.0, 1.0, 2.0], device=device)
    return rescaled(scheduled(lambda h: ula(lambda y: potential(scale * y), h), 0.2, polynomial(3.0, 1.0)), scale)


COMPOSED = {
    "stepwise": lambda device: scheduled(lambda h: mala(potential, h), 0.3, stepwise(0.5, 2)),
    "annealed": lambda device: annealed(
        lambda u: hmc(u, 0.4, 2), energy, of_prior, temperature_of(AnnealSettings(start=0.1, steps=4), 2.0)
    ),
    "tempered": on_ladder,
    "rescaled, polynomial": in_units,
}


@pytest.mark.parametrize("make", COMPOSED.values(), ids=COMPOSED.keys())
def test_a_replayed_step_is_the_step(make: Callable[[str], Algorithm]) -> None:
    for own, replay in zip(path(make("cpu")), path(replayed(make("cpu"), by_running_again)), strict=True):
        assert type(own[0]) is type(replay[0])
        assert all(torch.equal(a, b) for a, b in zip(tensors(own), tensors(replay), strict=True))


@on_a_gpu
@pytest.mark.parametrize("make", COMPOSED.values(), ids=COMPOSED.keys())
def test_a_cuda_graph_is_the_step(make: Callable[[str], Algorithm]) -> None:
    """The second half of the steps is at other step sizes and temperatures than those that were recorded."""
    for own, replay in zip(path(make("cuda"), "cuda"), path(replayed(make("cuda"), cuda_graph), "cuda"), strict=True):
        for a, b in zip(tensors(own), tensors(replay), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
