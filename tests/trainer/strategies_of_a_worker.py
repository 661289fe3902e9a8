"""One worker process of `test_strategies`: trains small runs, one after the other; rank 0 writes what they came to.

Argument: a JSON object with `rank`, `world`, `port`, `model` and `runs`, a list of `{settings, start, out}`: settings
of the trainer, a file with the state to start from or null, and where the state and the values of all rounds go.
"""

import json
import os
import sys
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator

from gebm.trainer.model import ModelSettings
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.phases import enter_phase, phase_of_round
from gebm.trainer.real_data import RealBatch
from gebm.trainer.rounds import ROUNDS
from gebm.trainer.settings import TrainerSettings
from gebm.trainer.state import initial_state
from gebm.trainer.workers import Workers
from tests.trainer.gloo_group import gloo_group

SHAPE = (1, 32, 32)


def main(rank: int, world: int, port: int, model: dict[str, Any], runs: list[dict[str, Any]]) -> None:
    with gloo_group(rank, world, port, outlived=True):
        workers = Workers(Accelerator(cpu=True))
        for run in runs:
            result = train(workers, ModelSettings.model_validate(model), run["settings"], run["start"])
            if rank == 0:
                torch.save(result, run["out"])
        if world > 1:
            dist.barrier()


def train(workers: Workers, model: ModelSettings, changes: dict[str, Any], start: str | None) -> dict[str, Any]:
    settings = TrainerSettings.model_validate(changes)
    state = initial_state(model, settings, SHAPE, 0, workers)
    if start is not None:
        state.load_dict(torch.load(start, weights_only=True)["state"])
    rows = torch.arange(workers.rank, settings.batch_size, workers.world)  # interleaved, as lanes deal them out
    noise = GlobalNoise(0, settings.batch_size, rows, workers.device, state.dtype)

    def real_data(batch: int) -> RealBatch:
        generator = torch.Generator().manual_seed(batch)
        blocks = torch.rand(settings.batch_size, 1, 4, 4, generator=generator) < 0.2
        images = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)[rows] * 2.0 - 1.0
        return RealBatch(images.to(state.dtype), labels=None)

    seen = []
    while state.round < settings.rounds:
        if state.phase != (phase := phase_of_round(state.round, settings)):
            enter_phase(state, phase, settings, 0)
        seen.append(ROUNDS[phase](state, settings, workers, noise, real_data))
    return {"seen": seen, "state": state.as_dict()}


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # DeepSpeed keeps its groups, whose threads may abort a process in which Python ends
