"""The original GAN's classifier with the non-saturating loss of the base (Goodfellow et al. 2014).

The classifier's logit is `d = -E`. At the best critic `d = log p/q` and the loss is `2 log 2 - 2 JS(P, Q)`, `JS` the
Jensen-Shannon divergence whose largest value is `log 2`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softplus


def critic_loss(energy_real: Tensor, energy_fake: Tensor, log_partition: Tensor) -> Tensor:
    """`mean sp(-d(x)) + mean sp(d(y))`, `d = -E`, `sp` the softplus; `log_partition` is unused."""
    return softplus(energy_real).mean() + softplus(-energy_fake).mean()


def base_loss(energy_fake: Tensor, energy_real: Tensor | None = None) -> Tensor:
    """`mean sp(-d(y))`, `d = -E`: its gradient does not vanish where the critic is sure of `y`."""
    return softplus(energy_fake).mean()
