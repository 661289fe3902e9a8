"""The Donsker-Varadhan representation of the KL divergence (Donsker and Varadhan 1975).

`KL(P || Q) = sup_E -E_P[E] - log E_Q[exp(-E)]`: KALE with the log-partition at its best for the batch, so that no
`c` has to be learned. The log of a batch's mean is a biased estimate of the log of the mean, unlike KALE's terms.
"""

from __future__ import annotations

from torch import Tensor

from gebm.trainer.objectives.kale import log_mean_exp


def critic_loss(energy_real: Tensor, energy_fake: Tensor, log_partition: Tensor) -> Tensor:
    """`mean E(x) + lme(-E(y))`, `lme` the log-mean-exp, from `(n,)` and `(m,)` energies; `log_partition` is unused."""
    return energy_real.mean() + log_mean_exp(-energy_fake)
