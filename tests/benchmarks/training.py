"""Energy steps, base steps and whole rounds of training against a plain PyTorch loop with the same networks.

`python -m tests.benchmarks.training [--quick] [--json FILE]`. The SNGAN ConvNet and ResNet pairs at 32x32, gradient
penalty, five energy steps a round, in float32 and, ours, in bfloat16 against the same float32 loop, all in one
process with all CPUs. Then what Ray costs (the same run in one process, and as a group of one worker), and what a
second worker brings, one thread each.

"of peak": floating-point operations that a step needs (MATH of the networks, weights' and images' gradients that are
needed alone) over those that a matrix product of the same precision does in the same time in this run.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from gebm.cluster.connect import connection
from gebm.cluster.index import build_index, write_index
from gebm.cluster.shards import encode_png, write_shard
from gebm.trainer.driver import train
from gebm.trainer.log_partition import apply_network
from gebm.trainer.metrics import TIMINGS, read_metrics
from gebm.trainer.model import ModelSettings, build_model
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.real_data import RealBatch
from gebm.trainer.rounds import joint_round
from gebm.trainer.settings import EnergyPhase, JointPhase, TrainerSettings, WatchSettings
from gebm.trainer.spectral_norm import advance_spectral_norms
from gebm.trainer.state import initial_state
from gebm.trainer.steps import base_step, energy_step
from gebm.trainer.workers import Workers
from tests.benchmarks.harness import Record, interleaved, machine, main, matrix_rate, timed
from tests.benchmarks.plain_networks import plain
from tests.benchmarks.reference_loop import ReferenceLoop

PEER = "plain PyTorch loop, float32"
SHAPE = (3, 32, 32)
LATENT = 100
ENERGY_STEPS = 5
BATCHES = (16, 64)
"""On a CPU: small, where what a step does beside its convolutions shows, and as recipes have them."""
PENALTY = 1.0
TOLERANCE = {"float32": 1e-4, "bfloat16": 5e-2}  # of the critic's loss, by the precision it is computed in


class Work(NamedTuple):
    """MFLOP an image, two a multiply-add, of what is needed, all passes counted.

    An energy step: one forward pass of the base, ten of the energy's size. Real and generated images: forward, weight
    and input gradients of each, six. The penalty: forward, input gradient, and of that the gradients in the weights and
    in what came in, four: the second derivative of a piecewise linear activation is nothing, and goes nowhere.
    """

    energy_step: float
    base_step: float

    @property
    def round(self) -> float:
        return ENERGY_STEPS * self.energy_step + self.base_step


WORK = {"sngan_convnet": Work(207 + 10 * 431, 1481), "sngan_resnet": Work(800 + 10 * 544, 3489)}


class Ours:
    """A training state, and its steps one by one, on batches that are in memory."""

    def __init__(self, network: str, dtype: str, batch_size: int):
        joint = JointPhase(
            steps=1_000_000,
            energy_steps=ENERGY_STEPS,
            warmup_steps=0,
            gradient_penalty=PENALTY,
            base_learning_rate=1e-4,
            energy_learning_rate=1e-4,
        )
        self.settings = TrainerSettings(
            batch_size=batch_size, dtype=dtype, betas=(0.5, 0.999), joint=joint, energy=EnergyPhase(steps=0)
        )
        half = torch.bfloat16 if dtype == "bfloat16" else None
        self.workers = Workers(Accelerator(cpu=not torch.cuda.is_available()), half)
        self.model_settings = ModelSettings(network=network, latent_dimension=LATENT)
        self.state = initial_state(self.model_settings, self.settings, SHAPE, 0, self.workers)
        rows = torch.arange(batch_size)
        self.noise = GlobalNoise(0, batch_size, rows, self.workers.device, self.state.dtype)
        self.batches = batches(batch_size, self.workers.device)
        self.number = itertools.count()

    def real(self, number: int) -> RealBatch:
        image = next(self.batches).contiguous(memory_format=torch.channels_last)
        return RealBatch(image, None)

    def energy_step(self) -> float:
        state, number = self.state, next(self.number)
        with torch.no_grad(), self.workers.autocast():
            fake = apply_network(state.model.base.eval(), self.noise.normal("latent", number, LATENT), None)
        return self.critic_loss(self.real(0).images, fake.to(state.dtype), self.noise.uniform("penalty", number))

    def critic_loss(self, real: Tensor, fake: Tensor, mixing: Tensor) -> float:
        step = energy_step(
            self.state.model.energy_network,
            self.state.optimizers["energy"],
            OBJECTIVES["kale"],
            self.workers,
            real=real,
            fake=fake,
            mixing=mixing,
            log_partition=self.state.log_partition,
            gradient_penalty=PENALTY,
            log_partition_rate=1.0,
        )
        self.state.log_partition = step.log_partition
        return float(step.critic_loss + PENALTY * step.penalty)

    def base_step(self) -> float:
        state = self.state
        latent = self.noise.normal("base-latent", next(self.number), LATENT)
        base, energy = state.model.base.train(), state.model.energy_network.eval()
        return float(base_step(base, energy, state.optimizers["base"], OBJECTIVES["kale"], self.workers, latent).loss)

    def round(self) -> None:
        joint_round(self.state, self.settings, self.workers, self.noise, self.real)


def batches(batch_size: int, device: torch.device) -> Iterator[Tensor]:
    """Batches of blocks of colour in [-1, 1], over and over the same eight."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(8, batch_size, 3, 8, 8, generator=generator) * 2.0 - 1.0
    images = small.repeat_interleave(4, 3).repeat_interleave(4, 4).to(device)
    return itertools.cycle(images.unbind(0))


