"""The likelihood of an energy when some of the generated images come from chains of the model.

`L(E) = -E_P[E] - log E_Q[exp(-E)]` (Donsker-Varadhan) has the gradient `-E_P[grad E] + E_model[grad E]`. Weights
`exp(-E(y))` over prior draws `y` estimate the second term badly once few draws carry most of the weight. With as
many draws of the model itself, `dModel/dQ = r = exp(-E - c)`, the pooled points come from `(Q + Model) / 2`, whose
importance weights `2 r / (1 + r)` are bounded (the balance heuristic of Veach and Guibas, 1995).

Chains at an inverse temperature above 1 are denser than the model where the energy is low, so that their points count
for more than they should: on purpose, since those are the places that a tempered sampler will visit, and that prior
draws never show.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from gebm.trainer.objectives.kale import log_mean_exp


def critic_loss_with_chains(
    energy_real: Tensor, energy_fake: Tensor, energy_chain: Tensor, log_partition: Tensor
) -> Tensor:
    """`mean E(x) + log mean_i exp(-E(y_i)) / (1 + r_i)` over prior draws and chains, `(n,)` energies each.

    `r_i = exp(-E(y_i) - c)` is held constant, so that the gradient is `mean grad E(x)` less the mean of `grad E(y_i)`
    under weights proportional to `r_i / (1 + r_i)`.
    """
    energy = torch.cat([energy_fake, energy_chain])
    log_ratio = (-energy - log_partition).detach()
    return energy_real.mean() + log_mean_exp(-energy - softplus(log_ratio))
