"""DDLS is ULA where its temperature is 1, and elsewhere has the law that tempers the prior too."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError

from gebm.sampler.ddls import ddls
from gebm.sampler.potential import latent_potential
from gebm.sampler.samplers import build_sampler
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.ula import ula
from tests.sampler.small_models import gaussian_model, small_model
from tests.sampler.targets import gaussian, normal, p_value

LEVEL = 1e-4
SCALE = 0.8


@pytest.mark.parametrize(("s", "b"), [(0.02, 1.0), (0.1, 3.0), (0.5, 0.4)])
def test_on_a_gaussian_the_variance_is_that_of_drift_and_noise(s: float, b: float) -> None:
    """`σ² / (b (1 - s / (2 σ²)))`; Kolmogorov–Smirnov at level 1e-4, fixed seed."""
    algorithm = ddls(gaussian(SCALE).potential, s, b)
    generator = torch.Generator().manual_seed(0)
    state = algorithm.init(SCALE * normal(30_000, 1, generator), generator)
    for _ in range(math.ceil(10 * SCALE**2 / s)):
        state, _ = algorithm.step(state, generator)
    assert p_value(gaussian(SCALE / math.sqrt(b * (1 - s / (2 * SCALE**2)))), state.position) > LEVEL
    if b != 1:
        unlike = SCALE / math.sqrt(1 - s / (2 * SCALE**2))
        assert p_value(gaussian(unlike), state.position) < LEVEL


def test_at_temperature_one_it_is_ula_number_for_number() -> None:
    model = small_model()
    ends = []
    for name in ("ula", "ddls"):
        algorithm = build_sampler(model, SamplerSettings(name=name, step_size=0.05))
        generator = torch.Generator().manual_seed(1)
        state = algorithm.init(model.sample_prior(20, generator), generator)
        for _ in range(10):
            state, _ = algorithm.step(state, generator)
        ends.append(state.position)
    assert torch.equal(*ends)


def test_on_a_model_a_step_is_one_of_ula_on_the_whole_potential_sharpened() -> None:
    """Of `s` at `b`: one of ULA on `b U` with `h = s / b`, the energy counted once."""
    model = small_model()
    potential = latent_potential(model)
    built = build_sampler(model, SamplerSettings(name="ddls", step_size=0.3, inverse_temperature=4.0))
    ends = []
    for algorithm in (built, ula(lambda z: 4.0 * potential(z), 0.3 / 4.0)):
        generator = torch.Generator().manual_seed(2)
        state = algorithm.init(model.sample_prior(50, generator), generator)
        ends.append(algorithm.step(state, generator)[0].position)
    torch.testing.assert_close(*ends)


def test_on_a_model_it_tempers_the_prior_and_ula_does_not() -> None:
    """`E = 0`: the model is the prior at every temperature. ULA keeps its variance, DDLS divides it by `b`."""
    model = gaussian_model((1.0, 1.0))
    variances = {}
    for name in ("ula", "ddls"):
        algorithm = build_sampler(model, SamplerSettings(name=name, step_size=0.02, inverse_temperature=4.0))
        generator = torch.Generator().manual_seed(3)
        state = algorithm.init(model.sample_prior(20_000, generator), generator)
        for _ in range(300):
            state, _ = algorithm.step(state, generator)
        variances[name] = state.position.var().item()
    # The standard error of each is 0.5% of it; ULA's own bias is 1%.
    assert variances["ula"] == pytest.approx(1 / (1 - 0.01), rel=0.03)
    assert variances["ddls"] == pytest.approx(0.25 / (1 - 0.01), rel=0.03)


@pytest.mark.parametrize("b", [0.0, -1.0, math.inf])
def test_a_temperature_without_finite_noise_is_refused(b: float) -> None:
    with pytest.raises(ValueError, match="inverse_temperature"):
        ddls(gaussian(SCALE).potential, 0.1, b)
    if b == 0:
        with pytest.raises(ValidationError, match="its noise would be infinite"):
            SamplerSettings(name="ddls", inverse_temperature=0)
