"""What would make every worker fail later is refused before anything starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gebm.cluster.errors import InputError
from gebm.cluster.index import ShardIndex, load_index
from gebm.cluster.lanes import LaneReader
from gebm.trainer.callbacks import import_callback
from gebm.trainer.learning_rates import rates_of_phase
from gebm.trainer.model import GEBM, build_model
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.phases import last_phase
from gebm.trainer.settings import Phase
from gebm.trainer.speed import RECOMPUTED
from gebm.trainer.strategies.zero import why_no_shards

if TYPE_CHECKING:
    from gebm.trainer.job import TrainingJob

PHASES: tuple[Phase, ...] = ("base", "joint", "energy")


def check_job(job: TrainingJob, index: ShardIndex, workers: int, gpus_per_worker: float = 0.0) -> None:
    """Raise `InputError` for a job on the data of `index` that cannot work, naming the field."""
    model = build_model(job.model, index.image_shape, index.classes)
    if job.settings.flip and index.holds_vectors:
        raise InputError(
            f"trainer.flip = true mirrors images, and {job.data} holds vectors of {index.image_shape[0]} numbers; "
            "set it to false"
        )
    _check_phases(job, model)
    _check_validation(job, index)
    _check_watching(job, model)
    _check_strategy(job, model, gpus_per_worker)
    for path in job.settings.callbacks:
        import_callback(path)
    LaneReader(
        job.data, seed=job.seed, batch_size=job.settings.batch_size, lanes=job.settings.lanes, world=workers
    ).close()


def _check_phases(job: TrainingJob, model: GEBM) -> None:
    settings = job.settings
    if settings.base.steps and not model.has_density:
        raise InputError(
            f"trainer.base.steps = {settings.base.steps}: maximum likelihood needs a base with a density; "
            'set it to 0, or model.base = "realnvp"'
        )
    if settings.joint.steps and not any(True for _ in model.base.parameters()):
        raise InputError(
            f"trainer.joint.steps = {settings.joint.steps}: the base has no weights to train; set it to 0, which "
            "trains the energy alone"
        )
    if OBJECTIVES[settings.objective].reads == "features" and not hasattr(model.energy_network, "features"):
        raise InputError(
            f"trainer.objective = {settings.objective!r} compares features, and model.network = "
            f"{job.model.network!r} has none; choose another of the two"
        )


def _check_strategy(job: TrainingJob, model: GEBM, gpus_per_worker: float) -> None:
    settings = job.settings
    if reason := why_no_shards(settings, model.energy_network, gpus_per_worker):
        raise InputError(reason)
    if settings.recompute_activations and not any(type(module) in RECOMPUTED for module in model.modules()):
        raise InputError(
            f"trainer.recompute_activations = true: model.network = {job.model.network!r} has no residual blocks; "
            "set it to false (trainer.micro_batch saves memory with any network), or take sngan_resnet"
        )
    if settings.micro_batch and OBJECTIVES[settings.objective].reads == "features":
        raise InputError(
            f"trainer.micro_batch: objective {settings.objective} compares the features of whole batches; leave it out"
        )


def _check_validation(job: TrainingJob, index: ShardIndex) -> None:
    if job.validation is None:
        return
    validation = load_index(job.validation)
    if validation.image_shape != index.image_shape:
        raise InputError(
            f"{job.validation}: its samples have the shape {validation.image_shape}, those of {job.data} "
            f"{index.image_shape}; give a validation set of the same kind"
        )
    if job.model.conditional and (validation.classes is None or validation.classes > (index.classes or 0)):
        raise InputError(
            f"{job.validation}: model.conditional = true needs its labels, of the {index.classes} classes of "
            f"{job.data}; it has {validation.classes or 'none'}"
        )


def _check_watching(job: TrainingJob, model: GEBM) -> None:
    watch = job.settings.watch
    if watch.fid_every:
        if job.validation is None:
            raise InputError("trainer.watch.fid_every: FID is taken on validation samples; give them, or set it to 0")
        from gebm.evaluation.extractors import make_extractor

        make_extractor(watch.extractor, "cpu", model.image_shape)
    for phase in PHASES:
        for network, (_, schedule) in rates_of_phase(phase, job.settings).items():
            if schedule.shape == "plateau" and getattr(job.settings, phase).steps:
                key = f"trainer.{phase}.{network}_schedule" if phase == "joint" else f"trainer.{phase}.schedule"
                _check_reading(job, f"{key}: a plateau schedule", phase, schedule.metric)
    if (best := job.settings.keep_best) is not None:
        phase = last_phase(job.settings)
        if best == "kale" and phase != "energy":
            raise InputError(
                "trainer.keep_best: KALE tells which of two energies is better on one base, and there is no energy "
                'phase, where the base stands still; say keep_best = "fid" or "kid"'
            )
        _check_reading(job, "trainer.keep_best: it", phase, best)


def _check_reading(job: TrainingJob, reader: str, phase: Phase, metric: str) -> None:
    """What is read in a phase must be taken there. `reader` begins the message: the field, and who reads."""
    watch = job.settings.watch
    if job.validation is None:
        raise InputError(f"{reader} reads {metric} on validation samples; give them")
    if metric in ("fid", "kid"):
        if not watch.fid_every:
            raise InputError(f"{reader} reads {metric}, which needs trainer.watch.fid_every above 0")
        if phase == "energy" and not watch.fid_chain_steps:
            raise InputError(
                f"{reader} reads {metric}, but in the energy phase the base stands still, and its {metric} with it; "
                "take that of the model by trainer.watch.fid_chain_steps above 0, or read kale"
            )
    elif phase == "base":
        raise InputError(f"{reader} reads kale, but there is no energy in the base phase; read fid or kid")
    elif watch.every == 0:
        raise InputError(f"{reader} reads kale, which is not taken with trainer.watch.every = 0; raise it, or read fid")
