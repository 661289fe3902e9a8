"""Steps of chains against chains of the reference's form, and effective samples a second against BlackJAX.

`python -m tests.benchmarks.sampling [--quick] [--json FILE]`, in one process with all CPUs, or on a GPU:

- the SNGAN ConvNet and ResNet pairs at 32x32, batches of 100 and 500 chains: a step of ours in float32 and in bfloat16
  and of the peer, in turns; the other kernels at the smaller batch. Targets: float32 at least 1.5 times the peer;
  bfloat16 at least 0.8 k times our float32, k how much faster matrix products are in bfloat16 in this run.
- MALA and HMC of BlackJAX on a Gaussian and on a logistic regression, in an environment of their own (`make peers`):
  seconds a bulk-effective sample and, below the table, effective samples a gradient.
- on a GPU: images a second of chains of 1,000 steps.

"of peak": floating-point operations that a latent gradient needs, weights' gradients left out, over those that a
matrix product of the same precision does in the same time in this run.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils import parametrize

from gebm.sampler import SamplerSettings, build_sampler, draw
from gebm.sampler.algorithm import value_and_gradient
from gebm.sampler.potential import latent_potential
from gebm.sampler.work import prepare
from gebm.trainer.model import GEBM, ModelSettings, build_model, freeze
from tests.benchmarks.against_blackjax import against_blackjax
from tests.benchmarks.harness import Record, machine, main, matrix_rate, timed
from tests.benchmarks.plain_networks import plain
from tests.benchmarks.reference_chains import (
    LatentPotential,
    adjusted_langevin_step,
    gradient,
    kinetic_step,
    langevin_step,
)

PEER = "reference's form, float32"
SHAPE, LATENT = (3, 32, 32), 100
BETA, STEP_SIZE, FRICTION = 1.0, 1e-3, 1.0
TOLERANCE = 1e-3  # of the gradient: the peer's convolutions add in another order

LATENT_GRADIENT = {"sngan_convnet": 1276, "sngan_resnet": 2689}
"""MFLOP an image, two a multiply-add."""


class Pair(NamedTuple):
    """The same networks twice: ours frozen, the peer's as they come out of training, in evaluation mode."""

    ours: GEBM
    peer: LatentPotential


def make_pair(network: str) -> Pair:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    settings = ModelSettings(network=network, latent_dimension=LATENT)
    # Made twice: a copy of a network shares the class whose spectral norm the other one folds.
    model, peer = (build_model(settings, SHAPE, seed=0).to(device).eval() for _ in range(2))
    return Pair(prepare(freeze(model)), LatentPotential(peer.base, plain(peer.energy_network), BETA))


def check_gradients(pair: Pair, chains: int = 4) -> None:
    """Raise when the two sides do not compute the same, or the peer is not what it should be."""
    latent = prior(chains)
    ours = value_and_gradient(latent_potential(pair.ours, BETA), latent)[1]
    theirs = gradient(pair.peer, latent)[1]
    if (ours - theirs).norm() > TOLERANCE * theirs.norm():
        raise AssertionError(f"our gradient is off by {float((ours - theirs).norm() / theirs.norm()):.1e}")
    if not all(weight.requires_grad for weight in pair.peer.parameters()):
        raise AssertionError("the peer's weights are frozen")
    if not any(parametrize.is_parametrized(module) for module in pair.peer.modules()):
        raise AssertionError("the peer's spectral norms are folded")


def prior(chains: int) -> Tensor:
    latent = torch.randn(chains, LATENT, generator=torch.Generator().manual_seed(0))
    return latent.to("cuda" if torch.cuda.is_available() else "cpu")


def our_step(pair: Pair, name: str, precision: str, chains: int) -> Callable[[], None]:
    """One step of our kernel after the other."""
    settings = SamplerSettings(
        name=name, precision=precision, inverse_temperature=BETA, step_size=STEP_SIZE, friction=FRICTION
    )
    algorithm = build_sampler(pair.ours, settings)
    latent = prior(chains)
    generator = torch.Generator(latent.device).manual_seed(0)
    state: Any = algorithm.init(latent, generator)

    def step() -> None:
        nonlocal state
        state, _ = algorithm.step(state, generator)

    return step


