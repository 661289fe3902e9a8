"""Held-out likelihood against closed forms: a normal base tilted by a quadratic energy is a normal again."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gebm.cluster.errors import InputError
from gebm.trainer.held_out_likelihood import FEWEST_EFFECTIVE_DRAWS, estimate_log_partition, held_out_likelihood
from gebm.trainer.model import GEBM

D = 3


class NormalBase(nn.Module):
    """`N(0, scale^2 I)`."""

    def __init__(self, scale: float):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, latent: Tensor) -> Tensor:
        return self.scale * latent

    def log_density(self, points: Tensor) -> Tensor:
        return torch.distributions.Normal(0.0, self.scale).log_prob(points).sum(1)


class QuadraticEnergy(nn.Module):
    """`a |x|^2 / 2 + b (x_1 + ... + x_d)`."""

    def __init__(self, a: float, b: float):
        super().__init__()
        self.a, self.b = a, b

    def forward(self, points: Tensor) -> Tensor:
        return 0.5 * self.a * points.square().sum(1) + self.b * points.sum(1)


def tilted(scale: float, a: float, b: float) -> GEBM:
    return GEBM(NormalBase(scale), QuadraticEnergy(a, b), D, (D,)).eval()


def exact_log_partition(scale: float, a: float, b: float) -> float:
    """`log E exp(-E)` under `N(0, s^2 I)`: `-d/2 log(1 + a s^2) + d b^2 s^2 / (2 (1 + a s^2))`."""
    stretch = 1 + a * scale**2
    return D * (-0.5 * math.log(stretch) + 0.5 * b**2 * scale**2 / stretch)


def draw(count: int, mean: float, scale: float, seed: int = 0) -> Tensor:
    return mean + scale * torch.randn(count, D, generator=torch.Generator().manual_seed(seed))


def test_the_log_partition_lies_within_its_standard_error_of_the_exact_one():
    model, exact = tilted(1.5, 0.4, 0.3), exact_log_partition(1.5, 0.4, 0.3)
    scores = []
    for seed in range(60):
        found = estimate_log_partition(model, 4_000, seed)
        scores.append((found.value - exact) / found.standard_error)
    # 60 standard normals: their mean has deviation 0.13, their own deviation an error of 0.09. False alarm 1e-4.
    assert abs(sum(scores) / 60) < 0.5
    assert 0.65 < torch.tensor(scores).std() < 1.4


def test_the_likelihoods_are_those_of_the_two_normal_laws():
    scale, a, b = 1.5, 0.4, 0.3
    stretch = 1 + a * scale**2
    points = draw(2_000, -0.2, 0.9)
    found = held_out_likelihood(tilted(scale, a, b), points, draws=200_000, seed=1)
    base = -torch.distributions.Normal(0.0, scale).log_prob(points).sum(1).double()
    law = torch.distributions.Normal(-b * scale**2 / stretch, scale / math.sqrt(stretch))
    model = -law.log_prob(points).sum(1).double()
    assert found.base == pytest.approx(float(base.mean()), abs=1e-5)
    # Only c is estimated: 4 of its standard errors are passed once in 16,000.
    assert abs(found.model - float(model.mean())) < 4 * found.log_partition.standard_error
    assert found.log_partition.standard_error < 0.005
    assert found.base_error == pytest.approx(float(base.std()) / math.sqrt(2_000), rel=1e-4)
    assert found.model_error == pytest.approx(float(model.std()) / math.sqrt(2_000), rel=1e-4)
    assert found.difference_error == pytest.approx(float((model - base).std()) / math.sqrt(2_000), rel=1e-4)
    assert found.difference == pytest.approx(found.model - found.base, abs=1e-9)
    assert found.points == 2_000 and found.log_partition.draws == 200_000


def test_a_model_that_is_the_data_is_called_better_than_its_base():
    found = held_out_likelihood(tilted(1.5, 0.4, 0.3), draw(2_000, -0.355, 1.5 / math.sqrt(1.9)), draws=50_000, seed=0)
    assert found.better and found.difference_upper < 0


def test_a_model_as_good_as_its_base_is_seldom_called_better():
    # Where the truth is no difference at all: E = 0.2 (x_1 + ...) on N(0, I) moves the mean by 0.2; points in the
    # middle of the two laws are equally likely under both. "Better" may come up in at most 5% of 200 trials: more than
    # 20 of them has probability 2e-3 at exactly 5%, and the two bounds together are stricter than that.
    model = tilted(1.0, 0.0, 0.2)
    found = [
        held_out_likelihood(model, draw(50, -0.1, 1.0, seed), draws=500, seed=10_000 + seed) for seed in range(200)
    ]
    mean = sum(each.difference for each in found) / 200
    assert abs(mean) < 0.02
    assert sum(each.better for each in found) <= 20


def test_the_verdict_counts_the_error_of_the_log_partition():
    """The same points and energies: with few draws of c the gain is not shown, with many it is."""
    model, points = tilted(1.0, 0.0, 0.3), draw(5_000, -0.21, 1.0)
    few, many = (held_out_likelihood(model, points, draws=draws, seed=3) for draws in (300, 300_000))
    assert many.better and not few.better
    assert few.difference_error == pytest.approx(many.difference_error)
    assert few.difference_upper - few.difference > many.difference_upper - many.difference


def test_a_log_partition_that_rests_on_a_handful_of_draws_proves_nothing():
    model = tilted(1.0, 0.0, 2.0)
    found = held_out_likelihood(model, draw(500, -2.0, 1.0), draws=1_000, seed=0)
    assert found.log_partition.effective_draws < FEWEST_EFFECTIVE_DRAWS
    assert not found.better


def test_equal_weights_count_as_all_draws():
    found = estimate_log_partition(tilted(1.0, 0.0, 0.0), 1_000, 0)
    assert (found.value, found.standard_error) == (0.0, 0.0)
    assert found.effective_draws == pytest.approx(1_000)


def test_what_has_no_likelihood_is_refused():
    no_density = GEBM(nn.Linear(D, D), QuadraticEnergy(0, 0), D, (D,))
    with pytest.raises(InputError, match="no density"):
        held_out_likelihood(no_density, draw(5, 0, 1), draws=10, seed=0)
    with pytest.raises(InputError, match="1 held-out points"):
        held_out_likelihood(tilted(1.0, 0, 0), draw(1, 0, 1), draws=10, seed=0)
    with pytest.raises(InputError, match="1 of 5 held-out points have no finite"):
        points = draw(5, 0, 1)
        points[2, 0] = math.inf
        held_out_likelihood(tilted(1.0, 0, 0), points, draws=10, seed=0)
