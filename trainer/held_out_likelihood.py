"""Held-out negative log-likelihood of a model whose base has a density, and of that base alone.

`log p(x) = log q(x) - E(x) - c`, so the two differ by `E(x) + c` at every point: the comparison is paired, and
rests on two estimates with errors of their own, the mean energy of the points and the log-partition `c`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from scipy.stats import norm, t
from torch import Tensor

from gebm.cluster.errors import InputError
from gebm.trainer.model import GEBM
from gebm.trainer.objectives.kale import log_mean_exp

BATCH = 5_000
FEWEST_EFFECTIVE_DRAWS = 100
"""Below, a few draws carry the log-partition, and its standard error is itself no more than a guess."""


class LogPartition(NamedTuple):
    """`c = log E[exp(-E(B(z)))]` from prior draws.

    standard_error: by the delta method, the relative error of the mean weight.
    effective_draws: `(sum w)^2 / sum w^2`, `w = exp(-E)`.
    """

    value: float
    standard_error: float
    draws: int
    effective_draws: float


class Likelihood(NamedTuple):
    """Means over `points` held-out points in nats a point, standard errors over the points.

    model: includes `c`, whose error is apart from `model_error`. difference: model minus base, below 0 where the
    model is better. difference_upper: its upper confidence bound, for the points and for `c`, at `level` together.
    better: that bound is below 0, and the log-partition rests on at least `FEWEST_EFFECTIVE_DRAWS`.
    """

    base: float
    base_error: float
    model: float
    model_error: float
    difference: float
    difference_error: float
    difference_upper: float
    better: bool
    level: float
    points: int
    log_partition: LogPartition


def held_out_likelihood(
    model: GEBM, points: Tensor, labels: Tensor | None = None, *, draws: int, seed: int, level: float = 0.05
) -> Likelihood:
    """Negative log-likelihood of base and model on `points` `(n, d)`, given `labels` `(n,)` if conditional.

    The log-partition is estimated anew from `draws` prior draws of `seed`. The model is called better at `level`:
    `mean(E + c) + t s/sqrt(n) + z SE(c) < 0` with one-sided quantiles at `level / 2` each, so that the chance of
    a wrong "better" is at most `level` whatever the dependence of the two errors. Raises `InputError` when the
    base has no density, or there are fewer than two points.
    """
    if not model.has_density:
        raise InputError('the base has no density, so there is no likelihood; model.base = "realnvp" has one')
    if len(points) < 2:
        raise InputError(f"{len(points)} held-out points: a likelihood with its standard error needs at least 2")
    with torch.no_grad():
        on_base = -_in_batches(model.base.log_density, points, labels)  # type: ignore[arg-type]
        energies = _in_batches(model.energy, points, labels)
    c = estimate_log_partition(model, draws, seed)
    difference = energies + c.value
    n = len(points)
    errors = [float(values.std()) / math.sqrt(n) for values in (on_base, on_base + difference, difference)]
    bound = float(t.ppf(1 - level / 2, n - 1)) * errors[2] + float(norm.ppf(1 - level / 2)) * c.standard_error
    upper = float(difference.mean()) + bound
    return Likelihood(
        base=float(on_base.mean()),
        base_error=errors[0],
        model=float((on_base + difference).mean()),
        model_error=errors[1],
        difference=float(difference.mean()),
        difference_error=errors[2],
        difference_upper=upper,
        better=upper < 0 and c.effective_draws >= FEWEST_EFFECTIVE_DRAWS,
        level=level,
        points=n,
        log_partition=c,
    )


@torch.no_grad()
def estimate_log_partition(model: GEBM, draws: int, seed: int) -> LogPartition:
    """`c` from `draws` prior draws of `seed`, in float64."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    energies = []
    for first in range(0, draws, BATCH):
        latent = model.sample_prior(min(BATCH, draws - first), generator).to(device)
        labels = model.sample_labels(len(latent), generator)
        labels = None if labels is None else labels.to(device)
        energies.append(model.energy(model.generate(latent, labels), labels).double())
    minus_energy = -torch.cat(energies)
    value = log_mean_exp(minus_energy)
    weights = torch.exp(minus_energy - value)  # mean 1
    return LogPartition(
        value=float(value),
        standard_error=float(weights.std()) / math.sqrt(draws),
        draws=draws,
        effective_draws=float(weights.sum() ** 2 / weights.square().sum()),
    )


def _in_batches(function: Callable[..., Tensor], points: Tensor, labels: Tensor | None) -> Tensor:
    """Values `(n,)`, float64, of a function of points and, when there are any, labels. Raises `InputError`."""
    columns = (points,) if labels is None else (points, labels)
    batches = zip(*(column.split(BATCH) for column in columns), strict=True)
    values = torch.cat([function(*batch).double() for batch in batches])
    if not values.isfinite().all():
        beyond = int((~values.isfinite()).sum())
        raise InputError(f"{beyond} of {len(values)} held-out points have no finite log-density under this model")
    return values
