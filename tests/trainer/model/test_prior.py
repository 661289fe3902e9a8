"""Priors: exact draws, right densities, and normal coordinates that change nothing of the model."""

from __future__ import annotations

import math
import tomllib

import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor

from gebm.trainer.model import (
    ModelSettings,
    PriorSettings,
    build_model,
    freeze,
    in_normal_coordinates,
    load_model,
    save_model,
)
from gebm.trainer.model.prior import from_normal, log_density, to_normal

LEVEL = 1e-4

PRIORS = {
    "normal": (PriorSettings(), stats.norm()),
    "uniform": (PriorSettings(kind="uniform"), stats.uniform(-1, 2)),
    "box": (PriorSettings(kind="uniform", low=0.5, high=3), stats.uniform(0.5, 2.5)),
    "truncated": (PriorSettings(kind="truncated_normal"), stats.truncnorm(-2, 2)),
    "tail": (PriorSettings(kind="truncated_normal", low=1, high=4), stats.truncnorm(1, 4)),
    "wide": (PriorSettings(kind="truncated_normal", low=-6, high=6), stats.truncnorm(-6, 6)),
}
BOUNDED = {name: pair for name, pair in PRIORS.items() if name != "normal"}


def model_of(prior: PriorSettings, dimension: int = 3):
    settings = ModelSettings(
        network="mlp", latent_dimension=dimension, base_widths=(8,), energy_widths=(8,), prior=prior
    )
    return freeze(build_model(settings, (2,), seed=0)), settings


@pytest.mark.parametrize(("prior", "law"), PRIORS.values(), ids=PRIORS.keys())
def test_draws_have_the_law_and_are_independent(prior: PriorSettings, law) -> None:
    """Kolmogorov-Smirnov on 60,000 draws, and the correlations of coordinates: false-alarm rate 4e-4 each."""
    draws = model_of(prior)[0].sample_prior(20_000, torch.Generator().manual_seed(1))
    assert draws.dtype == torch.float32
    assert stats.kstest(draws.flatten().numpy(), law.cdf).pvalue > LEVEL
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert stats.pearsonr(draws[:, one].numpy(), draws[:, other].numpy()).pvalue > LEVEL


@pytest.mark.parametrize(("prior", "law"), PRIORS.values(), ids=PRIORS.keys())
def test_the_density_is_that_of_the_law(prior: PriorSettings, law) -> None:
    draws = model_of(prior)[0].sample_prior(500, torch.Generator().manual_seed(2)).double()
    expected = torch.from_numpy(law.logpdf(draws.numpy())).sum(1)
    torch.testing.assert_close(log_density(prior, draws), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("prior", "law"), BOUNDED.values(), ids=BOUNDED.keys())
def test_one_coordinate_outside_is_impossible(prior: PriorSettings, law) -> None:
    low, high = prior.bounds
    inside = torch.full((3, 2), (low + high) / 2)
    outside = inside.clone()
    outside[0, 0], outside[1, 1] = low - 1e-3, high + 1e-3
    assert log_density(prior, outside).isneginf().tolist() == [True, True, False]
    assert log_density(prior, inside).isfinite().all()


