"""Data on one segment, the base on another, parallel one at a distance: where the KL divergence is infinite.

KALE with its penalty stays finite and falls to 0 as the segments meet. With opposite points paired, mixtures fill the
gap, `theta` wide, evenly. At slope `w` across it the penalised objective is `w theta - lambda w^2` at the best `c`, and
no bent energy does better: the best slope is `theta / (2 lambda)`, at which `F = theta^2 / (2 lambda)` and the penalty
takes half of it.
"""

import itertools
import math

import pytest
import torch

from tests.trainer.objectives.critic_training import train_critic


def segments(distance: float) -> tuple[torch.Tensor, torch.Tensor]:
    """64 points `(64, 2)` of `{distance} x [0, 1]`, and of `{0} x [0, 1]`."""
    along = (torch.arange(64) + 0.5) / 64
    return torch.stack([torch.full((64,), distance), along], 1), torch.stack([torch.zeros(64), along], 1)


@pytest.mark.parametrize("distance", [2.0, 1.0, 0.5])
def test_kale_with_its_penalty_is_finite_and_shrinks_with_the_square_of_the_distance(distance):
    last = train_critic("kale", *segments(distance), steps=200, rate=0.02, penalty=1.0)[-20:]
    kale = -sum(float(step.critic_loss) for step in last) / 20
    penalty = sum(float(step.penalty) for step in last) / 20
    assert kale == pytest.approx(distance**2 / 2, rel=0.01)
    assert kale - penalty == pytest.approx(distance**2 / 4, rel=0.01)


@pytest.mark.parametrize("name", ["donsker_varadhan", "kl", "reverse_kl"])
def test_estimates_of_the_infinite_kl_grow_without_bound_however_near_the_segments(name):
    """The f-GAN forms grow with the logarithm of the critic beyond 20: there ratios of e^20 have been told apart."""
    steps = train_critic(name, *segments(0.1), steps=400, rate=0.01, penalty=0.0)
    values = [-float(steps[number].critic_loss) for number in (20, 80, 200, 399)]
    assert all(later > earlier + 0.5 for earlier, later in itertools.pairwise(values)) and values[-1] > 25
    assert all(math.isfinite(float(step.gradient_norm)) for step in steps)


@pytest.mark.parametrize("distance", [2.0, 0.5])
def test_the_jensen_shannon_divergence_is_log_two_at_any_distance(distance):
    """So it tells the base nothing about which way to go."""
    last = train_critic("jensen_shannon", *segments(distance), steps=150, rate=0.05, penalty=0.0)[-1]
    assert -float(last.critic_loss) == pytest.approx(math.log(2), rel=0.01)
