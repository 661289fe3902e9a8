"""Going on from a checkpoint, going back to one, exporting one: where states come from, and where they are kept."""

from __future__ import annotations

from typing import Any

from gebm.cluster.errors import InputError
from gebm.trainer.checkpoints.manifest import CheckpointRecord
from gebm.trainer.checkpoints.saver import Found, Saver
from gebm.trainer.guard import Rollback, TrainingDivergedError
from gebm.trainer.kit import Kit
from gebm.trainer.learning_rates import READINGS
from gebm.trainer.phases import last_phase
from gebm.trainer.settings import Phase, TrainerSettings
from gebm.trainer.state import TrainingState, initial_state

Line = dict[str, Any]
"""A line of metrics that is not finished: `Window.as_dict`."""


def newest_state(kit: Kit) -> tuple[TrainingState, Line | None]:
    """The state of the newest checkpoint and the line of metrics that it is in, or that of round 0."""
    job, index = kit.job, kit.reader.index
    state = initial_state(job.model, job.settings, index.image_shape, job.seed, kit.workers, index.classes)
    found = kit.saver.newest()
    if found is None:
        return state, None
    _load(state, found)
    return state, found.content["line"]


def roll_back(kit: Kit, state: TrainingState, error: TrainingDivergedError) -> tuple[TrainingState, Line | None]:
    """The state of the last good checkpoint with lower learning rates, itself a checkpoint, so that it is remembered.

    Raises `error` when the run has rolled back as often as it may.
    """
    if len(state.rollbacks) >= kit.job.settings.rollbacks:
        raise error
    earlier = state.rollbacks
    state, line = newest_state(kit)
    # Those of the diverged state: the checkpoint may be older than some of them.
    state.rollbacks = (*earlier, Rollback(error.round_number, state.round, error.reason))
    save_state(kit.saver, state, line)
    kit.saver.wait()
    return state, line


def save_state(saver: Saver, state: TrainingState, line: Line | None, reading: float | None = None) -> None:
    """Make `state` a checkpoint, with the line of metrics that it is in the middle of, or None.

    `reading` is that of `trainer.keep_best`, where one was taken of this state.
    """
    content = {"state": state.as_dict(), "line": line}
    saver.save(content, round_number=state.round, rollbacks=len(state.rollbacks), reading=reading)


def reading_of(settings: TrainerSettings, phase: Phase, values: dict[str, float]) -> float | None:
    """What `trainer.keep_best` reads in `values`. Only the last phase counts: it ends in the model."""
    if settings.keep_best is None or phase != last_phase(settings):
        return None
    return values.get(READINGS[settings.keep_best])


def load_best(kit: Kit, state: TrainingState) -> CheckpointRecord:
    """Bring `state` to the checkpoint with the best reading of `trainer.keep_best`."""
    found = kit.saver.best()
    _load(state, found)
    return found.record


def _load(state: TrainingState, found: Found) -> None:
    """Bring `state` to a checkpoint. Raises `InputError` when that belongs to another architecture."""
    try:
        state.load_dict(found.content["state"])
    except (KeyError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{found.url}: a checkpoint of another architecture ({reason}); "
            "give another --out or the recipe's own [model]"
        ) from error
