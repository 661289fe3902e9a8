"""The losses of every objective written a second time, in numpy, from the papers' formulas."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

LOG_2 = np.log(2.0)
Array = np.ndarray


class Formulas(NamedTuple):
    """Losses of the critic `(on_real, on_fake, c)` and of the base `(on_fake, on_real)`, to floats."""

    critic_loss: Callable[[Array, Array, float], float]
    base_loss: Callable[[Array, Array | None], float]


def softplus(v: Array) -> Array:
    return np.log1p(np.exp(v))


def f_gan(critic: Callable[[Array], Array], conjugate: Callable[[Array], Array]) -> Formulas:
    """`v = -E`."""
    return Formulas(
        lambda real, fake, c: float(np.mean(conjugate(-fake)) - np.mean(critic(-real))),
        lambda fake, real: float(-np.mean(conjugate(-fake))),
    )


def mmd_squared(real: Array, fake: Array) -> float:
    """Pair by pair."""

    def mean_kernel(a: Array, b: Array, same: bool) -> float:
        values = [
            sum((1 + np.sum((x - y) ** 2) / (2 * alpha)) ** -alpha for alpha in (0.2, 0.5, 1.0, 2.0, 5.0))
            for i, x in enumerate(a)
            for j, y in enumerate(b)
            if not (same and i == j)
        ]
        return float(np.mean(values))

    return mean_kernel(real, real, True) + mean_kernel(fake, fake, True) - 2 * mean_kernel(real, fake, False)


def kale_base(fake: Array, real: Array | None) -> float:
    return float(-np.log(np.mean(np.exp(-fake))))


FORMULAS: dict[str, Formulas] = {
    "kale": Formulas(lambda real, fake, c: float(np.mean(real) + c + np.mean(np.exp(-fake - c)) - 1), kale_base),
    "donsker_varadhan": Formulas(
        lambda real, fake, c: float(np.mean(real) + np.log(np.mean(np.exp(-fake)))), kale_base
    ),
    "wasserstein": Formulas(
        lambda real, fake, c: float(np.mean(-fake) - np.mean(-real)), lambda fake, real: float(-np.mean(-fake))
    ),
    "non_saturating": Formulas(
        lambda real, fake, c: float(np.mean(softplus(real)) + np.mean(softplus(-fake))),
        lambda fake, real: float(np.mean(softplus(fake))),
    ),
    "kl": f_gan(lambda v: 1 + v, np.exp),
    "reverse_kl": f_gan(lambda v: -np.exp(-v), lambda v: v - 1),
    "pearson": f_gan(lambda v: 2 * (np.exp(v) - 1), lambda v: np.exp(2 * v) - 1),
    "hellinger": f_gan(lambda v: 1 - np.exp(-v / 2), lambda v: np.exp(v / 2) - 1),
    "jensen_shannon": f_gan(lambda v: (LOG_2 - softplus(-v)) / 2, lambda v: (softplus(v) - LOG_2) / 2),
    "mmd": Formulas(
        lambda real, fake, c: -mmd_squared(real, fake),
        lambda fake, real: mmd_squared(real, fake),  # type: ignore[arg-type]
    ),
}