def peer_step(pair: Pair, name: str, chains: int) -> Callable[[], None]:
    """One step of the peer's kernel after the other."""
    latent = prior(chains)
    velocity = torch.randn_like(latent)

    def step() -> None:
        nonlocal latent, velocity
        if name == "ula":
            latent = langevin_step(pair.peer, latent, STEP_SIZE)
        elif name == "mala":
            latent = adjusted_langevin_step(pair.peer, latent, STEP_SIZE)
        else:
            latent, velocity = kinetic_step(pair.peer, latent, velocity, STEP_SIZE, FRICTION)

    return step


def in_turns(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median seconds of each, called one after the other, after one call each that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            taken = timed(work)
            if repeat:
                seconds[name].append(taken)
    return {name: statistics.median(values) for name, values in seconds.items()}


def steps_of(network: str, name: str, chains: int, rates: dict[str, float], repeats: int) -> Iterable[Record]:
    """A kernel in both precisions beside the peer, and ours in bfloat16 beside ours in float32."""
    pair, here = make_pair(network), machine()
    works = {precision: our_step(pair, name, precision, chains) for precision in rates}
    seconds = in_turns({**works, "peer": peer_step(pair, name, chains)}, repeats)
    case = f"{network} {name} x{chains}"
    print(f"{case}: steps a second " + ", ".join(f"{side} {1 / taken:.3g}" for side, taken in seconds.items()))
    work = LATENT_GRADIENT[network] * 1e6 * chains
    shares = {precision: work / seconds[precision] / rate for precision, rate in rates.items()}
    for precision, share in shares.items():
        yield Record(f"{case} {precision}", seconds[precision], PEER, seconds["peer"], share, here)
    both = seconds["bfloat16"], "ours, float32", seconds["float32"]
    yield Record(f"{case} bfloat16", *both, shares["bfloat16"], here)


def whole_chains(network: str, rates: dict[str, float], chains: int = 500, steps: int = 1000) -> Iterable[Record]:
    """Images of chains of 1,000 steps, first to last: on a GPU only, a CPU would take half an hour."""
    pair, here = make_pair(network), machine()
    for precision, rate in rates.items():
        settings = SamplerSettings(name="ula", step_size=STEP_SIZE, steps=steps, chains=chains, precision=precision)
        taken = timed(lambda s=settings: draw(pair.ours, chains, s))
        print(f"{network} {precision}: {chains / taken:.3g} images a second of chains of {steps} steps")
        share = LATENT_GRADIENT[network] * 1e6 * chains * steps / taken / rate
        yield Record(f"{network} {precision}: {chains} chains of {steps} steps", taken, None, None, share, here)


def measure(quick: bool) -> list[Record]:
    rates = {name: matrix_rate(getattr(torch, name), seconds=0.2 if quick else 2.0) for name in ("float32", "bfloat16")}
    k = rates["bfloat16"] / rates["float32"]
    print(
        "matrix products: "
        + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
        + f"; k = {k:.2f}, so bfloat16 is to be {0.8 * k:.2f} times float32"
    )
    lines: list[Record] = []
    for network in ("sngan_convnet",) if quick else LATENT_GRADIENT:
        check_gradients(make_pair(network))
        for chains in (4,) if quick else (100, 500):
            lines += steps_of(network, "ula", chains, rates, repeats=1 if quick else 3)
    for name in () if quick else ("kla", "mala"):
        lines += steps_of("sngan_convnet", name, 100, rates, repeats=3)
    if torch.cuda.is_available():
        for network in LATENT_GRADIENT:
            lines += whole_chains(network, rates)
    return [*lines, *against_blackjax(quick)]


if __name__ == "__main__":
    main("Steps of chains", measure)
