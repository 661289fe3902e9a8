"""Persistent Langevin chains of the energy phase: they show the energy its own holes.

An energy that is fitted to prior draws alone knows nothing of images that the base makes only where the energy
sends it: a sampler at a high inverse temperature can end in a hole, an image unlike any digit with an energy below
all of them. Chains that run beside the training, at such a temperature, find the holes while they are shallow, and
`objectives.chains` counts them among the generated images.

Chains are of standard normal latents whatever the prior (`model/prior.py`), so that none can leave its support. All
workers hold all chains, `(batch, p)` small vectors, and move their own rows: the chains do not depend on how
many workers there are, and a checkpoint of any of them is complete.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gebm.trainer.critic import ChainImages, micro_batches
from gebm.trainer.log_partition import apply_network, prior_draws, prior_labels
from gebm.trainer.model.prior import on_normal, to_normal
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.settings import EnergyPhase, TrainerSettings
from gebm.trainer.state import TrainingState
from gebm.trainer.workers import Workers


def begin_chains(state: TrainingState, settings: TrainerSettings, seed: int) -> None:
    """One chain for each row of the global batch, at a prior draw. Nothing when the phase has no chains."""
    state.chains = state.chain_labels = None
    if settings.energy.chain_steps:
        state.chains = to_normal(state.model.prior, prior_draws(state, seed, "chains", settings.batch_size))
        state.chain_labels = prior_labels(state, seed, "chains", settings.batch_size)


def advance_chains(
    state: TrainingState, settings: TrainerSettings, workers: Workers, noise: GlobalNoise
) -> ChainImages | None:
    """Move every chain by `chain_steps` Langevin steps and return this worker's rows; None without chains."""
    if state.chains is None:
        return None
    phase, rows = settings.energy, noise.rows.to(state.chains.device)
    latent = state.chains[rows]
    labels = None if state.chain_labels is None else state.chain_labels[rows]
    base = on_normal(state.model.base.eval(), state.model.prior)
    energy = state.model.energy_network.eval().requires_grad_(False)
    for number in range(phase.chain_steps):
        step = state.energy_steps * phase.chain_steps + number
        xi = noise.normal("chain-noise", step, state.model.latent_dimension)
        with workers.autocast():
            moved = [
                langevin_step(base, energy, latent[part], None if labels is None else labels[part], xi[part], phase)
                for part in micro_batches(len(latent), settings.micro_batch)
            ]
        latent = torch.cat(moved)
    energy.requires_grad_(True)
    with torch.no_grad(), workers.autocast():
        images = apply_network(base, latent, labels).to(state.dtype)
    state.chains = torch.empty_like(state.chains)
    state.chains[workers.gather(rows)] = workers.gather(latent)
    return ChainImages(images, labels, rows % 2 == 0)


def langevin_step(
    base: nn.Module, energy: nn.Module, latent: Tensor, labels: Tensor | None, xi: Tensor, phase: EnergyPhase
) -> Tensor:
    """`z' = z - h (z + beta grad_z E(B(z))) + sqrt(2h) xi`, `(n, p)`, with `beta` and `h` of the energy phase.

    Networks in evaluation mode, the base one of standard normal latents; `xi` `(n, p)` are standard normals.
    """
    latent = latent.detach().requires_grad_()
    images = apply_network(base, latent, labels)
    tilt = phase.chain_inverse_temperature * apply_network(energy, images, labels).sum()
    (gradient,) = torch.autograd.grad(tilt, latent)
    latent = latent.detach() - phase.chain_step_size * (latent.detach() + gradient)
    return latent + math.sqrt(2 * phase.chain_step_size) * xi