def reference(ours: Ours) -> ReferenceLoop:
    """The peer with our weights in networks as plain PyTorch has them: float32, contiguous."""
    model = build_model(ours.model_settings, SHAPE, seed=0)
    model.load_state_dict(ours.state.model.state_dict())
    model = plain(model.to(ours.workers.device)).train()
    size = ours.settings.batch_size
    images = batches(size, ours.workers.device)
    return ReferenceLoop(model.base, model.energy_network, images, LATENT, size, PENALTY)


def check_losses(network: str, dtype: str, batch_size: int) -> None:
    """Raise when our critic's loss on some images is not the peer's, to the tolerance of the precision."""
    ours = Ours(network, dtype, batch_size)
    peer = reference(ours)
    # Ours iterates spectral norms once a step and holds them: the peer is given the same function.
    advance_spectral_norms(peer.energy)
    real, fake = next(ours.batches), next(ours.batches).flip(3)
    mixing = torch.rand(batch_size, generator=torch.Generator().manual_seed(1)).to(real.device)
    mine = ours.critic_loss(real, fake, mixing)
    with torch.no_grad():
        peer.log_partition.copy_(ours.state.log_partition)
    theirs = float(peer.critic_loss(real, fake, mixing).detach())
    if abs(mine - theirs) > TOLERANCE[dtype] * max(1.0, abs(theirs)):
        raise AssertionError(f"{network} in {dtype}: our loss {mine:g}, the peer's {theirs:g}")


def measure(quick: bool) -> list[Record]:
    """Steps and rounds of both pairs in both precisions; then Ray, and a second worker."""
    on_gpu, here = torch.cuda.is_available(), machine()
    sizes = (128,) if on_gpu else (4,) if quick else BATCHES
    rates = {dtype: matrix_rate(getattr(torch, dtype), seconds=0.2 if quick else 2.0) for dtype in TOLERANCE}
    print(
        "matrix products: "
        + ", ".join(f"{dtype} {rate / 1e9:.0f} GFLOP/s" for dtype, rate in rates.items())
        + f"; bfloat16 {rates['bfloat16'] / rates['float32']:.2f} times float32"
    )
    lines: list[Record] = []
    for network, dtype, batch_size in itertools.product(list(WORK)[: 1 if quick else None], TOLERANCE, sizes):
        check_losses(network, dtype, batch_size)
        ours = Ours(network, dtype, batch_size)
        peer = reference(ours)
        for step in ("energy_step", "base_step", "round"):
            mine, theirs = interleaved(getattr(ours, step), getattr(peer, step), repeats=1 if quick else 3)
            share = getattr(WORK[network], step) * 1e6 * batch_size / mine / rates[dtype]
            case = f"{network} {dtype} batch {batch_size}: {step.replace('_', ' ')}"
            lines.append(Record(case, mine, PEER, theirs, share, here))
            print(f"{case}: {theirs / mine:.2f} times the peer, {share:.0%} of the rate of matrix products", flush=True)
    return lines + distributed(quick, sizes[-1])


def distributed(quick: bool, batch_size: int) -> list[Record]:
    """Seconds a round of a bare loop against a Ray group of one worker, and of one worker against two."""
    rounds, here = (4 if quick else 3), machine()
    threads = torch.get_num_threads()
    if not torch.cuda.is_available():
        torch.set_num_threads(1)  # as a worker with one CPU has
    bare = Ours("sngan_convnet", "float32", batch_size)
    bare.round()
    with tempfile.TemporaryDirectory(prefix="gebm-training-") as folder, connection("local", cpus=2):
        data = write_colours(f"{folder}/data", 40 * batch_size)
        seconds: dict[str, list[float]] = {"bare": [], "1": [], "2": []}
        for repeat in range(1 if quick else 3):
            seconds["bare"].append(statistics.median(timed(bare.round) for _ in range(rounds - 1)))
            for workers in (1, 2):
                seconds[str(workers)].append(round_seconds(bare, data, f"{folder}/{workers}-{repeat}", workers, rounds))
    torch.set_num_threads(threads)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return [
        Record("round, Ray group of one worker", medians["1"], "bare loop, no Ray", medians["bare"], None, here),
        Record("round, two workers of one thread", medians["2"], "one worker", medians["1"], None, here),
    ]


def round_seconds(bare: Ours, data: str, run: str, workers: int, rounds: int) -> float:
    """Median seconds a round of a training run on a Ray group, data and metrics included, start and end left out."""
    settings = bare.settings.model_copy(
        update={
            "joint": bare.settings.joint.model_copy(update={"steps": rounds}),
            "lanes": 2,
            "log_every": 1,
            "checkpoint_every": rounds,
            "log_partition_draws": 16,
            "batch_norm_draws": 16,
            "watch": WatchSettings(every=0, tensorboard=False),
        }
    )
    model = ModelSettings(network="sngan_convnet", latent_dimension=LATENT)
    train(run=run, data=data, model=model, settings=settings, seed=0, workers=workers)
    lines = read_metrics(run, TIMINGS)[1:]  # the first has the warm-up in it
    return statistics.median(line["seconds"] for line in lines) / settings.log_every


def write_colours(url: str, count: int) -> str:
    """A shard set of blocks of colour."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 8, 8, 3), dtype=np.uint8).repeat(4, 1).repeat(4, 2)
    samples = ({"__key__": f"{number:06d}", "png": encode_png(image)} for number, image in enumerate(images))
    write_shard(f"{url}/0.tar", samples)
    write_index(url, build_index(url))
    return url


if __name__ == "__main__":
    main("Training steps", measure)
