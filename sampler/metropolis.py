"""The Metropolis–Hastings acceptance step, for a batch of chains."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from gebm.sampler.algorithm import TransitionInfo
from gebm.sampler.random_numbers import uniform

State = TypeVar("State", bound=tuple)


def accept(log_ratio: Tensor, finite: Tensor, generator: torch.Generator) -> TransitionInfo:
    """Accept with probability `min(1, exp(log_ratio))`, never where `finite` is false.

    log_ratio, finite: `(chains,)`. Exactly one uniform number is drawn for each chain whatever the outcome,
    so that chains of one batch stay aligned with the random stream.
    """
    threshold = uniform(log_ratio, generator).log()
    valid = finite & ~log_ratio.isnan()
    log_ratio = log_ratio.masked_fill(~valid, -torch.inf)
    return TransitionInfo(
        acceptance=log_ratio.clamp(max=0.0).exp(),
        accepted=threshold < log_ratio,
        nonfinite=~valid,
    )


def choose(accepted: Tensor, proposed: State, current: State) -> State:
    """Row by row the proposed state where `accepted` `(chains,)` is true, else the current one.

    The whole state is chosen, cached potential and gradient included: a rejected chain keeps those of the
    point that it stays at.
    """
    rows = (
        torch.where(accepted.view(-1, *[1] * (new.dim() - 1)), new, old)
        for new, old in zip(proposed, current, strict=True)
    )
    return type(current)(*rows)


def all_finite(value: Tensor, *vectors: Tensor) -> Tensor:
    """`(chains,)` bool: `value` `(chains,)` and every row of `vectors` `(chains, p)` are finite."""
    finite = value.isfinite()
    for vector in vectors:
        finite = finite & vector.isfinite().all(1)
    return finite


def always(finite: Tensor, dtype: torch.dtype) -> TransitionInfo:
    """The record of a kernel without acceptance step: everything finite is taken."""
    return TransitionInfo(acceptance=finite.to(dtype), accepted=finite, nonfinite=~finite)
