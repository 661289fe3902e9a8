"""The generalized energy-based model: a base that says where the mass lies, an energy that says how much."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from gebm.trainer.model import prior as priors
from gebm.trainer.model.settings import ImageShape, PriorSettings


class GEBM(nn.Module):
    """`dQ_{B,E} / dQ_base (x) = exp(-E(x) - c)` (Arbel, Zhou, Gretton 2021).

    `Q_base` is the law of `base(z)`, `z ~ eta`, the `prior`: `N(0, I_p)` unless another is given. `E` is low where data
    is likely; `c` is the log-partition `log E[exp(-E(base(z)))]`, with its Monte-Carlo standard error
    `log_partition_error`.

    A conditional model (`classes` is a number) is one of pairs (x, y): the base's law is that of `(base(z, y), y)`
    with labels drawn uniformly, and there is one `c` for all labels. All that takes labels `(n,)` int64 wants them
    from a conditional model and refuses them from another (`ValueError`).
    """

    log_partition: Tensor
    log_partition_error: Tensor

    def __init__(
        self,
        base: nn.Module,
        energy_network: nn.Module,
        latent_dimension: int,
        image_shape: ImageShape,
        classes: int | None = None,
        prior: PriorSettings | None = None,
    ):
        super().__init__()
        self.base = base
        self.energy_network = energy_network
        self.latent_dimension = latent_dimension
        self.image_shape = image_shape
        self.classes = classes
        self.prior = prior or PriorSettings()
        # float64: c is a sum of thousands of small corrections.
        self.register_buffer("log_partition", torch.zeros((), dtype=torch.float64))
        self.register_buffer("log_partition_error", torch.full((), math.nan, dtype=torch.float64))

    def sample_prior(self, count: int, generator: torch.Generator) -> Tensor:
        """`(count, p)` draws of the prior, on the generator's device."""
        normal = torch.randn(count, self.latent_dimension, generator=generator, device=generator.device)
        return priors.from_normal(self.prior, normal)

    def sample_labels(self, count: int, generator: torch.Generator) -> Tensor | None:
        """`(count,)` int64 labels, uniform over the classes, on the generator's device; None without classes."""
        if self.classes is None:
            return None
        return torch.randint(self.classes, (count,), generator=generator, device=generator.device)

    def log_prior(self, latent: Tensor) -> Tensor:
        """`log eta(z)`, `(n,)`: the log-density of the prior at `latent` `(n, p)`, `-inf` outside of its support."""
        return priors.log_density(self.prior, latent)

    def generate(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """`B(z)`: latents `(n, p)` to images `(n, channels, height, width)` in [-1, 1], or to vectors `(n, d)`."""
        return self.base(latent, *self._labels(labels))

    def energy(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """`E(x)`: images `(n, channels, height, width)` in [-1, 1], or vectors `(n, d)`, to energies `(n,)`."""
        return self.energy_network(images, *self._labels(labels))

    def latent_energy(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """`E(B(z))`: latents `(n, p)` to energies `(n,)`."""
        return self.energy(self.generate(latent, labels), labels)

    @property
    def has_density(self) -> bool:
        """Whether the base has a density, and with it the model (`log_density`)."""
        return hasattr(self.base, "log_density")

    def log_density(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """`log p(x) = log q(x) - E(x) - c` in nats, `(n,)`; given labels, `log q(x | y) - E(x, y) - c`.

        Its error is that of `c`: `log_partition_error`. Raises `ValueError` when the base has no density.
        """
        if not self.has_density:
            raise ValueError("the base has no density: only a model with base = 'realnvp' has one")
        on_base = self.base.log_density(points, *self._labels(labels))  # type: ignore[union-attr, operator]
        return on_base - self.energy(points, labels) - self.log_partition.to(on_base.dtype)

    def _labels(self, labels: Tensor | None) -> tuple[Tensor, ...]:
        if (labels is None) != (self.classes is None):
            raise ValueError("a conditional model needs labels" if labels is None else "this model takes no labels")
        return () if labels is None else (labels,)


def in_normal_coordinates(model: GEBM) -> GEBM:
    """The same model as one of standard normal latents: its base is `u -> B(T(u))`, `T` that of its prior.

    Weights are shared. `prior.to_normal` and `from_normal` lead from latents to its and back. Itself when its prior is
    normal.
    """
    if model.prior.kind == "normal":
        return model
    base = priors.on_normal(model.base, model.prior)
    view = GEBM(base, model.energy_network, model.latent_dimension, model.image_shape, model.classes)
    view.log_partition, view.log_partition_error = model.log_partition, model.log_partition_error
    view.training = model.training
    return view


def freeze(model: GEBM) -> GEBM:
    """The model as samplers use it: evaluation mode, no weight gradients, spectral norms folded into weights.

    Weights of convolutions are laid out channels-last, and with them their activations: faster on CPU and GPU.
    """
    model.eval().requires_grad_(False)
    for module in model.modules():
        if parametrize.is_parametrized(module):
            for name in list(module.parametrizations):  # type: ignore[arg-type]
                parametrize.remove_parametrizations(module, name, leave_parametrized=True)
    return model.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
