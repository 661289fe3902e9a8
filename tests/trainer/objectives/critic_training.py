"""Training a small energy on two fixed samples with the trainer's own step."""

import torch
from accelerate import Accelerator
from torch import Tensor

from gebm.trainer.model.networks.mlp import MLPEnergy
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.steps import EnergyStep, energy_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers


def train_critic(
    name: str, real: Tensor, fake: Tensor, *, steps: int, rate: float, penalty: float, free_steps: int = 0
) -> list[EnergyStep]:
    """All steps of Adam at a rate that falls linearly to 0, on all of `real` and `fake` `(n, d)` each time.

    Mixtures are of the rows as they are paired. The first `free_steps` are without penalty.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    energy = MLPEnergy(tuple(real.shape[1:]), (32, 32)).to(real.dtype)
    workers, seen = Workers(Accelerator(cpu=True)), []
    optimizer = WholeOptimizer(energy, torch.optim.Adam(energy.parameters(), lr=rate, betas=(0.5, 0.9)), workers)
    for step in range(steps):
        optimizer.learning_rate = rate * (1 - step / steps)
        seen.append(
            energy_step(
                energy,
                optimizer,
                OBJECTIVES[name],
                workers,
                real=real,
                fake=fake,
                mixing=torch.rand(len(real), generator=generator, dtype=real.dtype),
                log_partition=seen[-1].log_partition if seen else None,
                gradient_penalty=penalty if step >= free_steps else 0.0,
                log_partition_rate=1.0,
                level_penalty=1e-3,
            )
        )
    return seen
