"""f-divergences by their variational form (Nowozin, Cseke, Tomioka 2016).

`D_phi(P || Q) = E_Q[phi(p/q)] = sup_f E_P[f] - E_Q[phi*(f)]`, `phi*` the convex conjugate. The network's output is
`v = -E`, and `f = phi'(e^v)`, so that every divergence is tight at `v = log p/q`.

| divergence        | `phi(u)`                                 | `f`                   | `phi*(f)`             |
|-------------------|------------------------------------------|-----------------------|-----------------------|
| KL                | `u log u`                                | `1 + v`               | `e^v`                 |
| reverse KL        | `-log u`                                 | `-e^-v`               | `v - 1`               |
| Pearson           | `(u - 1)^2`                              | `2 (e^v - 1)`         | `e^2v - 1`            |
| squared Hellinger | `(sqrt u - 1)^2`                         | `1 - e^(-v/2)`        | `e^(v/2) - 1`         |
| Jensen-Shannon    | `1/2 [u log u - (u+1) log((u+1)/2)]`     | `1/2 (log 2 - sp(-v))`| `1/2 (sp(v) - log 2)` |

Exponentials would overflow in float32 from `v = 44` (Pearson) or 88 on. Cut off, they would lose their gradient just
where the critic is most wrong. So where there is an exponential, `v` is passed through `log_ratio`, the identity up
to `LINEAR_UP_TO` and growing like a logarithm beyond: the bound holds for any `f`, hence stays a bound; it stays tight,
the map being one-to-one; and the exponentials grow polynomially at worst.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import softplus

LINEAR_UP_TO = 20.0  # density ratios of e^20 and more are beyond any batch


class FDivergence(NamedTuple):
    """`f` and `phi*(f)` as functions of the network's output `v` `(n,)`, elementwise."""

    critic: Callable[[Tensor], Tensor]
    conjugate: Callable[[Tensor], Tensor]

    def critic_loss(self, energy_real: Tensor, energy_fake: Tensor, log_partition: Tensor) -> Tensor:
        """`-mean f(x) + mean phi*(f(y))` from `(n,)` and `(m,)` energies; `log_partition` is unused."""
        return self.conjugate(-energy_fake).mean() - self.critic(-energy_real).mean()

    def base_loss(self, energy_fake: Tensor, energy_real: Tensor | None = None) -> Tensor:
        """`-mean phi*(f(y))`."""
        return -self.conjugate(-energy_fake).mean()


def log_ratio(v: Tensor) -> Tensor:
    """The logarithm of the density ratio that output `v` stands for: `v` itself within +-20, then
    `+-(20 + log(1 + |v| - 20))`; smooth in the first derivative and increasing everywhere."""
    beyond = torch.log1p(torch.relu(v - LINEAR_UP_TO)) - torch.log1p(torch.relu(-v - LINEAR_UP_TO))
    return v.clamp(-LINEAR_UP_TO, LINEAR_UP_TO) + beyond


# exp(v) - 1 and not expm1(v): torch takes the latter's gradient from its value plus 1, in float32 a plain 0 below -17.
KL = FDivergence(
    critic=lambda v: 1.0 + log_ratio(v),
    conjugate=lambda v: torch.exp(log_ratio(v)),
)
REVERSE_KL = FDivergence(
    critic=lambda v: -torch.exp(-log_ratio(v)),
    conjugate=lambda v: log_ratio(v) - 1.0,
)
PEARSON = FDivergence(
    critic=lambda v: 2.0 * (torch.exp(log_ratio(v)) - 1.0),
    conjugate=lambda v: torch.exp(2.0 * log_ratio(v)) - 1.0,
)
HELLINGER = FDivergence(
    critic=lambda v: 1.0 - torch.exp(-0.5 * log_ratio(v)),
    conjugate=lambda v: torch.exp(0.5 * log_ratio(v)) - 1.0,
)
JENSEN_SHANNON = FDivergence(
    critic=lambda v: 0.5 * (math.log(2.0) - softplus(-v)),
    conjugate=lambda v: 0.5 * (softplus(v) - math.log(2.0)),
)
