"""ULA and KLA have the stationary laws that the theory gives them as functions of the step.

On `N(0, s²)` these laws are Gaussian with known variance. Each check is at level 1e-4 (`LEVEL`), seeds are
fixed.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gebm.sampler.kla import KLAState, kla
from gebm.sampler.ula import ula
from tests.sampler.targets import gaussian, normal, p_value

LEVEL = 1e-4
CHAINS = 30_000
SCALE = 0.8


@pytest.mark.parametrize("h", [0.02, 0.1, 0.5])
def test_ula_on_a_gaussian_has_the_inflated_variance_of_its_step(h: float) -> None:
    """Variance `s² / (1 - h / (2 s²))`, and not `s²`."""
    algorithm = ula(gaussian(SCALE).potential, h)
    generator = torch.Generator().manual_seed(0)
    state = algorithm.init(SCALE * normal(CHAINS, 1, generator), generator)
    # What is left of the start's variance is (1 - h/s²)^(2 steps): below 1e-8.
    for _ in range(math.ceil(10 * SCALE**2 / h)):
        state, _ = algorithm.step(state, generator)
    stationary = SCALE / math.sqrt(1 - h / (2 * SCALE**2))
    assert p_value(gaussian(stationary), state.position) > LEVEL
    if h > 0.05:
        assert p_value(gaussian(SCALE), state.position) < LEVEL


def kla_at_rest(d: float, k: float = 1.0) -> KLAState:
    """KLA's state on `N(0, s²)` after a time of 15 relaxation times."""
    algorithm = kla(gaussian(SCALE).potential, d, k)
    generator = torch.Generator().manual_seed(1)
    state = algorithm.init(2 * SCALE * normal(CHAINS, 1, generator), generator)
    for _ in range(math.ceil(30 / d)):
        state, _ = algorithm.step(state, generator)
    return state


@pytest.mark.parametrize("d", [0.3, 0.8, 1.2])
def test_kla_on_a_gaussian_has_no_bias_in_position(d: float) -> None:
    state = kla_at_rest(d)
    assert p_value(gaussian(SCALE), state.position) > LEVEL


@pytest.mark.parametrize("d", [0.3, 0.8, 1.2])
def test_kla_on_a_gaussian_has_the_velocity_of_its_step(d: float) -> None:
    """Variance `1 / (1 - d² / (4 s²))`."""
    state = kla_at_rest(d)
    shrink = 1 - d**2 / (4 * SCALE**2)
    assert p_value(gaussian(1 / math.sqrt(shrink)), state.velocity) > LEVEL


@pytest.mark.parametrize("d", [0.3, 0.8, 1.2])
def test_the_check_rejects_the_half_step_of_kla_in_place_of_the_whole(d: float) -> None:
    """`z½ = z + (d/2) v` has variance `s² / (1 - d² / (4 s²))`: reporting it is the planted error."""
    state = kla_at_rest(d)
    half_step = state.position + d / 2 * state.velocity
    shrink = 1 - d**2 / (4 * SCALE**2)
    assert p_value(gaussian(SCALE / math.sqrt(shrink)), half_step) > LEVEL
    assert p_value(gaussian(SCALE), half_step) < LEVEL


def test_kla_is_unbiased_on_a_gaussian_at_any_friction() -> None:
    for k in (0.2, 5.0):
        assert p_value(gaussian(SCALE), kla_at_rest(0.8, k).position) > LEVEL


def bias_on_a_double_well(d: float, generator: torch.Generator) -> tuple[float, float]:
    """Of `E[z²]` under KLA with step `d`, friction 1, and its standard error.

    The potential is that of two normal laws, `N(±1.2, 0.7²)`: wells at about ±1.2 with a barrier, and, unlike
    a polynomial, of bounded curvature, so that large steps are stable.
    """
    offset, scale, chains, time = 1.2, 0.7, 40_000, 180.0
    exact = offset**2 + scale**2

    def potential(z: Tensor) -> Tensor:
        tilt = z * offset / scale**2
        return (z.square() / (2 * scale**2) - torch.logaddexp(tilt, -tilt)).sum(1)

    algorithm = kla(potential, d, 1.0)
    state = algorithm.init(offset + scale * normal(chains, 1, generator), generator)
    total = torch.zeros(chains, dtype=torch.float64)
    burn_in, records = math.ceil(30 / d), math.ceil(time / d)
    for number in range(burn_in + records):
        state, _ = algorithm.step(state, generator)
        if number >= burn_in:
            total += state.position.squeeze(1).square()
    means = total / records
    return means.mean().item() - exact, means.std().item() / math.sqrt(chains)


def test_the_bias_of_kla_on_a_double_well_falls_with_the_square_of_the_step() -> None:
    """Twice the step: four times the bias. Not twice, not none.

    Within four standard errors (false-alarm rate below 1e-4) and 20% for the next order of the expansion.
    """
    generator = torch.Generator().manual_seed(2)
    small, small_error = bias_on_a_double_well(0.25, generator)
    large, large_error = bias_on_a_double_well(0.5, generator)
    tolerance = 4 * math.hypot(large_error, 4 * small_error) + 0.2 * abs(large)
    assert abs(large) > 20 * large_error
    assert tolerance < 0.7 * abs(large)  # a bias of first order would miss by |large|
    assert abs(large - 4 * small) < tolerance
