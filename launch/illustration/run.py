"""The illustration: every case is a run of its own, and one page shows them all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

from gebm.cluster import storage
from gebm.cluster.connect import connection
from gebm.launch import stages
from gebm.launch.config import Recipe, load_recipe
from gebm.launch.illustration.cases import CASES, NUMBERS, PAGE, Case
from gebm.launch.illustration.measure import measure
from gebm.launch.illustration.page import illustration_page
from gebm.launch.illustration.pictures import case_picture
from gebm.launch.progress import Display
from gebm.launch.run_directory import claimed_run


def run_illustration(
    out: str,
    display: Display,
    overrides: Sequence[str] = (),
    *,
    cases: Sequence[Case] = CASES,
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    address: str | None = None,
) -> str:
    """Train every case in a folder of `out`, on one Ray connection, and write a picture of each and the page.

    `overrides` (`"seed=1"`) are laid over the recipe of every case. One worker unless told otherwise: the points are
    small. What is trained already is not trained again. Returns the URL of the page, `out/illustration.html`; the
    numbers on it are in `out/illustration.json`.

    Raises `InputError` when a folder belongs to other settings, or the settings cannot be run.
    """
    out = storage.absolute(out)
    recipes = {case: load_recipe(case.recipe, overrides) for case in cases}
    for case, recipe in recipes.items():
        stages.check_input(storage.join(out, case.name), recipe)
    with ExitStack() as stack:
        if not all(stages.is_trained(storage.join(out, case.name)) for case in cases):
            with display.stage("ray"):
                stack.enter_context(connection(address))
        for case, recipe in recipes.items():
            _train(storage.join(out, case.name), case, recipe, display, workers or 1, gpus_per_worker)
    with display.stage("pictures"):
        measured = [(case, measure(storage.join(out, case.name), recipe)) for case, recipe in recipes.items()]
        for case, measurement in measured:
            storage.write_bytes_atomic(storage.join(out, f"{case.name}.png"), case_picture(case, measurement))
        numbers = {case.name: measurement.numbers() for case, measurement in measured}
        storage.write_json_atomic(storage.join(out, NUMBERS), numbers)
        storage.write_bytes_atomic(storage.join(out, PAGE), illustration_page(measured, out).encode())
    return storage.join(out, PAGE)


def _train(run: str, case: Case, recipe: Recipe, display: Display, workers: int, gpus_per_worker: float | None) -> None:
    with claimed_run(run, recipe):
        if stages.has_data(run, recipe) and stages.is_trained(run):
            display.note(f"{case.name}: trained before")
            return
        with display.stage(case.name) as report:
            stages.prepare_data(run, recipe, report)
            stages.train_model(run, recipe, report, workers=workers, gpus_per_worker=gpus_per_worker)
