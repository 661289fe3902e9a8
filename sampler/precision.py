"""Gradients by networks in bfloat16, and kernels that stay exact with them.

At `sampler.precision = "bfloat16"` chains move by networks whose weights were converted once; latents, prior and all
arithmetic of the kernels stay in float32.

A bfloat16 energy is wrong by some 0.4% of what it is summed from, at `beta = 100` several nats: no acceptance step may
look at it. Exact kernels are given a potential whose *value* is the float32 networks' and whose *gradient* is the
bfloat16 networks', and are exact all the same, because nothing in their proofs asks that the one be the derivative of
the other:

    MALA    for any drift `g`, `q(z'|z) = N(z - h g(z), 2h I)` is a proposal density, and the acceptance step corrects
            for it when it is computed with the same `g(z)` and `g(z')` that proposals are made with
    HMC     for any force `g`, a kick `v <- v - (eps/2) g(z)` is a shear of `(z, v)`: leapfrog steps preserve volume
            and are undone by themselves with `-v`, so the acceptance step is right with the exact `H`

What they do ask is that `g` be one function of the point, the same on the way there and back. It is: the networks
are fixed, rows of a batch do not interact, and kernels keep the gradient of the point at which they stay. A rough
gradient only costs acceptance. ULA and KLA have no acceptance step: theirs are the bfloat16 networks alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gebm.sampler.algorithm import Potential
from gebm.sampler.potential import check_frozen, latent_energy
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model import GEBM

ADJUSTED = frozenset({"mala", "hmc", "rwmh", "imh"})
"""Samplers with an acceptance step."""


def in_precision(model: GEBM, settings: SamplerSettings) -> GEBM:
    """The frozen `model` with the energies of latents as the sampler's kernel is to see them.

    Weights are shared with `model`; in bfloat16 there is a converted copy beside them.
    """
    if settings.precision == "float32":
        return model
    return WithBFloat16Gradient(model) if settings.name in ADJUSTED else InBFloat16(model)


def observer(model: GEBM, settings: SamplerSettings, labels: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    """What is recorded of chains: latents `(chains, p)` to `(1, chains)`, the float32 energies.

    In bfloat16 `(2, chains)`, below them those of the networks that gave the gradients; see `potential_error`.
    """
    energies = [latent_energy(model, labels)]
    if settings.precision == "bfloat16":
        energies.append(latent_energy(InBFloat16(model), labels))
    return lambda latent: torch.stack([energy(latent) for energy in energies])


def potential_error(observed: Tensor, inverse_temperature: float) -> float | None:
    """`max |ΔU|` in nats between the two precisions, of records `(records, 2, chains)`; None when there was but one."""
    if observed.shape[1] == 1:
        return None
    return inverse_temperature * (observed[:, 1] - observed[:, 0]).abs().max().item()


class InBFloat16(GEBM):
    """A model whose energies of latents, and their gradients, are those of its networks in bfloat16."""

    def __init__(self, model: GEBM):
        check_frozen(model)
        super().__init__(
            model.base, model.energy_network, model.latent_dimension, model.image_shape, model.classes, model.prior
        )
        self.log_partition, self.log_partition_error = model.log_partition, model.log_partition_error
        self.converted = nn.ModuleList([converted(model.base), converted(model.energy_network)])
        self.eval()

    def latent_energy(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        base, energy_network = self.converted
        given = self._labels(labels)
        energy: Tensor = energy_network(base(latent.to(torch.bfloat16), *given), *given)
        return energy.to(latent.dtype)


class WithBFloat16Gradient(InBFloat16):
    """A model whose energies of latents are the float32 networks', and their gradients those of bfloat16."""

    def latent_energy(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        return with_gradient_of(
            lambda z: super(InBFloat16, self).latent_energy(z, labels),
            lambda z: super(WithBFloat16Gradient, self).latent_energy(z, labels),
        )(latent)


def converted(network: nn.Module) -> nn.Module:
    """A copy of `network` in bfloat16 but for the numbers of its batch norms, which stay in float32."""
    copied = copy.deepcopy(network).to(torch.bfloat16)
    for norm, original in zip(copied.modules(), network.modules(), strict=True):
        if isinstance(norm, _BatchNorm):
            norm.float().load_state_dict(original.state_dict())
    return copied


def with_gradient_of(exact: Potential, rough: Potential) -> Potential:
    """A potential with the value of `exact` and the gradient of `rough`, both `(chains, p) -> (chains,)`.

    Where no gradient is asked for, `rough` is not evaluated.
    """

    def potential(latent: Tensor) -> Tensor:
        value: Tensor = _ValueAndRoughGradient.apply(latent, exact, rough)
        return value

    return potential


class _ValueAndRoughGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, latent: Tensor, exact: Potential, rough: Potential) -> Tensor:
        if ctx.needs_input_grad[0]:
            with torch.enable_grad():
                leaf = latent.detach().requires_grad_(True)
                (gradient,) = torch.autograd.grad(rough(leaf).sum(), leaf)
            ctx.save_for_backward(gradient)
        return exact(latent)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, weight: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (gradient,) = ctx.saved_tensors
        return weight.unsqueeze(1) * gradient, None, None
