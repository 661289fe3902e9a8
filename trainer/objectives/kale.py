"""KALE, the KL Approximate Lower-bound Estimator (Arbel, Zhou, Gretton 2021, section 3).

`F(E, c) = -E_P[E + c] - E_Q[exp(-(E + c))] + 1`, at most `KL(P || Q)`, tight at the right energy `E` and
log-partition `c`. All functions take the energies of the *global* batch and are pure.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def log_mean_exp(values: Tensor) -> Tensor:
    """`log mean exp(values)` of `(n,)` values, without overflow."""
    return torch.logsumexp(values, 0) - math.log(len(values))


def critic_loss(energy_real: Tensor, energy_fake: Tensor, log_partition: Tensor) -> Tensor:
    """`-F(E, c)`: `mean E(x) + c + mean exp(-E(y) - c) - 1`, from `(n,)` and `(m,)` energies."""
    return energy_real.mean() + log_partition + torch.exp(-energy_fake - log_partition).mean() - 1.0


def base_loss(energy_fake: Tensor, energy_real: Tensor | None = None) -> Tensor:
    """`-lme(-E(y))`: its gradient is `sum_i w_i grad E(B(z_i))`, `w = softmax(-E)`, the paper's grad K(theta)."""
    return -log_mean_exp(-energy_fake)


def next_log_partition(log_partition: Tensor, energy_fake: Tensor, rate: float) -> Tensor:
    """One damped Newton step of `F` in `c`: `c + rate * (1 - 1/M)`, `M = mean exp(-E(y) - c)`.

    `1 - 1/M = 1 - exp(c - lme)`: the plain gradient `M - 1` explodes when `c` is too low and stalls when it is too
    high. Its fixed point is `c = lme(-E(y))`. More than 1 away from it, where a Newton step is of no use and the
    loss would be all `exp(lme - c)`, a spike that poisons Adam's second moments, `c` restarts from `lme` itself.
    """
    target = log_mean_exp(-energy_fake.double())
    excess = log_partition - target
    newton = log_partition + rate * (1.0 - torch.exp(excess.clamp(max=1.0)))
    return torch.where(excess.abs() > 1.0, target, newton).to(log_partition.dtype)
