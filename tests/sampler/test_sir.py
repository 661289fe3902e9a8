"""Sampling-importance-resampling: weights, systematic resampling, and draws of the right law."""

from __future__ import annotations

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from gebm.sampler import SamplerSettings, draw
from gebm.sampler.chain import sample_from
from gebm.sampler.sir import effective_share, importance_weights, resample, systematic
from gebm.trainer.model import GEBM, freeze
from tests.sampler.small_models import gaussian_model, small_model
from tests.sampler.targets import normal, p_value, tempered_gaussian
from tests.sampler.test_labels_and_vectors import ShiftedByClass

LEVEL = 1e-4


def test_weights_are_those_of_the_tilt_and_their_effective_share_is_known() -> None:
    tilt = torch.tensor([0.0, math.log(2), math.inf, math.nan, 1000.0])
    weights = importance_weights(tilt)
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 1 / 3, 0, 0, 0], dtype=torch.float64))
    assert effective_share(weights) == pytest.approx(1 / (5 * (4 / 9 + 1 / 9)))
    assert effective_share(importance_weights(torch.zeros(8))) == pytest.approx(1)
    with pytest.raises(ValueError, match="no prior draw has a finite energy"):
        importance_weights(torch.tensor([math.nan, math.inf]))


def test_systematic_resampling_takes_each_draw_as_often_as_its_weight_says() -> None:
    """Never further off than rounding; over 4,000 repetitions right on average, within 4.5 standard errors."""
    weights = importance_weights(2 * normal(30, 1, torch.Generator().manual_seed(0))[:, 0])
    generator = torch.Generator().manual_seed(1)
    counts = torch.stack(
        [torch.bincount(systematic(weights, 20, generator), minlength=30) for _ in range(4000)]
    ).double()
    assert (counts.sum(1) == 20).all()
    assert ((counts >= (20 * weights).floor()) & (counts <= (20 * weights).ceil())).all()
    error = (counts.var(0) / 4000).sqrt() + 1e-9
    assert ((counts.mean(0) - 20 * weights).abs() / error).max() < 4.5


def test_resampled_draws_have_the_law_of_the_target() -> None:
    """2,000 out of 1,000,000 prior draws, so that few come twice: false-alarm rate 1e-4. A wrong tilt is seen."""
    target = tempered_gaussian()
    found = resample(
        target.energy, lambda n, g: normal(n, 3, g), count=2000, draws=500, generator=torch.Generator().manual_seed(2)
    )
    assert 0.01 < found.effective < 0.5
    assert p_value(target.at(1.0), found.latents) > LEVEL
    assert p_value(target.at(0.8), found.latents) < LEVEL


def test_the_effective_share_is_that_of_gaussians() -> None:
    """Prior N(0, 1), energy `½ a z²`: `(Σ w)² / (m Σ w²) -> sqrt(1 + 2a) / (1 + a)`."""
    stiffness = 3.0
    found = resample(
        lambda z: stiffness * z.square().sum(1) / 2,
        lambda n, g: normal(n, 1, g),
        count=1000,
        draws=400,
        generator=torch.Generator().manual_seed(3),
    )
    assert found.effective == pytest.approx(math.sqrt(1 + 2 * stiffness) / (1 + stiffness), rel=0.02)


def test_each_draw_has_the_law_of_its_own_label() -> None:
    """As the chains of `test_labels_and_vectors`: normal, precision y + 2, mean (y + 1)(3 - y) / (y + 2)."""
    model = freeze(GEBM(ShiftedByClass(False), ShiftedByClass(True), 1, (1,), classes=3))
    labels = torch.arange(3000) % 3
    points = draw(model, 3000, name="sir", draws_per_sample=200, chains=3000, labels=labels, seed=4)
    for label in range(3):
        latents = points[labels == label, 0].numpy() - label
        mean, deviation = (label + 1) * (3 - label) / (label + 2), 1 / math.sqrt(label + 2)
        assert stats.kstest(latents, stats.norm(mean, deviation).cdf).pvalue > LEVEL


def test_as_a_sampler_it_reports_how_much_its_draws_were_worth() -> None:
    model = gaussian_model((0.5, 0.5))
    settings = SamplerSettings(name="sir", draws_per_sample=50)
    samples = sample_from(model, settings, torch.zeros(400, 2), torch.Generator().manual_seed(5))
    stiffness = 0.5**-2 - 1
    expected = math.sqrt(1 + 2 * stiffness) / (1 + stiffness)
    assert samples.found["effective_share"] == pytest.approx((expected**2,), rel=0.1)
    assert 1 / 20_000 < samples.found["largest_weight"][0] < 0.01
    assert samples.latents.std(0).tolist() == pytest.approx([0.5, 0.5], rel=0.15)
    torch.testing.assert_close(samples.energies[0], model.energy(samples.images))


def test_it_is_a_function_of_the_seed() -> None:
    model = small_model()

    def drawn(seed: int) -> Tensor:
        return draw(model, 7, name="sir", draws_per_sample=5, chains=4, seed=seed)

    assert torch.equal(drawn(1), drawn(1)) and not torch.equal(drawn(1), drawn(2))
