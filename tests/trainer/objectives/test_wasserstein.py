"""The gradient-penalised critic finds the Wasserstein-1 distance, to the slack that its penalty leaves it, and the
right way round: the distance is symmetric, critic and base are not."""

import pytest
import torch
from accelerate import Accelerator
from scipy import stats
from torch import Tensor, nn

from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.steps import base_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers
from tests.trainer.objectives.critic_training import train_critic
from tests.trainer.objectives.gaussians import P, Q

WASSERSTEIN = OBJECTIVES["wasserstein"]


def test_the_penalised_critic_comes_within_a_few_percent_of_the_exact_distance():
    """Exact in 1-D: the mean distance of quantiles.

    Where the distribution functions differ by `g` and mixtures have density `m`, the best slope is `1 + g / (20 m)`.
    With `m` near `g / W` that makes `W + W^2 / 20` of the loss, of which the penalty takes half of the excess.
    """
    x, y = P.quantiles(512).float()[:, None], Q.quantiles(512).float()[:, None]
    y = y[torch.randperm(512, generator=torch.Generator().manual_seed(2))]
    distance = stats.wasserstein_distance(x[:, 0], y[:, 0])
    # The penalty holds slopes at -1 as firmly as at 1: on the line, which a slope cannot turn around on, the sign
    # has to be right before it sets in.
    last = train_critic("wasserstein", x, y, steps=200, rate=3e-3, penalty=10.0, free_steps=30)[-20:]
    loss, penalty = (sum(float(getattr(step, name)) for step in last) / 20 for name in ("critic_loss", "penalty"))
    assert -loss == pytest.approx(distance + distance**2 / 20, rel=0.015)
    assert -loss - 10 * penalty == pytest.approx(distance + distance**2 / 40, rel=0.01)
    assert -loss == pytest.approx(distance, rel=0.05)


@pytest.mark.parametrize("shift", [1.0, -1.0])
def test_a_trained_critic_is_higher_on_data_than_on_samples_wherever_the_data_lie(shift):
    """Data 1 away from the samples, each paired with its own: the best slope is `1 + 1/20`, uphill to the data."""
    samples = Q.quantiles(64).float()[:, None]
    last = train_critic("wasserstein", samples + shift, samples, steps=200, rate=3e-3, penalty=10.0, free_steps=30)[-1]
    f_on_data, f_on_samples = -float(last.energy_real), -float(last.energy_fake)
    assert f_on_data - f_on_samples == pytest.approx(1.05, rel=0.01)


class TrueCritic(nn.Module):
    """`E = -f`, `f(x) = <x, u>`, `u` of length 1: the best critic of data that are the samples shifted along `u`."""

    def __init__(self, direction: Tensor):
        super().__init__()
        self.register_buffer("direction", direction / direction.norm())

    def forward(self, points: Tensor) -> Tensor:
        return -points @ self.direction


def test_a_base_step_with_the_true_critic_moves_samples_straight_towards_the_data():
    """At speed 1, the slope of `f`: a step of length `r` brings `W_1`, here the distance of the means, down by `r`."""
    towards, rate = torch.tensor([3.0, -4.0]), 0.1
    base = nn.Linear(2, 2)
    nn.init.eye_(base.weight).requires_grad_(False)
    nn.init.zeros_(base.bias)
    latent = torch.randn(256, 2, generator=torch.Generator().manual_seed(0))
    data = latent + towards
    workers = Workers(Accelerator(cpu=True))
    optimizer = WholeOptimizer(base, torch.optim.SGD([base.bias], lr=rate), workers)
    step = base_step(base, TrueCritic(towards), optimizer, WASSERSTEIN, workers, latent)
    torch.testing.assert_close(base.bias.detach(), rate * towards / 5)
    with torch.no_grad():
        left = float((data - base(latent)).mean(0).norm())
    assert left == pytest.approx(5 - rate, abs=1e-5)
    # `-mean f(y)` of the samples before the step.
    assert float(step.loss) == pytest.approx(-float(latent.mean(0) @ towards) / 5, abs=1e-6)