@pytest.mark.parametrize(("prior", "law"), PRIORS.values(), ids=PRIORS.keys())
def test_normal_coordinates_lead_there_and_back(prior: PriorSettings, law) -> None:
    """Where a float32 latent still tells them: within 3.5, six draws of ten thousand are further out."""
    normal = torch.linspace(-3.5, 3.5, 50, dtype=torch.float64)
    latent = from_normal(prior, normal)
    torch.testing.assert_close(torch.from_numpy(law.cdf(latent.numpy())), torch.special.ndtr(normal))
    torch.testing.assert_close(to_normal(prior, latent), normal, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(to_normal(prior, latent.float()), normal.float(), rtol=2e-3, atol=2e-3)
    leaf = normal.clone().requires_grad_()
    (slope,) = torch.autograd.grad(from_normal(prior, leaf).sum(), leaf)
    expected = stats.norm.pdf(normal.numpy()) / law.pdf(latent.numpy())
    torch.testing.assert_close(slope, torch.from_numpy(expected), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("prior", "law"), BOUNDED.values(), ids=BOUNDED.keys())
def test_the_edges_have_normal_coordinates_and_nothing_lies_beyond(prior: PriorSettings, law) -> None:
    low, high = prior.bounds
    edges = torch.tensor([low, high])
    assert (to_normal(prior, edges).abs() > 5).all() and to_normal(prior, edges).isfinite().all()
    far = from_normal(prior, torch.tensor([-40.0, 40.0]))
    assert far.tolist() == pytest.approx([low, high], abs=1e-6)
    assert low <= float(far[0]) and float(far[1]) <= high


@pytest.mark.parametrize(("prior", "law"), BOUNDED.values(), ids=BOUNDED.keys())
def test_in_normal_coordinates_a_model_makes_the_same_of_the_same_latents(prior: PriorSettings, law) -> None:
    """`B(T(u))` and `E(B(T(u)))`; and `log eta` changes by the Jacobian, so that chains have the same target."""
    model, _ = model_of(prior)
    view = in_normal_coordinates(model)
    normal = view.sample_prior(40, torch.Generator().manual_seed(3))
    latent = from_normal(prior, normal)
    torch.testing.assert_close(latent, model.sample_prior(40, torch.Generator().manual_seed(3)))
    torch.testing.assert_close(view.generate(normal), model.generate(latent))
    torch.testing.assert_close(view.latent_energy(normal), model.latent_energy(latent))
    leaf = normal.double().requires_grad_()
    (slope,) = torch.autograd.grad(from_normal(prior, leaf).sum(), leaf)
    pulled_back = model.log_prior(latent.double()) + slope.log().sum(1)
    torch.testing.assert_close(view.log_prior(normal.double()), pulled_back, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in view.parameters()) and not view.training


def test_a_model_of_the_normal_prior_is_its_own_view() -> None:
    model, _ = model_of(PriorSettings())
    assert in_normal_coordinates(model) is model
    generator = torch.Generator().manual_seed(4)
    expected = torch.randn(5, 3, generator=torch.Generator().manual_seed(4))
    assert torch.equal(model.sample_prior(5, generator), expected)


def test_the_prior_is_part_of_a_model_on_disk_and_older_ones_are_normal(tmp_path) -> None:
    prior = PriorSettings(kind="uniform", low=-0.5, high=2.0)
    model, settings = model_of(prior)
    save_model(model, settings, str(tmp_path))
    assert load_model(str(tmp_path)).prior == prior
    description = tmp_path / "model.toml"
    text = description.read_text()
    assert tomllib.loads(text)["network"]["prior"] == {"kind": "uniform", "low": -0.5, "high": 2.0}
    start = text.index("[network.prior]")
    end = text.find("\n[", start)
    description.write_text(text[:start] + (text[end:] if end > 0 else ""))
    assert load_model(str(tmp_path)).prior == PriorSettings()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": {"low": 0.0}}, 'prior.kind = "normal" has no bounds'),
        ({"prior": {"kind": "uniform", "low": 1.0}}, "prior.low 1 must be below prior.high 1"),
        ({"prior": {"kind": "truncated_normal", "low": 5, "high": 6}}, r"truncated to \[5, 6\] is not drawn exactly"),
        ({"prior": {"kind": "truncated_normal", "high": math.inf}}, "finite number"),
        ({"prior": {"kind": "gaussian"}}, "'normal', 'uniform' or 'truncated_normal'"),
        ({"base": "realnvp", "prior": {"kind": "uniform"}}, "a flow of the normal prior"),
    ],
)
def test_a_prior_that_makes_no_sense_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ModelSettings.model_validate({"network": "mlp", **settings})


def test_the_log_partition_is_that_of_the_prior() -> None:
    """Energy `½ z²` on `U(-1, 1)`: `E[exp(-E)] = ∫_{-1}^{1} exp(-z²/2) / 2 = sqrt(2 pi) (Phi(1) - ½)`."""
    model, _ = model_of(PriorSettings(kind="uniform"), dimension=1)
    draws: Tensor = model.sample_prior(200_000, torch.Generator().manual_seed(5)).double()
    estimate = torch.exp(-draws.square().sum(1) / 2)
    error = float(estimate.std()) / math.sqrt(len(draws))
    assert float(estimate.mean()) == pytest.approx(math.sqrt(2 * math.pi) * (stats.norm.cdf(1) - 0.5), abs=4.5 * error)
