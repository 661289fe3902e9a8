"""Both steps follow the gradients of the papers' losses, penalty and labels included, by finite differences."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gebm.trainer.critic import read_critic
from gebm.trainer.model.networks.mlp import MLPBase, MLPEnergy
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.steps import base_step, energy_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers
from tests.trainer.objectives.formulas import FORMULAS

CLASSES = 3
STEP = 1e-5


class Setting:
    """A small conditional pair in the plane, its data and its latents, float64."""

    def __init__(self, classes: int | None):
        torch.manual_seed(0)
        generator = torch.Generator().manual_seed(1)
        self.energy = MLPEnergy((2,), (7, 6), classes=classes, feature_dimension=4).double()
        self.base = MLPBase(3, (2,), (5,), classes=classes).double()
        self.real = torch.randn(8, 2, generator=generator, dtype=torch.float64) + 1.0
        self.latent = torch.randn(8, 3, generator=generator, dtype=torch.float64)
        self.mixing = torch.rand(8, generator=generator, dtype=torch.float64)
        self.real_labels, self.labels = (
            torch.randint(classes or 1, (2, 8), generator=generator) if classes else (None, None)
        )
        self.workers = Workers(Accelerator(cpu=True))

    def fake(self) -> Tensor:
        return self.base(self.latent) if self.labels is None else self.base(self.latent, self.labels)


def still(network: nn.Module) -> WholeOptimizer:
    return WholeOptimizer(network, torch.optim.SGD(network.parameters(), lr=0.0), Workers(Accelerator(cpu=True)))


def along(network: nn.Module, value: Callable[[], float], seed: int) -> tuple[float, float]:
    """The directional derivative that the network's gradients say, and the one by central differences of `value`."""
    generator = torch.Generator().manual_seed(seed)
    parameters = [p for p in network.parameters() if p.grad is not None]
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    said = sum(float((p.grad * d).sum()) for p, d in zip(parameters, direction, strict=True))
    values = []
    for factor in (STEP, -2 * STEP, STEP):
        with torch.no_grad():
            for p, d in zip(parameters, direction, strict=True):
                p.add_(d, alpha=factor)
        values.append(value())
    return said, (values[0] - values[1]) / (2 * STEP)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_the_energy_step_follows_the_papers_loss_with_its_penalty(name, classes):
    setting, objective = Setting(classes), OBJECTIVES[name]
    fake = setting.fake().detach()
    result = energy_step(
        setting.energy,
        still(setting.energy),
        objective,
        setting.workers,
        real=setting.real,
        fake=fake,
        mixing=setting.mixing,
        log_partition=torch.tensor(0.2, dtype=torch.float64),
        gradient_penalty=0.8,
        log_partition_rate=0.5,
        level_penalty=0.1,
        real_labels=setting.real_labels,
        fake_labels=setting.labels,
    )

    def read(points: Tensor, labels: Tensor | None) -> Tensor:
        return read_critic(setting.energy, objective, points, labels)

    def total() -> float:
        on_real, on_fake = read(setting.real, setting.real_labels), read(fake, setting.labels)
        c = float(result.log_partition)
        loss = FORMULAS[name].critic_loss(on_real.detach().numpy(), on_fake.detach().numpy(), c)
        a = setting.mixing[:, None]
        between = (a * setting.real + (1 - a) * fake).requires_grad_()
        labels = None
        if classes:
            labels = torch.where(setting.mixing >= 0.5, setting.real_labels, setting.labels)
        at = read(between, labels)
        if objective.reads == "features":
            # E = -witness, written out.
            kernels = [
                sum(
                    (1 + (at[:, None] - on[None]).square().sum(2) / (2 * alpha)) ** -alpha
                    for alpha in (0.2, 0.5, 1, 2, 5)
                )
                for on in (on_real, on_fake)
            ]
            at = kernels[1].mean(1) - kernels[0].mean(1)
        (slope,) = torch.autograd.grad(at.sum(), between)
        length = slope.square().sum(1).sqrt()
        penalty = ((length - 1) ** 2 if name == "wasserstein" else length**2).mean()
        level = 0.1 * float(on_fake.detach().mean()) ** 2 if objective.constant_is_free else 0.0
        return loss + level + 0.8 * float(penalty)

    for seed in (2, 3):
        said, differences = along(setting.energy, total, seed)
        assert abs(differences) > 1e-3
        assert said == pytest.approx(differences, rel=1e-6, abs=1e-8)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("classes", [None, CLASSES])
def test_the_base_step_follows_the_papers_loss(name, classes):
    setting, objective = Setting(classes), OBJECTIVES[name]

    def read(points: Tensor, labels: Tensor | None) -> np.ndarray:
        return read_critic(setting.energy, objective, points, labels).detach().numpy()

    result = base_step(
        setting.base,
        setting.energy,
        still(setting.base),
        objective,
        setting.workers,
        setting.latent,
        labels=setting.labels,
        real=setting.real,
        real_labels=setting.real_labels,
    )

    def loss() -> float:
        return FORMULAS[name].base_loss(read(setting.fake(), setting.labels), read(setting.real, setting.real_labels))

    assert float(result.loss) == pytest.approx(loss(), rel=1e-12)
    for seed in (2, 3):
        said, differences = along(setting.base, loss, seed)
        assert abs(differences) > 1e-3
        assert said == pytest.approx(differences, rel=1e-6, abs=1e-8)
    assert all(p.grad is None and p.requires_grad for p in setting.energy.parameters())


def test_an_objective_that_compares_with_real_images_cannot_be_stepped_without_them():
    setting = Setting(None)
    with pytest.raises(TypeError, match="give base_step real="):
        base_step(setting.base, setting.energy, still(setting.base), OBJECTIVES["mmd"], setting.workers, setting.latent)
