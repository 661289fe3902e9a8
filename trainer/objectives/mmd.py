"""The maximum mean discrepancy on learned features (Li et al. 2017; Binkowski et al. 2018).

The critic learns features that tell real from generated images as well as a fixed kernel can, the base lowers the
same `MMD^2_u`. The kernel is Binkowski et al.'s sum of rational quadratics of unit length, the features' scale being
learned: heavy tails of several orders, so that points far apart still attract each other.
The energy is minus the witness `f(v) = mean_i k(x_i, v) - mean_j k(y_j, v)`, which is high on data.
"""

from __future__ import annotations

import torch
from torch import Tensor

EXPONENTS = (0.2, 0.5, 1.0, 2.0, 5.0)


def kernel(a: Tensor, b: Tensor) -> Tensor:
    """`sum_alpha (1 + ||a_i - b_j||^2 / (2 alpha))^-alpha`, `(n, m)`, of features `(n, d)` and `(m, d)`.

    Between 0 and `len(EXPONENTS)`.
    """
    # Squared distances as matrix products need n m entries, not n m d; centred, they do not cancel. The centre is one
    # side's, so that a row is a function of its own point.
    centre = b.mean(0).detach()
    a, b = a - centre, b - centre
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2.0 * a @ b.t()).relu()
    return torch.stack([(1.0 + squared / (2.0 * alpha)).pow(-alpha) for alpha in EXPONENTS]).sum(0)


def mmd_squared(real: Tensor, fake: Tensor) -> Tensor:
    """`MMD^2_u`, unbiased, of features `(n, d)` and `(m, d)`, `n, m >= 2`.

    The mean of `k` over pairs of different real points, plus that over pairs of different generated ones, minus twice
    the mean over pairs of one of each.
    """
    within = _mean_off_diagonal(kernel(real, real)) + _mean_off_diagonal(kernel(fake, fake))
    return within - 2.0 * kernel(real, fake).mean()


def _mean_off_diagonal(square: Tensor) -> Tensor:
    count = len(square)
    return (square.sum() - square.diagonal().sum()) / (count * (count - 1))


def witness(points: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """`mean_i k(x_i, v) - mean_j k(y_j, v)`, `(p,)`, at `points` `(p, d)`, of features `(n, d)` and `(m, d)`."""
    return kernel(points, real).mean(1) - kernel(points, fake).mean(1)


def energy(points: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    """Minus the witness: low where real points are denser than generated ones."""
    return -witness(points, real, fake)


def energies_of_batch(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """The energies `(n,)` and `(m,)` of the very points that the witness compares with, `(n, d)` and `(m, d)`.

    Each leaves its own kernel out, which would make real points look nearer to the real ones, and generated ones
    to the generated, by `k(v, v) / n`, and less like new points of their laws. So the gap of the means is `MMD^2_u`.
    """
    to_real, to_fake = _mean_to_others(kernel(real, real)), _mean_to_others(kernel(fake, fake))
    between = kernel(real, fake)
    return between.mean(1) - to_real, to_fake - between.mean(0)


def _mean_to_others(square: Tensor) -> Tensor:
    return (square.sum(1) - square.diagonal()) / (len(square) - 1)


def critic_loss(on_real: Tensor, on_fake: Tensor, log_partition: Tensor) -> Tensor:
    """`-MMD^2_u` of features `(n, d)` and `(m, d)`; `log_partition` is unused."""
    return -mmd_squared(on_real, on_fake)


def base_loss(on_fake: Tensor, on_real: Tensor | None) -> Tensor:
    """`+MMD^2_u` of features `(m, d)` and `(n, d)`."""
    assert on_real is not None, "the table says that this loss needs real images"
    return mmd_squared(on_real, on_fake)
