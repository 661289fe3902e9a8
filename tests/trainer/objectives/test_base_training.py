"""Alternating the two steps, every objective brings a Gaussian base onto Gaussian data."""

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gebm.trainer.model.networks.mlp import MLPEnergy
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.steps import base_step, energy_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers

DATA_MEAN, DATA_DEVIATION = torch.tensor([0.6, -0.3]), 0.9
BATCH = 64


class Affine(nn.Module):
    """`shift + scale z`, which begins 1.8 from the data and too wide."""

    def __init__(self):
        super().__init__()
        self.shift, self.scale = nn.Parameter(torch.tensor([-1.0, 0.5])), nn.Parameter(torch.tensor(1.5))

    def forward(self, latent: Tensor) -> Tensor:
        return self.shift + self.scale * latent


@pytest.mark.parametrize("name", OBJECTIVES)
def test_the_base_moves_onto_the_data(name):
    objective, workers = OBJECTIVES[name], Workers(Accelerator(cpu=True))
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    base, energy, log_partition = Affine(), MLPEnergy((2,), (32, 32), feature_dimension=4), None
    energy_optimizer, base_optimizer = (
        WholeOptimizer(network, torch.optim.Adam(network.parameters(), lr=rate, betas=(0.5, 0.9)), workers)
        for network, rate in ((energy, 5e-3), (base, 2e-2))
    )
    for round_number in range(80):
        for _ in range(20 if round_number < 2 else 2):
            real = DATA_MEAN + DATA_DEVIATION * torch.randn(BATCH, 2, generator=generator)
            with torch.no_grad():
                fake = base(torch.randn(BATCH, 2, generator=generator))
            step = energy_step(
                energy,
                energy_optimizer,
                objective,
                workers,
                real=real,
                fake=fake,
                mixing=torch.rand(BATCH, generator=generator),
                log_partition=log_partition,
                gradient_penalty=10.0 if objective.penalty == "one_centred" else 0.1,
                log_partition_rate=1.0,
                level_penalty=1e-3,
            )
            log_partition = step.log_partition
        base_step(
            base, energy, base_optimizer, objective, workers, torch.randn(BATCH, 2, generator=generator), real=real
        )
    assert float((base.shift.detach() - DATA_MEAN).norm()) < 0.4
    assert float(base.scale.detach()) == pytest.approx(DATA_DEVIATION, abs=0.25)
    # Where the energy is a log-ratio with its constant, the model needs no normalising.
    if objective.reads == "energies" and not objective.constant_is_free:
        assert abs(float(log_partition)) < 0.1
