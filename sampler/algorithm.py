"""What every transition kernel is: a pair of pure functions on a batch of chains, as in BlackJAX.

    algorithm = mala(potential, step_size)
    state = algorithm.init(position, generator)
    state, info = algorithm.step(state, generator)

A `potential` `U` maps latents `(chains, p)` to `(chains,)`; the target is `nu(z) ∝ exp(-U(z))`, one chain a
row. States are named tuples of tensors whose first axis is the chain; `state.position` `(chains, p)` holds
the latents. All randomness comes from the `torch.Generator` that is passed, which must live on the latents'
device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

Potential = Callable[[Tensor], Tensor]
StepSize = float | Tensor
"""A number, or a tensor on the latents' device: of no axes, or `(chains,)`, one a chain."""


class TransitionInfo(NamedTuple):
    """What one transition did, a row for each chain.

    acceptance: `(chains,)`, the probability with which the proposal was to be accepted; 1 for kernels without
        acceptance step.
    accepted: `(chains,)` bool, whether the chain moved.
    nonfinite: `(chains,)` bool, whether the potential or its gradient was infinite or not a number at the
        proposal; such a proposal is never accepted.
    """

    acceptance: Tensor
    accepted: Tensor
    nonfinite: Tensor


class ChainState(Protocol):
    """The state of a batch of chains: a named tuple with at least the latents."""

    @property
    def position(self) -> Tensor: ...


class Algorithm(NamedTuple):
    """A transition kernel.

    init: `(position, generator) -> state`.
    step: `(state, generator) -> (state, TransitionInfo)`; the given state is left as it was.
    """

    init: Callable[[Tensor, torch.Generator], Any]
    step: Callable[[Any, torch.Generator], tuple[Any, TransitionInfo]]


def value_and_gradient(potential: Potential, position: Tensor) -> tuple[Tensor, Tensor]:
    """`U(z)` `(chains,)` and `∇U(z)` `(chains, p)`, both detached, from one forward and one backward pass.

    The gradient is taken with respect to `position` only; rows do not interact, so the gradient of the sum is
    the row-wise gradient.
    """
    leaf = position.detach().requires_grad_(True)
    with torch.enable_grad():
        value = potential(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), gradient


def as_step_size(step_size: StepSize) -> Tensor:
    """The step size as kernels compute with it: no axes, or `(chains,)`.

    A tensor is taken as it is, unread: a step size that changes must not make the host wait for the device at every
    step, and whoever computes it keeps it positive. Raises `ValueError` for a number that is not positive and finite.
    """
    if isinstance(step_size, Tensor):
        return step_size
    check_positive(step_size=step_size)
    return torch.tensor(step_size, dtype=torch.float64)


def column(value: Tensor) -> Tensor:
    """`value`, `()` or `(chains,)`, so that it multiplies the rows of latents `(chains, p)`."""
    return value.unsqueeze(1) if value.dim() else value


def check_positive(**values: float) -> None:
    """Raise `ValueError` naming the first of `values` that is not a positive finite number."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} must be positive and finite, not {value}")
