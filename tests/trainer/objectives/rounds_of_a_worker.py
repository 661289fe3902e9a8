"""One worker process of `test_two_worker_processes_compute_what_one_computes_for_every_objective`; rank 0 prints.

Arguments: number of workers, port, rank. Rounds of every objective, one after the other: in float64, then in float32.
"""

import sys

import torch
from accelerate import Accelerator

from gebm.trainer.batch_norm import use_global_batch
from gebm.trainer.model import ModelSettings, build_model
from gebm.trainer.objectives.table import OBJECTIVES, Objective
from gebm.trainer.steps import base_step, energy_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers
from tests.trainer.gloo_group import gloo_group

BATCH, CLASSES = 12, 3
ROUNDS = {torch.float64: 20, torch.float32: 1}
SHAPE = (1, 8, 8)


def main(world: int, port: str, rank: int) -> None:
    with gloo_group(rank, world, port):
        workers = Workers(Accelerator(cpu=True))
        assert (workers.world, workers.rank) == (world, rank)
        for name, values in rounds_of_every_objective(workers).items():
            if rank == 0:
                print(name, *(f"{value:.17g}" for value in values))


def rounds_of_every_objective(workers: Workers) -> dict[str, list[float]]:
    """Each without labels; KALE and MMD, which reads other things of the labels than energies do, with labels too."""
    found = {}
    for dtype in ROUNDS:
        kind = str(dtype).removeprefix("torch.")
        for name, objective in OBJECTIVES.items():
            found[f"{name}-{kind}"] = train(objective, workers, dtype, classes=None)
        for name in ("kale", "mmd"):
            found[f"{name}-conditional-{kind}"] = train(OBJECTIVES[name], workers, dtype, CLASSES)
    return found


def train(objective: Objective, workers: Workers, dtype: torch.dtype, classes: int | None) -> list[float]:
    """What the last steps saw, and every tensor of both networks, as one number each."""
    settings = ModelSettings(
        latent_dimension=4,
        base_widths=(6, 4),
        energy_widths=(5,),
        feature_dimension=3,
        conditional=classes is not None,
    )
    model = build_model(settings, SHAPE, classes, seed=0).to(dtype)
    use_global_batch(model.base)
    # What is small enough to have an effect, large enough not to make everything small.
    options = {"clip_norm": 0.5, "transform": True}
    energy_optimizer, base_optimizer = (
        WholeOptimizer(network, optimizer(network, dtype), workers, **options)
        for network in (model.energy_network, model.base)
    )
    rows = torch.arange(workers.rank, BATCH, workers.world)  # interleaved, as lanes deal them out
    generator = torch.Generator().manual_seed(1)
    log_partition = None

    def latent() -> torch.Tensor:
        return torch.randn(BATCH, 4, generator=generator)[rows].to(dtype)

    def labels() -> torch.Tensor | None:
        return None if classes is None else torch.randint(classes, (BATCH,), generator=generator)[rows]

    for _ in range(ROUNDS[dtype]):
        for _ in range(2):
            blocks = torch.rand(BATCH, 1, 4, 4, generator=generator) < 0.3
            real = (blocks.repeat_interleave(2, 2).repeat_interleave(2, 3)[rows] * 2.0 - 1.0).to(dtype)
            real_labels, fake_labels = labels(), labels()
            with torch.no_grad():
                fake = model.eval().generate(latent(), fake_labels)
            seen = energy_step(
                model.energy_network.train(),
                energy_optimizer,
                objective,
                workers,
                real=real,
                fake=fake,
                mixing=torch.rand(BATCH, generator=generator)[rows].to(dtype),
                log_partition=log_partition,
                gradient_penalty=0.5,
                log_partition_rate=0.5,
                level_penalty=1e-3,
                real_labels=real_labels,
                fake_labels=fake_labels,
            )
            log_partition = seen.log_partition
        base = base_step(
            model.base.train(),
            model.energy_network.eval(),
            base_optimizer,
            objective,
            workers,
            latent(),
            labels=labels(),
            real=real,
            real_labels=real_labels,
        )
    networks = (model.base, model.energy_network)
    weights = [tensor.double() for network in networks for tensor in network.state_dict().values()]
    # The norm and an entry that is as good as any: a sum would hide what cancels.
    return [float(value) for value in (*seen, *base, *(w.norm() for w in weights), *(w.view(-1)[-1] for w in weights))]


def optimizer(network: torch.nn.Module, dtype: torch.dtype) -> torch.optim.Optimizer:
    """Adam; in float32 gradient descent, since Adam takes the sign of gradients that are nothing but rounding (those
    of a bias before a batch norm)."""
    if dtype == torch.float32:
        return torch.optim.SGD(network.parameters(), lr=0.1)
    return torch.optim.Adam(network.parameters(), lr=1e-4)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
