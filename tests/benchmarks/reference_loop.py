"""A plain PyTorch loop of the form of the paper's public code, with our networks: the peer of the training benchmark.

Written anew after what the code of Arbel, Zhou and Gretton (2021) does, as a straightforward script would: networks
as they come, a forward pass for each kind of image, in the base step a loss whose `backward` goes through the energy,
its weights included, and real images too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass
class ReferenceLoop:
    """Generator, energy and log-partition; the energy and `c` by one Adam."""

    generator: nn.Module
    energy: nn.Module
    images: Iterator[Tensor]
    latent_dimension: int
    batch_size: int
    gradient_penalty: float = 1.0
    learning_rate: float = 1e-4

    def __post_init__(self) -> None:
        device = next(self.generator.parameters()).device
        self.log_partition = nn.Parameter(torch.zeros((), device=device))
        betas = (0.5, 0.999)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), lr=self.learning_rate, betas=betas)
        critic = [*self.energy.parameters(), self.log_partition]
        self.energy_optimizer = torch.optim.Adam(critic, lr=self.learning_rate, betas=betas)

    def latent(self) -> Tensor:
        return torch.randn(self.batch_size, self.latent_dimension, device=self.log_partition.device)

    def critic_loss(self, real: Tensor, fake: Tensor, a: Tensor) -> Tensor:
        """KALE, negative, plus the penalty at `a x + (1 - a) y`, `a` `(n,)`."""
        on_real, on_fake = self.energy(real), self.energy(fake)
        c = self.log_partition
        loss = on_real.mean() + c + torch.exp(-on_fake - c).mean() - 1.0
        a = a.view(-1, 1, 1, 1)
        between = (a * real + (1.0 - a) * fake).requires_grad_()
        (gradient,) = torch.autograd.grad(self.energy(between).sum(), between, create_graph=True)
        return loss + self.gradient_penalty * gradient.square().flatten(1).sum(1).mean()

    def energy_step(self) -> float:
        """One step of the energy and of `c`."""
        self.energy_optimizer.zero_grad()
        with torch.no_grad():
            fake = self.generator(self.latent())
        loss = self.critic_loss(next(self.images), fake, torch.rand(self.batch_size, device=fake.device))
        loss.backward()
        self.energy_optimizer.step()
        return float(loss.detach())

    def base_step(self) -> float:
        """One step of the generator on the same loss."""
        self.generator_optimizer.zero_grad()
        real = next(self.images)
        fake = self.generator(self.latent())
        on_real, on_fake = self.energy(real), self.energy(fake)
        loss = -on_real.mean() - (torch.logsumexp(-on_fake, 0) - math.log(len(on_fake)))
        loss.backward()
        self.generator_optimizer.step()
        return float(loss.detach())

    def round(self, energy_steps: int = 5) -> None:
        for _ in range(energy_steps):
            self.energy_step()
        self.base_step()
