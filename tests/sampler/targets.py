"""Laws that can be sampled exactly and whose coordinates have known distribution functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from gebm.sampler.algorithm import Potential


class Target(NamedTuple):
    """potential: `(n, p) -> (n,)`. draw: `(n, generator) -> (n, p)`, exact.

    coordinates: positions to `(n, k)` numbers that are independent between rows, the j-th with distribution
    function `cdfs[j]`, mean `means[j]` and variance `variances[j]`.
    """

    potential: Potential
    draw: Callable[[int, torch.Generator], Tensor]
    coordinates: Callable[[Tensor], Tensor]
    cdfs: tuple[Callable[[np.ndarray], np.ndarray], ...]
    means: tuple[float, ...]
    variances: tuple[float, ...]


def normal(count: int, dimension: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, dimension, generator=generator, dtype=torch.float64)


def gaussian(scale: float, dimension: int = 1) -> Target:
    """`N(0, scale² I)`."""
    return Target(
        potential=lambda z: z.square().sum(1) / (2 * scale**2),
        draw=lambda n, g: scale * normal(n, dimension, g),
        coordinates=lambda z: z / scale,
        cdfs=(stats.norm.cdf,) * dimension,
        means=(0.0,) * dimension,
        variances=(1.0,) * dimension,
    )


def badly_scaled(scales: tuple[float, ...] = (0.1, 1.0, 4.0)) -> Target:
    """`N(0, diag(scales)²)`."""
    s = torch.tensor(scales, dtype=torch.float64)
    return Target(
        potential=lambda z: (z / s).square().sum(1) / 2,
        draw=lambda n, g: s * normal(n, len(scales), g),
        coordinates=lambda z: z / s,
        cdfs=(stats.norm.cdf,) * len(scales),
        means=(0.0,) * len(scales),
        variances=(1.0,) * len(scales),
    )


def linear_generator(inverse_temperature: float = 0.3) -> Target:
    """Prior `N(0, I_3)`, generator `x = A z + b` in `R^5`, energy `½ (x - m)ᵀ P (x - m)`: a Gaussian posterior.

    Precision `I + beta Aᵀ P A`, mean its inverse times `beta Aᵀ P (m - b)`.
    """
    g = torch.Generator().manual_seed(7)
    a, b, m, root = normal(5, 3, g) * 0.6, normal(1, 5, g), normal(1, 5, g), normal(5, 5, g) * 0.5
    p = root @ root.T + 0.3 * torch.eye(5, dtype=torch.float64)
    precision = torch.eye(3, dtype=torch.float64) + inverse_temperature * a.T @ p @ a
    mean = torch.linalg.solve(precision, inverse_temperature * a.T @ p @ (m - b).squeeze(0))
    factor = torch.linalg.cholesky(precision)  # precision = L Lᵀ, so Lᵀ (z - mean) is standard normal

    def potential(z: Tensor) -> Tensor:
        residual = z @ a.T + b - m
        energy = ((residual @ p) * residual).sum(1) / 2
        return z.square().sum(1) / 2 + inverse_temperature * energy

    return Target(
        potential=potential,
        draw=lambda n, gen: mean + torch.linalg.solve_triangular(factor.T, normal(n, 3, gen).T, upper=True).T,
        coordinates=lambda z: (z - mean) @ factor,
        cdfs=(stats.norm.cdf,) * 3,
        means=(0.0,) * 3,
        variances=(1.0,) * 3,
    )


def two_modes(offset: float = 1.5, scale: float = 0.7) -> Target:
    """`½ N(-offset e_1, scale² I_2) + ½ N(+offset e_1, scale² I_2)`."""

    def potential(z: Tensor) -> Tensor:
        left = (z[:, 0] + offset).square() + z[:, 1].square()
        right = (z[:, 0] - offset).square() + z[:, 1].square()
        return -torch.logaddexp(-left / (2 * scale**2), -right / (2 * scale**2))

    def draw(count: int, generator: torch.Generator) -> Tensor:
        side = torch.randint(2, (count,), generator=generator) * 2 - 1
        z = scale * normal(count, 2, generator)
        z[:, 0] += offset * side
        return z

    def first_cdf(value: np.ndarray) -> np.ndarray:
        return (stats.norm.cdf(value, -offset, scale) + stats.norm.cdf(value, offset, scale)) / 2

    return Target(
        potential=potential,
        draw=draw,
        coordinates=lambda z: torch.stack([z[:, 0], z[:, 1] / scale], dim=1),
        cdfs=(first_cdf, stats.norm.cdf),
        means=(0.0, 0.0),
        variances=(offset**2 + scale**2, 1.0),
    )


def banana(bend: float = 0.8, scale: float = 0.6) -> Target:
    """`z_1 ~ N(0, 1)`, `z_2 | z_1 ~ N(bend (z_1² - 1), scale²)`."""

    def second(z: Tensor) -> Tensor:
        return (z[:, 1] - bend * (z[:, 0].square() - 1)) / scale

    def draw(count: int, generator: torch.Generator) -> Tensor:
        z = normal(count, 2, generator)
        return torch.stack([z[:, 0], scale * z[:, 1] + bend * (z[:, 0].square() - 1)], dim=1)

    return Target(
        potential=lambda z: (z[:, 0].square() + second(z).square()) / 2,
        draw=draw,
        coordinates=lambda z: torch.stack([z[:, 0], second(z)], dim=1),
        cdfs=(stats.norm.cdf, stats.norm.cdf),
        means=(0.0, 0.0),
        variances=(1.0, 1.0),
    )


class TemperedTarget(NamedTuple):
    """`U_beta = V + beta E`: energy and prior `(n, p) -> (n,)`; `at(beta)` is the law of `exp(-U_beta)`, exact."""

    energy: Potential
    prior: Potential
    at: Callable[[float], Target]


def tempered_gaussian(dimension: int = 3, stiffness: float = 4.0) -> TemperedTarget:
    """Prior `N(0, I)`, energy `½ stiffness ‖z - 1‖²`: Gaussian at every inverse temperature."""

    def at(beta: float) -> Target:
        precision = 1 + beta * stiffness
        mean, scale = beta * stiffness / precision, precision**-0.5
        return gaussian(scale, dimension)._replace(
            potential=lambda z: z.square().sum(1) / 2 + beta * stiffness * (z - 1).square().sum(1) / 2,
            draw=lambda n, g: mean + scale * normal(n, dimension, g),
            coordinates=lambda z: (z - mean) / scale,
        )

    return TemperedTarget(
        energy=lambda z: stiffness * (z - 1).square().sum(1) / 2, prior=lambda z: z.square().sum(1) / 2, at=at
    )


class FarModes(NamedTuple):
    """Prior `N(0, I_2)` and an energy with which `beta = 1` is two narrow modes at `±offset e_1`, far apart.

    left: mass of the mode at `-offset`; the other has the rest.
    """

    energy: Potential
    prior: Potential
    left: float
    offset: float
    scale: float


def far_modes(left: float = 0.3, offset: float = 2.0, scale: float = 0.25) -> FarModes:
    """`left N(-offset e_1, scale² I) + (1 - left) N(+offset e_1, scale² I)` at `beta = 1`."""

    def prior(z: Tensor) -> Tensor:
        return z.square().sum(1) / 2

    def energy(z: Tensor) -> Tensor:
        distances = [(z[:, 0] + side * offset).square() + z[:, 1].square() for side in (1, -1)]
        logs = [math.log(mass) - d / (2 * scale**2) for mass, d in zip((left, 1 - left), distances, strict=True)]
        return -torch.logaddexp(*logs) - prior(z)

    return FarModes(energy, prior, left, offset, scale)


def p_value(target: Target, position: Tensor) -> float:
    """Of "these rows are independent draws of the target": exact level up to Bonferroni.

    For every coordinate a Kolmogorov–Smirnov test and z-tests of mean and variance; the smallest p-value,
    times their number.
    """
    values = target.coordinates(position).numpy()
    count = len(values)
    smallest, tests = 1.0, 0
    for column, cdf, mean, variance in zip(values.T, target.cdfs, target.means, target.variances, strict=True):
        squares = (column - mean) ** 2
        for z in (
            (column.mean() - mean) / math.sqrt(variance / count),
            (squares.mean() - variance) / (squares.std(ddof=1) / math.sqrt(count)),
        ):
            smallest = min(smallest, 2 * stats.norm.sf(abs(z)))
            tests += 1
        smallest = min(smallest, stats.kstest(column, cdf, method="asymp").pvalue)
        tests += 1
    return min(1.0, smallest * tests)
