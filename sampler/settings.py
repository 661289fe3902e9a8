"""How to draw samples from a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, Self, get_args

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gebm.cluster.settings import StrictModel

SamplerName = Literal["base", "ula", "ddls", "mala", "hmc", "kla", "rwmh", "imh", "dot", "sir"]
SAMPLER_NAMES: tuple[str, ...] = get_args(SamplerName)

MOVING = frozenset({"ula", "mala", "hmc", "kla", "rwmh"})
"""Kernels of a potential that move by a step size."""
STEPPING = MOVING | {"ddls", "dot"}
"""All that have a step size."""
TUNABLE = frozenset({"mala", "hmc", "rwmh"})
"""Those of `MOVING` with an acceptance step: exact at any step size."""


class ScheduleSettings(StrictModel):
    """The step size as a function of the number `n` of the step, from 0; see `schedule.py`.

    constant. stepwise: times `factor` after each `every` steps. polynomial: times `(1 + n / offset)^-power`.
    """

    shape: Literal["constant", "stepwise", "polynomial"] = "constant"
    factor: float = Field(default=0.1, gt=0, le=1)
    every: PositiveInt = 200
    offset: PositiveFloat = 100.0
    power: PositiveFloat = 0.5


class AnnealSettings(StrictModel):
    """The inverse temperature from `start` to that of the sampler, over the first `steps` steps."""

    start: PositiveFloat
    steps: PositiveInt
    shape: Literal["linear", "geometric"] = "geometric"


class TemperingSettings(StrictModel):
    """Replicas of each chain at `rungs` inverse temperatures, in equal ratios from the sampler's down to `hottest`."""

    rungs: int = Field(default=4, ge=2)
    hottest: PositiveFloat


