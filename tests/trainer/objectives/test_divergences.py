"""On 1-D Gaussians each objective, at its best critic, is the divergence that its name says."""

import math
from functools import cache

import pytest
import torch
from scipy import integrate, stats

from gebm.trainer.objectives import mmd
from gebm.trainer.objectives.table import OBJECTIVES
from tests.trainer.objectives.gaussians import P, Q

COUNT = 20_000


def integral_of_phi(phi) -> float:
    """`E_Q[phi(p/q)]` by quadrature, `phi` a function of `u`."""
    p, q = stats.norm(P.mean, P.deviation), stats.norm(Q.mean, Q.deviation)
    return integrate.quad(lambda x: q.pdf(x) * phi(p.pdf(x) / q.pdf(x)), -10.0, 10.0, limit=200)[0]


def jensen_shannon() -> float:
    return integral_of_phi(lambda u: 0.5 * (u * math.log(u) - (u + 1) * math.log((u + 1) / 2)))


def kl() -> float:
    """Closed form of `KL(N(m, s^2) || N(0, 1))`."""
    return 0.5 * (P.mean**2 + P.deviation**2 - 1) - math.log(P.deviation)


# What `-critic_loss`, with the constant of CONSTANTS added, is at its largest.
TRUTHS = {
    "kale": kl,
    "donsker_varadhan": kl,
    "kl": kl,
    "reverse_kl": lambda: 0.5 * ((P.mean**2 + 1) / P.deviation**2 - 1) + math.log(P.deviation),
    "pearson": lambda: integral_of_phi(lambda u: (u - 1) ** 2),
    "hellinger": lambda: integral_of_phi(lambda u: (math.sqrt(u) - 1) ** 2),
    "jensen_shannon": jensen_shannon,
    "non_saturating": lambda: 2 * jensen_shannon(),
}
CONSTANTS = {"non_saturating": 2 * math.log(2)}


@cache
def best_quadratic_energy(name: str) -> tuple[float, torch.Tensor, torch.Tensor]:
    """`-critic_loss` at its best over `E(x) = a x^2 + b x + d` and `c`, with `(a, b, d)` and `c`."""
    x, y = P.quantiles(COUNT), Q.quantiles(COUNT)
    coefficients = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    c = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [coefficients, c], max_iter=200, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def energy(points: torch.Tensor) -> torch.Tensor:
        return coefficients @ torch.stack([points.square(), points, torch.ones_like(points)])

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        value = OBJECTIVES[name].critic_loss(energy(x), energy(y), c)
        value.backward()
        return value

    optimizer.step(loss)
    return -float(loss().detach()), coefficients.detach(), c.detach()


@pytest.mark.parametrize("name", TRUTHS)
def test_a_divergence_comes_within_one_percent_of_its_analytic_value(name):
    value, _, _ = best_quadratic_energy(name)
    assert value + CONSTANTS.get(name, 0.0) == pytest.approx(TRUTHS[name](), rel=0.01)


def test_the_truths_of_the_asymmetric_divergences_are_the_closed_forms():
    """Quadrature of MATH's `phi` against formulas, so that neither is taken on trust."""
    assert integral_of_phi(lambda u: u * math.log(u)) == pytest.approx(kl(), rel=1e-6)
    assert integral_of_phi(lambda u: -math.log(u)) == pytest.approx(TRUTHS["reverse_kl"](), rel=1e-6)
    # exp(m^2 / (2 - s^2)) / (s sqrt(2 - s^2)) - 1, and 2 - 2 sqrt(2 s / (1 + s^2)) exp(-m^2 / (4 (1 + s^2))).
    m, s = P
    chi_squared = math.exp(m**2 / (2 - s**2)) / (s * math.sqrt(2 - s**2)) - 1
    assert TRUTHS["pearson"]() == pytest.approx(chi_squared, rel=1e-6)
    hellinger = 2 - 2 * math.sqrt(2 * s / (1 + s**2)) * math.exp(-(m**2) / (4 * (1 + s**2)))
    assert TRUTHS["hellinger"]() == pytest.approx(hellinger, rel=1e-6)


@pytest.mark.parametrize("name", TRUTHS)
def test_the_best_energy_is_minus_the_log_density_ratio(name):
    """`log p/q = -x^2 / (2 s^2) + x^2 / 2 + m x / s^2 - m^2 / (2 s^2) - log s`; up to a constant where it is free."""
    _, (a, b, d), c = best_quadratic_energy(name)
    m, s = P
    assert (float(a), float(b)) == pytest.approx((0.5 / s**2 - 0.5, -m / s**2), rel=0.02)
    free = d + c if name == "kale" else d
    if name != "donsker_varadhan":
        assert float(free) == pytest.approx(m**2 / (2 * s**2) + math.log(s), rel=0.02)


def test_kale_and_donsker_varadhan_find_the_same_energy_and_value():
    (value, kale_energy, _), (other, dv_energy, _) = map(best_quadratic_energy, ("kale", "donsker_varadhan"))
    assert value == pytest.approx(other, abs=1e-8)
    torch.testing.assert_close(kale_energy[:2], dv_energy[:2], atol=1e-4, rtol=0)


def test_mmd_of_two_gaussians_is_its_integral():
    """`(1 + D^2 / (2 a))^-a = E exp(-t D^2 / 2)`, `t ~ Gamma(a, rate a)`; of a Gaussian `D` that is a closed form."""

    def mean_kernel(mean: float, variance: float) -> float:
        def integrand(t: float, a: float) -> float:
            gaussian = math.exp(-t * mean**2 / (2 * (1 + t * variance))) / math.sqrt(1 + t * variance)
            return stats.gamma(a, scale=1 / a).pdf(t) * gaussian

        # A power of t at 0 (a < 1): quadrature by pieces.
        return sum(
            integrate.quad(integrand, low, high, args=(a,), limit=200)[0]
            for a in mmd.EXPONENTS
            for low, high in ((0, 1e-6), (1e-6, 1e-2), (1e-2, 1), (1, 10), (10, 200))
        )

    within_p, within_q = mean_kernel(0.0, 2 * P.deviation**2), mean_kernel(0.0, 2 * Q.deviation**2)
    truth = within_p + within_q - 2 * mean_kernel(P.mean - Q.mean, P.deviation**2 + Q.deviation**2)
    count = 600
    estimate = float(mmd.mmd_squared(P.quantiles(count)[:, None], Q.quantiles(count)[:, None]))
    # Quantiles are spread more evenly than draws: their mean over all pairs, those of a point with itself too, is
    # the integral; what leaving those out does to it is taken off.
    lattice = (within_p + within_q - 2 * len(mmd.EXPONENTS)) / (count - 1)
    assert truth > 0.2
    assert estimate - lattice == pytest.approx(truth, rel=0.01)
