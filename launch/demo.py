"""The whole experiment in one run directory: data, training, tuning, sampling, evaluation, report.

Every stage is the function that the command of the same name runs, on one Ray connection. A stage whose files
are finished is passed over, so the same call goes on after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import dropwhile
from typing import NamedTuple

from gebm.cluster import storage
from gebm.cluster.connect import connection
from gebm.launch import stages
from gebm.launch.config import Recipe
from gebm.launch.likelihood import RESULT as LIKELIHOOD
from gebm.launch.progress import Display, Report
from gebm.launch.run_directory import (
    BASE_SAMPLES,
    EVALUATION,
    MODEL_SAMPLES,
    REPORT,
    SUMMARY,
    claimed_run,
    data_url,
)
from gebm.launch.timings import read_timings, timed


class Stage(NamedTuple):
    """A stage of the demo: its name in `timings.json`, its work, and whether its files are finished."""

    name: str
    work: Callable[[Report], object]
    finished: Callable[[], bool]


def run_demo(
    recipe: Recipe,
    out: str,
    display: Display,
    *,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    actors: int | None = None,
    address: str | None = None,
) -> str:
    """Run every stage that is not finished in `out`; returns the absolute URL of the run.

    Raises `InputError` when `out` belongs to another recipe or the recipe cannot be run.
    """
    stages.check_input(out, recipe)
    with claimed_run(out, recipe) as run:
        todo = _stages(run, recipe, workers=workers, gpus_per_worker=gpus_per_worker, actors=actors)
        # What comes after a stage that runs is run too: it knows by itself what still holds.
        pending = list(dropwhile(lambda stage: stage.finished(), todo))
        for stage in todo[: len(todo) - len(pending)]:
            display.note(f"{stage.name}: finished before")
        if pending:
            with ExitStack() as stack:
                with display.stage("ray"), timed(run, "ray"):
                    stack.enter_context(connection(address))
                for stage in pending:
                    with display.stage(stage.name) as report, timed(run, stage.name):
                        stage.work(report)
            _publish_seconds(run)
    return run


def _stages(
    run: str, recipe: Recipe, *, workers: int | None, gpus_per_worker: float | None, actors: int | None
) -> list[Stage]:
    base, model = storage.join(run, BASE_SAMPLES), storage.join(run, MODEL_SAMPLES)
    validation, test = data_url(run, recipe, "validation"), data_url(run, recipe, "test")

    def draw(output: str, name: str | None) -> Callable[[Report], object]:
        return lambda report: stages.draw_samples(
            storage.join(run, "model"),
            output,
            stages.sampler_of(run, recipe, name),
            report,
            count=recipe.sample_count,
            seed=recipe.seed,
            actors=actors,
        )

    todo = [
        Stage(
            "data",
            lambda report: stages.prepare_data(run, recipe, report),
            lambda: stages.has_data(run, recipe),
        ),
        Stage(
            "train",
            lambda report: stages.train_model(run, recipe, report, workers=workers, gpus_per_worker=gpus_per_worker),
            lambda: stages.is_trained(run),
        ),
        Stage(
            "tune",
            lambda report: stages.tune_sampler(run, recipe, report, validation=validation, actors=actors),
            lambda: stages.is_tuned(run),
        ),
        Stage("sample base", draw(base, "base"), lambda: stages.is_sampled(base)),
        Stage("sample model", draw(model, None), lambda: stages.is_sampled(model)),
        Stage(
            "evaluate",
            lambda report: stages.evaluate_samples(
                model,
                test,
                base,
                recipe.evaluation,
                report,
                digits=stages.digits_of_run(run, recipe),
                seed=recipe.seed,
                out=storage.join(run, EVALUATION),
                cache=stages.features_cache(run),
                actors=actors,
            ),
            lambda: stages.is_evaluated(run, model, test, base, recipe),
        ),
        Stage(
            "report",
            lambda report: stages.write_report(run, report),
            lambda: all(storage.exists(storage.join(run, name)) for name in (REPORT, SUMMARY)),
        ),
    ]
    if stages.held_out_split(recipe) is not None:
        likelihood = Stage(
            "likelihood",
            lambda report: stages.report_likelihood(run, recipe),
            lambda: storage.exists(storage.join(run, LIKELIHOOD)),
        )
        todo.insert(2, likelihood)  # behind training
    return todo


def _publish_seconds(run: str) -> None:
    """Add to `summary.json` the seconds of the last stage, which wrote it."""
    location = storage.join(run, SUMMARY)
    summary = storage.read_json(location)
    storage.write_json_atomic(location, {**summary, "seconds": read_timings(run)})
