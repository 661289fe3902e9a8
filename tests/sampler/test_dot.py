"""Discriminator optimal transport descends its objective and keeps the norm of the latents."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gebm.sampler.dot import dot, effective_lipschitz, project

DIMENSION = 20


def energy(z: Tensor) -> Tensor:
    return 3 * (z[:, 0] + torch.sin(z[:, 1]))


def start(count: int = 64) -> Tensor:
    return torch.randn(count, DIMENSION, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_the_effective_lipschitz_constant_is_the_largest_slope() -> None:
    pilot = start(1000)
    expected = 3 * (1 + pilot[:, 1].cos().square()).sqrt().max()
    assert effective_lipschitz(energy, pilot) == pytest.approx(expected.item(), rel=1e-12)


def test_a_flat_energy_is_refused() -> None:
    with pytest.raises(ValueError, match="effective_lipschitz must be positive"):
        effective_lipschitz(lambda z: 0 * z.sum(1), start())


def test_the_step_is_the_gradient_of_the_smoothed_objective() -> None:
    """Two steps, the second away from the anchor, against autograd on the objective itself."""
    z0, lipschitz, smoothing, h = start(), 4.0, 0.05, 0.1
    algorithm = dot(energy, h, lipschitz, smoothing, "none")
    generator = torch.Generator()
    state = algorithm.init(z0, generator)
    expected = z0
    for _ in range(2):
        leaf = expected.clone().requires_grad_()
        objective = ((leaf - z0).square().sum(1) + smoothing**2).sqrt() + energy(leaf) / lipschitz
        expected = expected - h * torch.autograd.grad(objective.sum(), leaf)[0]
        state, _ = algorithm.step(state, generator)
    torch.testing.assert_close(state.position, expected)


def test_the_projection_keeps_the_norm_and_the_reference_one_does_not() -> None:
    z, g = start(), start().flip(0)
    tangent = project(g, z, "sphere")
    torch.testing.assert_close((tangent * z).sum(1), torch.zeros(len(z), dtype=z.dtype), atol=1e-12, rtol=0)
    over = project(g, z, "reference")
    torch.testing.assert_close(g - over, (g * z).sum(1, keepdim=True) * z / math.sqrt(DIMENSION))
    assert (over * z).sum(1).abs().max() > 1


def test_it_lowers_the_energy_and_stays_on_the_sphere() -> None:
    z0 = start()
    algorithm = dot(energy, 0.02, effective_lipschitz(energy, z0))
    generator = torch.Generator()
    state = algorithm.init(z0, generator)
    for _ in range(50):
        state, _ = algorithm.step(state, generator)
    assert (energy(state.position) < energy(z0)).all()
    torch.testing.assert_close(state.position.norm(dim=1), z0.norm(dim=1), rtol=0.02, atol=0)
