"""What a training run is configured by."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from gebm.cluster.settings import StrictModel
from gebm.trainer.model.settings import ModelSettings
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.schedules import Schedule
from gebm.trainer.watch.settings import WatchSettings

__all__ = ["BasePhase", "EnergyPhase", "JointPhase", "ModelSettings", "Phase", "TrainerSettings", "WatchSettings"]

Phase = Literal["base", "joint", "energy"]
Decay = Annotated[float, Field(ge=0.0, lt=1.0)]


class BasePhase(StrictModel):
    """The base alone, by maximum likelihood: for a base that has a density."""

    steps: NonNegativeInt = 0
    learning_rate: PositiveFloat = 1e-3
    schedule: Schedule = Schedule(shape="constant")
    base_average: Decay = 0.99  # of the base's exponential moving average


class JointPhase(StrictModel):
    """Generator and energy together: `energy_steps` energy steps for each base step."""

    steps: NonNegativeInt = 1200  # base steps
    energy_steps: PositiveInt = 2
    warmup_energy_steps: PositiveInt = 20  # instead of energy_steps, before each of the first warmup_steps
    warmup_steps: NonNegativeInt = 2
    warmup_every: NonNegativeInt = 0  # and again before every multiple of this base step; 0: never
    base_learning_rate: PositiveFloat = 1e-3
    energy_learning_rate: PositiveFloat = 1e-3
    base_schedule: Schedule = Schedule(shape="constant")  # over base steps, as energy_schedule
    energy_schedule: Schedule = Schedule(shape="constant")
    gradient_penalty: NonNegativeFloat | None = None  # absent: the objective's own, see objectives.table
    base_average: Decay = 0.99  # of the generator's exponential moving average


class EnergyPhase(StrictModel):
    """The energy alone, on the frozen averaged generator that is exported with it."""

    steps: NonNegativeInt = 400  # energy steps
    learning_rate: PositiveFloat = 1e-3
    schedule: Schedule = Schedule(shape="linear")
    gradient_penalty: NonNegativeFloat | None = None  # as in the joint phase
    energy_average: Decay = 0.995  # of the energy's exponential moving average
    chain_steps: NonNegativeInt = 0  # Langevin steps of the persistent chains before each energy step; 0: no chains
    chain_step_size: PositiveFloat = 0.01
    chain_inverse_temperature: PositiveFloat = 1.0  # that of the sampler, so that training sees what it will find


class ZeroSettings(StrictModel):
    """What workers share out of each network, by DeepSpeed ZeRO: 0 nothing, 1 the optimiser's memory, 2 gradients
    too, 3 weights too. Averages of the weights are whole on every worker."""

    base: Literal[0, 1, 2, 3] = 0
    energy: Literal[0, 1, 2, 3] = 0


class TrainerSettings(StrictModel):
    """A training run: base phase, joint phase, energy phase, each of which may have no steps, then the export."""

    objective: Literal[
        "kale",
        "donsker_varadhan",
        "wasserstein",
        "non_saturating",
        "kl",
        "reverse_kl",
        "pearson",
        "hellinger",
        "jensen_shannon",
        "mmd",
    ] = "kale"
    batch_size: PositiveInt = 64  # of all workers together
    lanes: PositiveInt = 64  # streams that the data is cut into, whatever the number of workers
    flip: bool = False  # mirror each image left to right with probability 1/2, anew each time: not for digits
    betas: tuple[Decay, Decay] = (0.5, 0.99)  # of Adam
    clip_norm: PositiveFloat | None = None  # largest norm of a network's gradient; absent: no limit
    transform_gradients: bool = False  # g -> 2g/(1+g^2) before Adam, as the public code of the paper
    # Of weights and arithmetic; bfloat16: networks compute in it, on float32 weights, losses and sums stay float32.
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"
    micro_batch: PositiveInt | None = None  # samples of a worker that go through the networks at once; absent: all
    compile: bool = False  # networks by torch.compile
    recompute_activations: bool = False  # of residual blocks, in the backward pass: less memory, a third more time
    zero: ZeroSettings = ZeroSettings()
    log_partition_rate: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    level_penalty: NonNegativeFloat = 1e-3  # times (mean E(y))^2: keeps the meaningless constant in E from drifting
    log_partition_draws: PositiveInt = 10_000  # prior draws of the exported log-partition
    witness_samples: PositiveInt = 1_000  # training and generated samples each, in the energy exported after mmd
    batch_norm_draws: PositiveInt = 2_000  # prior draws of the averaged generator's batch-norm statistics
    energy_limit: PositiveFloat = 1e3  # a mean of E + c beyond it, either way, counts as divergence
    rollbacks: NonNegativeInt = 2  # times that a run goes back to its last good checkpoint when it diverges ...
    rollback_factor: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.5  # ... with all learning rates times this
    log_every: PositiveInt = 10  # rounds (base steps; energy steps in the energy phase)
    checkpoint_every: PositiveInt = 100  # rounds
    keep_checkpoints: PositiveInt = 2  # the newest ones, to go on from
    keep_best: Literal["fid", "kid", "kale"] | None = None  # and the best of the last phase by this reading of watch
    export: Literal["last", "best"] = "last"  # the state that the model is made of: the last, or that of keep_best
    base: BasePhase = BasePhase()
    joint: JointPhase = JointPhase()
    energy: EnergyPhase = EnergyPhase()
    watch: WatchSettings = WatchSettings()
    callbacks: tuple[str, ...] = ()  # "package.module:function", called with every record of metrics

    def gradient_penalty(self, phase: Literal["joint", "energy"]) -> float:
        """The weight of the penalty in `phase`: the recipe's, or the objective's own where it names none."""
        given = self.joint.gradient_penalty if phase == "joint" else self.energy.gradient_penalty
        return getattr(OBJECTIVES[self.objective].penalty_weights, phase) if given is None else given

    @model_validator(mode="after")
    def _penalties_are_written_out(self) -> TrainerSettings:
        # Settings are shown, compared and kept as they are used. Past the frozen model: nobody has seen it yet.
        joint = self.joint.model_copy(update={"gradient_penalty": self.gradient_penalty("joint")})
        energy = self.energy.model_copy(update={"gradient_penalty": self.gradient_penalty("energy")})
        object.__setattr__(self, "joint", joint)
        object.__setattr__(self, "energy", energy)
        return self

    @model_validator(mode="after")
    def _checkpoints_follow_logs(self) -> TrainerSettings:
        if self.checkpoint_every % self.log_every:
            raise ValueError(
                f"checkpoint_every ({self.checkpoint_every}) must be a multiple of log_every ({self.log_every}): "
                "a checkpoint must not fall inside a line of metrics"
            )
        return self

    @model_validator(mode="after")
    def _readings_fall_on_lines(self) -> TrainerSettings:
        for key in ("every", "fid_every"):
            if (getattr(self.watch, key) or 0) % self.log_every:
                raise ValueError(
                    f"watch.{key} ({getattr(self.watch, key)}) must be a multiple of log_every ({self.log_every}): "
                    "readings stand in the lines of metrics"
                )
        return self

    @model_validator(mode="after")
    def _best_is_kept(self) -> TrainerSettings:
        if self.export == "best" and self.keep_best is None:
            raise ValueError('export = "best" needs keep_best: the reading ("fid", "kid" or "kale") that says which')
        key = "every" if self.keep_best == "kale" else "fid_every"
        if self.keep_best is not None and (getattr(self.watch, key) or 0) % self.checkpoint_every:
            raise ValueError(
                f"watch.{key} ({getattr(self.watch, key)}) must be a multiple of checkpoint_every "
                f"({self.checkpoint_every}) with keep_best: a reading is of use only where there is a checkpoint"
            )
        return self

    @model_validator(mode="after")
    def _something_to_train(self) -> TrainerSettings:
        if self.rounds == 0:
            raise ValueError("base.steps, joint.steps and energy.steps are all 0: give at least one of them steps")
        return self

    @model_validator(mode="after")
    def _chains_fit_the_objective(self) -> TrainerSettings:
        if self.energy.chain_steps and OBJECTIVES[self.objective].critic_loss_with_chains is None:
            able = [name for name, objective in OBJECTIVES.items() if objective.critic_loss_with_chains]
            raise ValueError(
                f"energy.chain_steps: objective {self.objective} cannot learn from chains; "
                f"set it to 0 or take one of {', '.join(able)}"
            )
        return self

    @property
    def rounds(self) -> int:
        """Rounds of all phases together."""
        return self.base.steps + self.joint.steps + self.energy.steps
