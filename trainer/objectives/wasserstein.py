"""The Wasserstein-1 distance with a gradient-penalised critic (Gulrajani et al. 2017).

`W_1(P, Q) = sup_f E_P f - E_Q f` over 1-Lipschitz `f`, high on data: `f = -E`. The Lipschitz condition is the
one-centred penalty `10 mean (||grad f|| - 1)^2` at mixtures of real and generated points, which the energy step
adds: it lets slopes exceed 1 a little, so that the estimate is too large by about `W_1 / 20` of itself.
"""

from __future__ import annotations

from torch import Tensor


def critic_loss(energy_real: Tensor, energy_fake: Tensor, log_partition: Tensor) -> Tensor:
    """`mean f(y) - mean f(x)`, `f = -E`, from `(n,)` and `(m,)` energies; `log_partition` is unused."""
    return energy_real.mean() - energy_fake.mean()


def base_loss(energy_fake: Tensor, energy_real: Tensor | None = None) -> Tensor:
    """`-mean f(y)`, `f = -E`."""
    return energy_fake.mean()
