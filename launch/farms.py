"""The farms of the stages: how they are staffed, and how they say that they get on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.cluster.resources import count_cpus, count_gpus
from gebm.launch.progress import Report


@dataclass(frozen=True)
class Actors:
    """How a farm is staffed."""

    count: int
    gpus: float
    """GPUs of each actor."""


def plan_actors(actors: int | None, gpus_per_actor: float | None = None) -> Actors:
    """One actor for each GPU of the connected cluster or, without GPUs, each CPU; or as many as asked for.

    More actors than GPUs share them. gpus_per_actor: the share of a GPU that each has, 0 for CPUs alone; without a
    number of actors, as many as find room on the GPUs. Raises `InputError` for fewer than one actor, for a share that
    is not in 0 to 1, and for one of no GPUs.
    """
    if actors is not None and actors < 1:
        raise InputError(f"--actors {actors}: give at least 1")
    gpus = count_gpus()
    if gpus_per_actor is None:
        if not gpus:
            return Actors(actors or max(1, count_cpus()), 0)
        count = actors or gpus
        return Actors(count, min(1.0, gpus / count))
    if not 0 <= gpus_per_actor <= 1:
        raise InputError(f"--gpus-per-actor {gpus_per_actor:g}: an actor uses one GPU; give a share from 0 to 1")
    if gpus_per_actor == 0:
        return Actors(actors or max(1, count_cpus()), 0)
    if not gpus:
        raise InputError(
            f"--gpus-per-actor {gpus_per_actor:g}: the cluster has no GPU; give 0, or leave the option out"
        )
    return Actors(actors or gpus * int(1 / gpus_per_actor + 1e-9), gpus_per_actor)


def farm_report(report: Report, unit: str, total: int = 0) -> Callable[[FarmProgress], None]:
    """A farm's progress as a stage's: in units (samples) when their total is known, else in work items."""

    def tell(progress: FarmProgress) -> None:
        workers = len(progress.actor_pids)
        words = [unit, f"{workers} actor{'' if workers == 1 else 's'}"]
        if total:
            words.insert(1, f"{progress.rate:,.1f} a second")
        if progress.seconds_left:
            words.append(f"{time_words(progress.seconds_left)} left")
        if progress.retried:
            words.append(f"{progress.retried} tried again")
        if progress.failed:
            words.append(f"{progress.failed} failed")
        done, of = (progress.units_done, total) if total else (progress.done, progress.total)
        report(done, of, "  ".join(words))

    return tell


def time_words(seconds: float) -> str:
    """`about 40 s`, `about 12 min`, `about 5 h`: as much as an estimate knows."""
    if seconds < 90:
        return f"about {max(1, round(seconds))} s"
    minutes = seconds / 60
    return f"about {round(minutes)} min" if minutes < 90 else f"about {minutes / 60:.3g} h"
