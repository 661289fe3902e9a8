"""All samplers against each other on one model: one target law, one budget of energy evaluations.

Each sampler's step size (friction, leapfrog steps) is chosen on validation images among candidates that spend the whole
budget; then each draws as many samples as there are test images, from the same prior draws, and all are compared with
the test images at once: the paper's table, with intervals.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.settings import StrictModel
from gebm.launch import stages
from gebm.launch.config import Recipe
from gebm.launch.farms import farm_report, plan_actors
from gebm.launch.progress import Display
from gebm.launch.run_directory import CONTEST, data_url
from gebm.launch.several import evaluate_models
from gebm.launch.tune import Grid, tune
from gebm.launch.tune_scores import choose, passed_over
from gebm.sampler.evaluations import steps_within
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model import model_digest
from gebm.trainer.model.export import find_model

FOLDER, TUNED = "contest", "contest/tune.json"
UNTUNED = "imh"
"""Proposes from the prior, and so has nothing to choose."""

Contestant = Literal["imh", "dot", "ddls", "ula", "mala", "hmc", "kla"]


class Contender(StrictModel):
    """What is tried of a sampler: every combination, each for the whole budget."""

    sampler: Contestant
    step_sizes: tuple[PositiveFloat, ...] = (0.01,)
    frictions: tuple[PositiveFloat, ...] = (1.0,)
    leapfrog_steps: tuple[PositiveInt, ...] = (2,)


class ContestSettings(StrictModel):
    """One target law and one budget for all.

    inverse_temperature: `beta` of the target `eta(z) exp(-beta E(B(z)))`; without, that of the run's sampler, tuned on
    validation images. Of `ddls` it is that of prior and energy together. evaluations: of the energy, for each sample.
    tune_count: images of a candidate; without, the recipe's `tune.count`. A step `h` of ULA goes as far as `s = beta h`
    of DDLS, `d = sqrt(2h)` of KLA and `eps = sqrt(2h)` of HMC.
    """

    evaluations: PositiveInt = 100
    inverse_temperature: NonNegativeFloat | None = None
    tune_count: int | None = Field(default=None, ge=40)
    contenders: tuple[Contender, ...] = Field(
        default=(
            Contender(sampler="imh"),
            Contender(sampler="dot", step_sizes=(0.3, 1.0, 3.0)),
            Contender(sampler="ddls", step_sizes=(0.01, 0.02, 0.04)),
            Contender(sampler="ula", step_sizes=(0.005, 0.01, 0.02)),
            Contender(sampler="mala", step_sizes=(0.0025, 0.005, 0.01)),
            Contender(sampler="hmc", step_sizes=(0.05, 0.1), leapfrog_steps=(3, 9)),
            Contender(sampler="kla", step_sizes=(0.06, 0.12), frictions=(1.0, 10.0)),
        ),
        min_length=1,
    )


def hold_contest(
    run: str,
    recipe: Recipe,
    settings: ContestSettings,
    display: Display,
    *,
    count: int,
    allow_unequal_sizes: bool = False,
    actors: int | None = None,
) -> dict[str, Any]:
    """Tune, sample and evaluate; write `RUN/contest.json` and return it. Ray must be connected.

    The result is that of `evaluate_models` with one model a sampler, and `inverse_temperature`, `energy_evaluations`,
    `model` (digest of the weights), `tuning` (for each sampler how many candidates there were, and of the chosen one
    `fid_ratio` and its interval on validation images) and `left_out`: a sentence for each candidate without a score.
    Finished parts are not done again; an interrupted one goes on.
    Raises `InputError` when the run has no model, a sampler comes twice or cannot make a step within the budget, or
    `count` is not the number of test images and unequal sizes are not allowed.
    """
    run = storage.absolute(run)
    test = data_url(run, recipe, "test")
    there = load_index(test).total
    if count != there and not allow_unequal_sizes:
        raise InputError(
            f"--count {count}: {test} has {there} images, and FID depends on the number; give {there}, or --unequal"
        )
    law = target_law(run, recipe, settings)
    # Nothing of the recipe's own sampler but how chains are laid out.
    layout = recipe.sampler.named("base").model_copy(update={"compile": False})
    tuning, chosen, left_out = _tune(run, recipe, settings, layout, law, display, actors)
    model, seed = find_model(run), recipe.seed
    urls = {}
    for sampler in (layout, *chosen):
        urls[sampler.name] = storage.join(run, FOLDER, _folder(sampler, model_digest(run), count, seed))
        with display.stage(f"sample {sampler.name}") as report:
            stages.draw_samples(model, urls[sampler.name], sampler, report, count=count, seed=seed, actors=actors)
    measured = recipe.evaluation.model_copy(update={"tests": ("relative",), "allow_unequal_sizes": allow_unequal_sizes})
    base = urls.pop("base")
    with display.stage("evaluate") as report:
        result = evaluate_models(
            list(urls.values()),
            test,
            base,
            measured,
            report,
            digits=stages.digits_of_run(run, recipe),
            seed=seed,
            out=storage.join(run, FOLDER, "evaluation.json"),
            cache=stages.features_cache(run),
            actors=actors,
        )
    result = {
        "format_version": 1,
        "model": model_digest(run),
        "inverse_temperature": law,
        "energy_evaluations": settings.evaluations,
        "tuning": tuning,
        "left_out": left_out,
        **result,
    }
    storage.write_json_atomic(storage.join(run, CONTEST), result)
    return result


def target_law(run: str, recipe: Recipe, settings: ContestSettings) -> float:
    """The inverse temperature of all: the settings', else that of the run's own sampler, tuned if it was."""
    if settings.inverse_temperature is not None:
        return settings.inverse_temperature
    return stages.sampler_of(run, recipe).inverse_temperature


def _tune(
    run: str,
    recipe: Recipe,
    settings: ContestSettings,
    layout: SamplerSettings,
    law: float,
    display: Display,
    actors: int | None,
) -> tuple[dict[str, Any], list[SamplerSettings], list[str]]:
    """What `hold_contest` calls `tuning`, the chosen settings in the order of the contenders, and `left_out`."""
    names = [contender.sampler for contender in settings.contenders]
    if len(set(names)) < len(names):
        raise InputError(f"contest.contenders: {', '.join(names)}: name each sampler once")
    grids = tuple(grid for each in settings.contenders for grid in grids_of(each, law, settings.evaluations))
    found: dict[str, Any] = {"tried": []}
    if grids:
        staff = plan_actors(actors)
        count = recipe.tune.count if settings.tune_count is None else settings.tune_count
        with display.stage("tune") as report:
            found = tune(
                run,
                data_url(run, recipe, "validation"),
                recipe.tune.model_copy(update={"grids": grids, "count": count, "criterion": "fid"}),
                sampler=layout,
                extractor=recipe.evaluation.extractor,
                seed=recipe.seed,
                actors=staff.count,
                gpus_per_actor=staff.gpus,
                progress=farm_report(report, "candidates"),
                result_name=TUNED,
            )
    untuned = layout.named(UNTUNED).model_copy(update={"inverse_temperature": law})
    untuned = untuned.model_copy(update={"steps": steps_within(untuned, settings.evaluations)})
    tuning: dict[str, Any] = {}
    chosen: list[SamplerSettings] = []
    for name in names:
        if name == UNTUNED:
            chosen.append(untuned)
        elif (best := best_of(name, found["tried"])) is not None:
            tuning[name], sampler = best
            chosen.append(sampler)
    return tuning, chosen, passed_over(found["tried"])


def best_of(name: str, tried: Sequence[dict[str, Any]]) -> tuple[dict[str, Any], SamplerSettings] | None:
    """Of a sampler's rows in tuning what they were and the best one's settings; None where none has a score."""
    rows = [row for row in tried if row["sampler"]["name"] == name]
    if all(row["failure"] for row in rows):
        return None
    best = choose(rows, "fid")["chosen"]
    row = next(row for row in rows if row["sampler"] == best)
    told = {key: row[key] for key in ("fid_ratio", "fid_ratio_interval")}
    return {"candidates": len(rows), **told}, SamplerSettings.model_validate(best)


def grids_of(contender: Contender, law: float, evaluations: int) -> Iterator[Grid]:
    """The candidates of a sampler, each with as many transitions as the budget allows; none where there is no choice.

    Raises `InputError` when the budget is less than one transition.
    """
    if contender.sampler == UNTUNED:
        return
    lengths = contender.leapfrog_steps if contender.sampler == "hmc" else (2,)
    for leapfrog_steps in lengths:
        try:
            steps = steps_within(SamplerSettings(name=contender.sampler, leapfrog_steps=leapfrog_steps), evaluations)
        except ValueError as error:
            raise InputError(f"contest.evaluations: {error}; give more") from error
        yield Grid(
            sampler=contender.sampler,
            inverse_temperatures=(law,),
            step_sizes=contender.step_sizes,
            frictions=contender.frictions if contender.sampler == "kla" else (1.0,),
            leapfrog_steps=(leapfrog_steps,),
            steps=(steps,),
        )


def _folder(sampler: SamplerSettings, model: str, count: int, seed: int) -> str:
    """`ula-0123456789ab`: samples of other settings lie beside, and never in, those of these."""
    drawn = [sampler.model_dump(mode="json"), model, count, seed]
    return f"{sampler.name}-{hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:12]}"
