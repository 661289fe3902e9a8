"""How to draw samples from a trained model."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from gebm.cluster.settings import StrictModel

SamplerName = Literal["base", "ula", "mala", "hmc", "kla", "rwmh", "imh", "dot"]
SAMPLER_NAMES: tuple[str, ...] = get_args(SamplerName)


class SamplerSettings(StrictModel):
    """The transition kernel and how its chains are laid out.

    name: the kernel; `base` draws from the generator alone and ignores everything from here to `leapfrog_steps`.
    inverse_temperature: `beta` in `nu(z) ∝ eta(z) exp(-beta E(B(z)))`; `dot` has none.
    step_size: `h` of ULA, MALA and random walk, `eps` of HMC, `d` of KLA, the descent's step in DOT.
    steps: transitions from the prior to the sample.
    friction: of `kla`. leapfrog_steps: of `hmc`.
    label: the class of every sample of a conditional model; without, labels are drawn uniformly over the classes.
    record_every: the energy of every chain is recorded each time that many transitions are done; without, about
        40 times a run, and every fourth transition at the most: a record costs up to half a gradient.
    chains: how many run as one batch: 50 to 100 suit a CPU core, a GPU wants hundreds. shard_size: images
    in a shard, the unit of work and of loss.
    precision: of the networks that give gradients; `bfloat16` leaves exact kernels exact: acceptance, and whatever is
        reported, is by float32 energies.
    threads: CPU threads of the arithmetic. Results in float32 depend on `chains`, `shard_size` and `threads`,
    and on nothing else of how the work was spread.
    """

    name: SamplerName = "ula"
    inverse_temperature: float = Field(default=1.0, ge=0, allow_inf_nan=False)
    step_size: PositiveFloat = 0.01
    steps: NonNegativeInt = 100
    friction: PositiveFloat = 1.0
    leapfrog_steps: PositiveInt = 2
    label: NonNegativeInt | None = None
    record_every: PositiveInt | None = None
    chains: PositiveInt = 50
    shard_size: PositiveInt = 250
    precision: Literal["float32", "bfloat16"] = "float32"
    threads: PositiveInt = 1

    @property
    def record_interval(self) -> int:
        """Transitions from one record of the energies to the next."""
        return self.record_every or max(4, self.steps // 40)
