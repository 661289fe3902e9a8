"""One worker process of `test_two_worker_processes_compute_what_one_computes`; rank 0 prints what came out.

Arguments: number of workers, port, dtype, rounds, rank.
"""

import sys

import torch
from accelerate import Accelerator

from gebm.trainer.model import ModelSettings
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.phases import enter_phase
from gebm.trainer.real_data import RealBatch
from gebm.trainer.rounds import energy_round, joint_round
from gebm.trainer.settings import EnergyPhase, JointPhase, TrainerSettings
from gebm.trainer.state import initial_state
from gebm.trainer.workers import Workers
from tests.trainer.gloo_group import gloo_group

BATCH = 16


def main(world: int, dtype: str, rounds: int, rank: int) -> None:
    workers = Workers(Accelerator(cpu=True))
    assert (workers.world, workers.rank) == (world, rank)
    settings = TrainerSettings(
        batch_size=BATCH,
        dtype=dtype,
        batch_norm_draws=64,
        joint=JointPhase(
            steps=rounds, energy_steps=2, warmup_steps=0, base_learning_rate=1e-4, energy_learning_rate=1e-4
        ),
        energy=EnergyPhase(steps=rounds, learning_rate=1e-4, chain_steps=2),
    )
    model = ModelSettings(latent_dimension=8, base_widths=(16, 8, 8, 8), energy_widths=(8, 8, 16))
    state = initial_state(model, settings, (1, 32, 32), 0, workers)
    # Interleaved rows, as lanes deal them out.
    rows = torch.arange(rank, BATCH, world)
    real_dtype = next(state.model.parameters()).dtype
    noise = GlobalNoise(0, BATCH, rows, workers.device, real_dtype)

    def real_data(batch: int) -> RealBatch:
        generator = torch.Generator().manual_seed(batch)
        # White blocks on black: of plain noise the energy's first gradients are so near zero that Adam's first step,
        # which is their sign, would be decided by rounding. The learning rates are the reference's.
        blocks = torch.rand(BATCH, 1, 4, 4, generator=generator) < 0.2
        images = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)[rows] * 2.0 - 1.0
        return RealBatch(images.to(real_dtype), labels=None)

    printed = {}
    for _ in range(rounds):
        values = joint_round(state, settings, workers, noise, real_data)
    printed["joint"] = list(values.values())
    enter_phase(state, "energy", settings, 0)
    for _ in range(rounds):
        values = energy_round(state, settings, workers, noise, real_data)
    printed["energy"] = list(values.values())
    printed["weights"] = [
        float(tensor.double().mean())
        for network in state.networks().values()
        for tensor in network.state_dict().values()
    ]
    if rank == 0:
        for name, values in printed.items():
            print(name, *(f"{value:.17g}" for value in values))


if __name__ == "__main__":
    world, port, dtype, rounds, rank = sys.argv[1:]
    with gloo_group(int(rank), int(world), port):
        main(int(world), dtype, int(rounds), int(rank))
