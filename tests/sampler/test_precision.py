"""Gradients in bfloat16 move the chains; what is accepted and what is reported is float32's.

Statistical checks are those of `test_exact_kernels.py`: level 1e-4 each, fixed seeds.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gebm.sampler import SamplerSettings
from gebm.sampler.algorithm import Potential, value_and_gradient
from gebm.sampler.chain import sample_from
from gebm.sampler.hmc import hmc
from gebm.sampler.mala import mala
from gebm.sampler.potential import latent_energy, latent_potential
from gebm.sampler.precision import in_precision, with_gradient_of
from gebm.sampler.samplers import SAMPLERS, build_sampler
from gebm.sampler.work import make_shard_worker, shard_items
from gebm.trainer.model import GEBM, ModelSettings, build_model, freeze
from tests.sampler.small_models import SETTINGS, SHAPE, save_small_model, small_model
from tests.sampler.targets import Target, p_value
from tests.sampler.test_exact_kernels import LEVEL, TARGETS, run

KERNELS = {"mala": lambda potential: mala(potential, 0.15), "hmc": lambda potential: hmc(potential, 0.4, 3)}
GRID = 0.5  # far rougher than bfloat16: the targets' standard deviations are about 1
HALF = {"precision": "bfloat16"}


def on_a_grid(potential: Potential) -> Potential:
    """The potential at the nearest point of a grid; its gradient too is that of the point on the grid."""
    return lambda z: potential(z + ((z / GRID).round() * GRID - z).detach())


@pytest.fixture(scope="module")
def model() -> GEBM:
    return small_model(spread=3.0)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_an_exact_kernel_stays_exact_with_a_rough_gradient(kernel, target: Target) -> None:
    position, accepted = run(kernel(with_gradient_of(target.potential, on_a_grid(target.potential))), target)
    assert 0.1 < accepted < 0.99
    assert p_value(target, position) > LEVEL
    # And the gradient was rough: with a good one more is accepted.
    assert accepted < run(kernel(target.potential), target, steps=3)[1] - 0.01


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_the_check_rejects_acceptance_by_rough_energies(kernel) -> None:
    for target in TARGETS.values():
        assert p_value(target, run(kernel(on_a_grid(target.potential)), target)[0]) < LEVEL


@pytest.mark.parametrize("name", ["mala", "hmc", "imh", "rwmh"])
def test_an_exact_kernel_sees_float32_energies_and_bfloat16_gradients(model: GEBM, name: str) -> None:
    latents = model.sample_prior(50, torch.Generator().manual_seed(0))
    exact, slope = value_and_gradient(latent_energy(model), latents)
    seen = in_precision(model, SamplerSettings(name=name, **HALF))
    value, gradient = value_and_gradient(latent_energy(seen), latents)
    assert torch.equal(value, exact)
    assert gradient.dtype == torch.float32 and not torch.equal(gradient, slope)
    rough = in_precision(model, SamplerSettings(name="ula", **HALF))
    assert torch.equal(gradient, value_and_gradient(latent_energy(rough), latents)[1])
    assert (gradient - slope).norm() < 0.1 * slope.norm()


@pytest.mark.parametrize("name", ["ula", "ddls", "kla", "dot"])
def test_a_kernel_without_acceptance_step_evaluates_no_float32_network(model: GEBM, name: str) -> None:
    calls: list[torch.dtype] = []
    watched = freeze(model)
    handles = [
        network.register_forward_pre_hook(lambda _, inputs: calls.append(inputs[0].dtype))
        for network in (watched.base, watched.energy_network)
    ]
    settings = SamplerSettings(name=name, **HALF)
    generator = torch.Generator().manual_seed(1)
    algorithm = build_sampler(watched, settings)
    state = algorithm.init(model.sample_prior(4, generator), generator)
    calls.clear()
    state, _ = algorithm.step(state, generator)
    for handle in handles:
        handle.remove()
    assert calls == [torch.bfloat16] * 2
    assert state.position.dtype == torch.float32


def test_the_prior_is_float32s(model: GEBM) -> None:
    latents = model.sample_prior(50, torch.Generator().manual_seed(2))
    seen = in_precision(model, SamplerSettings(name="ula", **HALF))
    value, gradient = value_and_gradient(latent_potential(seen, 0.0), latents)
    torch.testing.assert_close(value, -model.log_prior(latents), rtol=0, atol=0)
    torch.testing.assert_close(gradient, latents, rtol=0, atol=0)


def test_batch_norms_keep_float32_statistics_in_a_converted_network() -> None:
    settings = ModelSettings(latent_dimension=4, base_widths=(6, 4), energy_widths=(6,))
    trained = build_model(settings, SHAPE, seed=0).train()
    trained.generate(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    seen = in_precision(freeze(trained), SamplerSettings(name="ula", **HALF))
    kinds = {type(module).__name__: module for module in seen.converted.modules()}  # type: ignore[union-attr, operator]
    assert kinds["BatchNorm2d"].running_var.dtype == torch.float32
    assert kinds["Conv2d"].weight.dtype == torch.bfloat16


def test_the_error_of_the_potential_is_told_in_nats(model: GEBM) -> None:
    beta = 100.0
    prior = model.sample_prior(40, torch.Generator().manual_seed(3))
    settings = SamplerSettings(name="ula", inverse_temperature=beta, steps=0, **HALF)
    samples = sample_from(model, settings, prior, torch.Generator().manual_seed(4))
    rough = latent_energy(in_precision(model, settings))
    with torch.no_grad():
        expected = beta * (rough(prior) - latent_energy(model)(prior)).abs().max().item()
    assert samples.potential_error == pytest.approx(expected, rel=1e-6)
    assert expected > 0.5  # no acceptance step may look at such an energy
    torch.testing.assert_close(samples.energies[0], latent_energy(model)(prior))


def test_shards_in_bfloat16_tell_their_error_and_are_the_same_again(tmp_path: Path) -> None:
    url = save_small_model(str(tmp_path / "model"))
    settings = SamplerSettings(name="mala", step_size=0.1, steps=8, chains=6, shard_size=10, **HALF)
    threads = torch.get_num_threads()
    records = []
    for place in ("first", "second", "float32"):
        chosen = settings if place != "float32" else settings.model_copy(update={"precision": "float32"})
        work = make_shard_worker(url, str(tmp_path / place), chosen, 0, "cpu")()
        records.append(work(shard_items(chosen, 10, 0)[0], "here"))
    torch.set_num_threads(threads)
    first, second, exact = records
    assert first["sha256"] == second["sha256"] != exact["sha256"]
    assert 0 < first["diagnostics"]["potential_error"] < 0.5
    assert exact["diagnostics"]["potential_error"] is None


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_moves_in_bfloat16(model: GEBM, name: str) -> None:
    settings = SamplerSettings(name=name, step_size=0.05, steps=4, **HALF)
    prior = model.sample_prior(6, torch.Generator().manual_seed(5))
    samples = sample_from(model, settings, prior, torch.Generator().manual_seed(6))
    assert samples.latents.dtype == samples.images.dtype == torch.float32
    assert not torch.equal(samples.latents, prior)


def test_a_network_in_training_mode_is_refused_in_bfloat16_too() -> None:
    model = build_model(SETTINGS, SHAPE, seed=0).requires_grad_(False).eval()
    model.base.train()
    with pytest.raises(ValueError, match=r"training mode \(base\)"):
        build_sampler(model, SamplerSettings(name="ula", **HALF))
