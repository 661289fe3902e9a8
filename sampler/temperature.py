"""Targets at several inverse temperatures: `U_beta(z) = V(z) + beta E(z)`, `V = -log eta`.

From one inverse temperature to another nothing of the energy has to be computed again: where `U_beta` and `V` are
known, so is `U_beta' = U_beta + (beta'/beta - 1) (U_beta - V)`, and likewise its gradient.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from gebm.sampler.algorithm import Potential, column, value_and_gradient


def tempered(energy: Potential, prior: Potential, inverse_temperature: Tensor) -> Potential:
    """`V(z) + beta E(z)`, `(chains, p) -> (chains,)` in float64.

    energy: `E`. prior: `V`. inverse_temperature: `beta > 0`, `()` or `(chains,)`, one a chain. Float64 for the sum, so
    that `U_beta - V` gives back the energy to the last digit that it had.
    """

    def potential(latent: Tensor) -> Tensor:
        return inverse_temperature * energy(latent).double() + prior(latent).double()

    return potential


def at_temperature(state: Any, prior: Potential, ratio: Tensor) -> Any:
    """`state` of a kernel on `U_beta` as that of the same kernel on `U_beta'`, `ratio = beta' / beta`.

    ratio: `()` or `(chains,)`. Rows whose ratio is 1 stay what they are to the bit. A state that remembers no potential
    (KLA's) stays as it is.
    """
    if "potential" not in state._fields:
        return state
    value, gradient = value_and_gradient(prior, state.position)
    more = ratio - 1
    changed = {"potential": state.potential + more * (state.potential - value)}
    if "gradient" in state._fields:
        rows = column(more).to(gradient.dtype)
        changed["gradient"] = state.gradient + rows * (state.gradient - gradient)
    return state._replace(**changed)
