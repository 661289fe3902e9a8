"""The target in latent space: `nu(z) ∝ eta(z) exp(-beta E(B(z)))`.

For a conditional model everything is closed over the labels `y` `(chains,)`: chain i has the target
`nu(z) ∝ eta(z) exp(-beta E(B(z, y_i), y_i))`, and its label stays what it is.
"""

from __future__ import annotations

from torch import Tensor

from gebm.sampler.algorithm import Potential
from gebm.trainer.model import GEBM


def check_frozen(model: GEBM) -> None:
    """Raise `ValueError` unless the networks are in evaluation mode and no weight asks for a gradient.

    In training mode the batch norm of the base uses the statistics of the batch: chains would influence each
    other and the target would not be a function of one latent. Weight gradients cost half of the backward
    pass.
    """
    training = [name for name, module in model.named_modules() if module.training]
    if training:
        raise ValueError(
            f"the model is in training mode ({training[0] or 'model'}): call model.eval() or freeze(model)"
        )
    trainable = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if trainable:
        raise ValueError(f"weight {trainable[0]} asks for a gradient: call freeze(model) before sampling")


def latent_energy(model: GEBM, labels: Tensor | None = None) -> Potential:
    """`z -> E(B(z))`, `(chains, p) -> (chains,)`. Raises `ValueError` when the model is not frozen."""
    check_frozen(model)

    def energy(latent: Tensor) -> Tensor:
        return model.latent_energy(latent, labels)

    return energy


def latent_tilt(model: GEBM, inverse_temperature: float = 1.0, labels: Tensor | None = None) -> Potential:
    """`z -> beta E(B(z))`: minus the log-density of the target relative to the prior, up to a constant."""
    energy = latent_energy(model, labels)

    def tilt(latent: Tensor) -> Tensor:
        return inverse_temperature * energy(latent)

    return tilt


def latent_potential(model: GEBM, inverse_temperature: float = 1.0, labels: Tensor | None = None) -> Potential:
    """`U(z) = -log eta(z) + beta E(B(z))`, `(chains, p) -> (chains,)`.

    `inverse_temperature = 1` is the model; above 1 the energy is sharpened while the prior is left as it is.
    Raises `ValueError` when the model is not frozen.
    """
    energy = latent_energy(model, labels)

    def potential(latent: Tensor) -> Tensor:
        return inverse_temperature * energy(latent) - model.log_prior(latent)

    return potential
