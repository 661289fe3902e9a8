"""The gradient-penalised critic finds the Wasserstein-1 distance, to the slack that its penalty leaves it."""

import pytest
import torch
from scipy import stats

from tests.trainer.objectives.critic_training import train_critic
from tests.trainer.objectives.gaussians import P, Q


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
    # The distance is symmetric, the energy is not: low on the data.
    assert float(last[-1].energy_real) < float(last[-1].energy_fake)