class SamplerSettings(StrictModel):
    """The transition kernel and how its chains are laid out.

    name: the kernel; `base` draws from the generator alone and ignores everything from here to `leapfrog_steps`, `sir`
    resamples prior draws and ignores all of that but the inverse temperature.
    inverse_temperature: `beta` in `nu(z) ∝ eta(z) exp(-beta E(B(z)))`; of `ddls` that of the prior too; `dot` has none.
    step_size: `h` of ULA, MALA and random walk, `s` of DDLS, `eps` of HMC, `d` of KLA, the descent's step in DOT.
    steps: transitions from the prior to the sample.
    friction: of `kla`. leapfrog_steps: of `hmc`. draws_per_sample: of `sir`, prior draws for each sample.
    schedule: of the step size. anneal, tempering: of the inverse temperature.
    warmup: transitions before all others, whose draws are discarded, in which is chosen what follows from the chains
    themselves: target_acceptance: the step size, so that proposals are accepted so often; precondition: the scales of
    the coordinates. `step_size` is then where the search begins, and one of coordinates of unit variance.
    scale: scales of the coordinates, given.
    samples_per_chain, thin: so many samples are taken from a chain, the first after `steps` transitions, each other
    `thin` transitions after the one before.
    label: the class of every sample of a conditional model; without, labels are drawn uniformly over the classes.
    record_every: the energy of every chain is recorded each time that many transitions are done; without, about
        40 times a run, and every fourth transition at the most: a record costs up to half a gradient.
    chains: how many run as one batch: 50 to 100 suit a CPU core, a GPU wants hundreds. shard_size: images
    in a shard, the unit of work and of loss.
    precision: of the networks that give gradients; `bfloat16` leaves exact kernels exact: acceptance, and whatever is
        reported, is by float32 energies.
    compile: the steps by `torch.compile`: pays for small networks, of vectors say, not for convolutions on a CPU.
    cuda_graph: on a GPU, each step as one captured graph; give false for a foreign generator that it cannot hold.
    threads: CPU threads of the arithmetic. Results in float32 depend on `chains`, `shard_size` and `threads`,
    and on nothing else of how the work was spread.
    """

    name: SamplerName = "ula"
    inverse_temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    step_size: PositiveFloat = 0.01
    steps: NonNegativeInt = 100
    friction: PositiveFloat = 1.0
    leapfrog_steps: PositiveInt = 2
    draws_per_sample: PositiveInt = 100
    schedule: ScheduleSettings = ScheduleSettings()
    anneal: AnnealSettings | None = None
    tempering: TemperingSettings | None = None
    warmup: NonNegativeInt = 0
    target_acceptance: float | None = Field(default=None, gt=0, lt=1)
    precondition: bool = False
    scale: tuple[PositiveFloat, ...] | None = None
    samples_per_chain: PositiveInt = 1
    thin: PositiveInt = 10
    label: NonNegativeInt | None = None
    record_every: PositiveInt | None = None
    chains: PositiveInt = 50
    shard_size: PositiveInt = 250
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    cuda_graph: bool = True
    threads: PositiveInt = 1

    @property
    def transitions(self) -> int:
        """From the end of warm-up to the last sample of a chain."""
        return self.steps + self.thin * (self.samples_per_chain - 1)

    @property
    def record_interval(self) -> int:
        """Transitions from one record of the energies to the next."""
        return self.record_every or max(4, self.transitions // 40)

    def named(self, name: str) -> Self:
        """These settings for the sampler `name`: what only another one knows is left out.

        Layout, inverse temperature and sizes stay.
        """
        if name == self.name:
            return self
        own = {key: self.__class__.model_fields[key].default for key in _OF_ONE_SAMPLER}
        return self.model_copy(update={"name": name, **own})

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        for refused in _contradictions(self):
            raise ValueError(refused)
        return self


_OF_ONE_SAMPLER = (
    "schedule",
    "anneal",
    "tempering",
    "warmup",
    "target_acceptance",
    "precondition",
    "scale",
    "samples_per_chain",
)


def _contradictions(s: SamplerSettings) -> Iterator[str]:
    """A sentence for each pair of settings that do not go together."""

    def only(key: str, given: Any, names: frozenset[str], why: str) -> Iterator[str]:
        if given and s.name not in names:
            yield f"{key} with name = {s.name!r}: {why}; it is of {', '.join(sorted(names))}"

    changes = s.schedule.shape != "constant"
    yield from only("schedule", changes, STEPPING, "it has no step size")
    yield from only("target_acceptance", s.target_acceptance, TUNABLE, "it has no acceptance that a step size changes")
    yield from only("precondition", s.precondition, MOVING, "it has no coordinates to rescale")
    yield from only("scale", s.scale, MOVING, "it has no coordinates to rescale")
    yield from only("anneal", s.anneal, MOVING, "its target cannot be cooled")
    yield from only("tempering", s.tempering, TUNABLE, "replicas are exchanged exactly between exact kernels")
    yield from only("compile", s.compile, STEPPING, "it has no arithmetic to fuse")
    yield from only(
        "samples_per_chain > 1", s.samples_per_chain > 1, MOVING | {"ddls", "imh"}, "it has no chain to thin"
    )
    if s.name == "ddls" and s.inverse_temperature == 0:
        yield "inverse_temperature 0 with name = 'ddls': its noise would be infinite; give a positive one"
    adapts = s.target_acceptance is not None or s.precondition
    if s.warmup and not adapts:
        yield "warmup has nothing to choose: give target_acceptance or precondition, or more steps in its place"
    if adapts and not s.warmup:
        yield "target_acceptance and precondition are worked out in warm-up: give warmup, 200 steps say"
    if s.precondition and s.scale:
        yield "precondition measures the scales and scale gives them: leave out one of the two"
    if changes and s.target_acceptance:
        yield "target_acceptance chooses a step size and schedule changes it: leave out one of the two"
    if s.anneal and (s.warmup or s.tempering):
        yield f"anneal moves the temperature that {'warmup' if s.warmup else 'tempering'} needs at rest: leave out one"
    if s.anneal and s.anneal.start >= s.inverse_temperature:
        yield f"anneal.start {s.anneal.start:g} must be below inverse_temperature {s.inverse_temperature:g}, hotter"
    if s.anneal and s.anneal.steps > s.steps:
        yield f"anneal.steps {s.anneal.steps} is more than steps {s.steps}: the chains would end before they are cold"
    if s.tempering and s.tempering.hottest >= s.inverse_temperature:
        yield (
            f"tempering.hottest {s.tempering.hottest:g} is not below inverse_temperature {s.inverse_temperature:g}: "
            "hot chains have a small inverse temperature"
        )
