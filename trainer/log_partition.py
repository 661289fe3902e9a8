"""Monte-Carlo estimates of the log-partition `c = log E[exp(-E(B(z)))]`, `z` of the prior."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gebm.cluster.randomness import derive_seed
from gebm.trainer.objectives.kale import log_mean_exp
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.state import TrainingState


def prior_draws(state: TrainingState, seed: int, stage: str, count: int) -> Tensor:
    """`(count, p)` prior draws that depend on the seed and the stage only."""
    generator = torch.Generator().manual_seed(derive_seed(seed, stage, 0))
    draws = state.model.sample_prior(count, generator)
    return draws.to(state.log_partition.device, state.dtype)


def prior_labels(state: TrainingState, seed: int, stage: str, count: int) -> Tensor | None:
    """`(count,)` int64 labels, uniform over the classes, of the seed and the stage; None without classes."""
    if state.model.classes is None:
        return None
    generator = torch.Generator().manual_seed(derive_seed(seed, f"{stage}-labels", 0))
    return torch.randint(state.model.classes, (count,), generator=generator).to(state.log_partition.device)


@torch.no_grad()
def monte_carlo_log_partition(
    state: TrainingState, energy: nn.Module, latents: Tensor, labels: Tensor | None, settings: TrainerSettings
) -> tuple[Tensor, Tensor]:
    """`c = log mean exp(-E(B(z)))` over `latents` `(n, p)` and its standard error (delta method), float64."""
    size = max(settings.batch_size, 256)
    kinds = labels.split(size) if labels is not None else [None] * len(latents.split(size))
    with evaluation_mode(state.model.base), evaluation_mode(energy):
        chunks = [
            apply_network(energy, apply_network(state.model.base, z, y), y)
            for z, y in zip(latents.split(size), kinds, strict=True)
        ]
    return log_mean_exp_with_error(-torch.cat(chunks).double())


def log_mean_exp_with_error(values: Tensor) -> tuple[Tensor, Tensor]:
    """`log mean exp(values)` of `(n,)` independent values and its standard error (delta method)."""
    estimate = log_mean_exp(values)
    weights = torch.exp(values - estimate)
    return estimate, weights.std() / len(weights) ** 0.5


def apply_network(network: nn.Module, inputs: Tensor, labels: Tensor | None) -> Tensor:
    """`network(inputs)`, with the labels where the model is conditional."""
    return network(inputs) if labels is None else network(inputs, labels)


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[None]:
    """`network` in evaluation mode, put back into the mode it was in afterwards."""
    was_training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(was_training)
