"""Choosing the sampler's settings on validation images, never on the test images.

Every chain of a grid is run on the farm and scored at several lengths: the FID of its images against the
validation images, and the energy gap `E(samples) - E(validation)`, which is 0 when the chain has come down to
where the data is. All chains start from the same prior draws as the base that they are compared with.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, WorkItem, run_farm
from gebm.cluster.index import index_digest, load_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.settings import StrictModel
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.features import extract_features
from gebm.launch.tune_scores import BASE, choose, score
from gebm.sampler.settings import SamplerSettings

FORMAT_VERSION = 2
RESULT, FOLDER = "tune.json", "tune"


class Grid(StrictModel):
    """Every combination of the values is one chain, run to the longest of `steps` and scored at each of them."""

    sampler: Literal["ula", "ddls", "mala", "hmc", "kla", "rwmh", "imh", "dot"]
    inverse_temperatures: tuple[NonNegativeFloat, ...] = Field(default=(1.0,), min_length=1)
    step_sizes: tuple[PositiveFloat, ...] = Field(min_length=1)
    frictions: tuple[PositiveFloat, ...] = Field(default=(1.0,), min_length=1)
    """Of `kla`."""
    leapfrog_steps: tuple[PositiveInt, ...] = Field(default=(2,), min_length=1)
    """Of `hmc`."""
    steps: tuple[PositiveInt, ...] = Field(default=(50, 100), min_length=1)


class TuneSettings(StrictModel):
    """What is tried and how it is scored."""

    grids: tuple[Grid, ...] = Field(
        default=(
            Grid(sampler="ula", inverse_temperatures=(2.0, 3.0), step_sizes=(0.01, 0.02)),
            Grid(sampler="kla", inverse_temperatures=(2.0, 3.0), step_sizes=(0.06,)),
        ),
        min_length=1,
    )
    count: int = Field(default=250, ge=40)
    """Chains a candidate: images whose FID is taken. All candidates have the same number."""
    validation_count: PositiveInt | None = None
    """Only the first so many validation images; all of them without."""
    extractor: ExtractorSettings | None = None
    """Features of the score; those of the evaluation without. A smaller input size is faster."""
    criterion: Literal["fid", "energy_gap"] = "fid"
    """What is smallest for the chosen settings: the FID, or the distance of the energy gap from 0."""
    groups: int = Field(default=10, ge=2, le=20)
    """Of the jackknife that says whether a candidate is better than the base."""


def tune(
    run: str,
    validation: str,
    settings: TuneSettings,
    *,
    sampler: SamplerSettings,
    extractor: ExtractorSettings,
    seed: int,
    actors: int,
    gpus_per_actor: float = 0,
    progress: Callable[[FarmProgress], None] | None = None,
    result_name: str = RESULT,
) -> dict[str, Any]:
    """Try every candidate on the model of `run`, write `RUN/tune.json` and return it; Ray must be connected.

    sampler: what is not tuned (chains, threads, shard size). extractor: used when the settings name none.
    result_name: of the file in the run.

    The result holds `chosen` (`SamplerSettings`), `improves` (whether it is better than the base, see
    `choose`), `tried` (a row for each candidate and length: `sampler`, `fid`, `fid_ratio` over the base on
    the same latents, `fid_ratio_interval`, `improves`, `energy`, `energy_gap`, `acceptance`, `nonfinite`, and
    `failure`, the reason why a candidate has no score, or None), `fid_base`, `energy_base`, `energy_validation`,
    `n_generated`, `n_validation` and the `request` that was answered. An answer to the same request is returned
    without work; an interrupted one is continued.
    Raises `InputError` for a bad model, shard set or extractor, and where no candidate has a score.
    """
    from gebm.launch import tune_candidates
    from gebm.trainer.model import model_digest

    run, validation = storage.absolute(run), storage.absolute(validation)
    extractor = settings.extractor or extractor
    device = "cuda" if gpus_per_actor > 0 else "cpu"
    request = {
        "model": model_digest(run),
        "validation": index_digest(load_index(validation)),
        "settings": settings.model_dump(mode="json"),
        "sampler": sampler.model_dump(mode="json"),
        "extractor": extractor.model_dump(mode="json"),
        "seed": seed,
        "device": device,
    }
    location = storage.join(run, result_name)
    if storage.exists(location):
        before = storage.read_json(location)
        if before.get("request") == request and before.get("format_version") == FORMAT_VERSION:
            return before
    folder = storage.join(run, FOLDER, _digest(request))
    real = extract_features(
        validation,
        extractor,
        cache=storage.join(run, FOLDER, "features"),
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        limit=settings.validation_count,
    )
    worker = tune_candidates.make_candidate_worker(
        run, validation, folder, extractor, settings.validation_count, derive_seed(seed, "tune", "pilot"), device
    )
    records = run_farm(
        candidate_items(settings, sampler, seed),
        worker,
        folder,
        settings=request,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        progress=progress,
        stage="tune",
    )
    features = {name: tune_candidates.load_features(folder, record) for name, record in records.items()}
    result = {
        "format_version": FORMAT_VERSION,
        **score(records, features, real, settings.groups, seed),
        "n_generated": settings.count,
        "n_validation": len(real),
        "request": request,
    }
    result.update(choose(result["tried"], settings.criterion))
    storage.write_json_atomic(location, result)
    return result


def chosen_sampler(run: str) -> SamplerSettings:
    """The settings that tuning chose for `run`. Raises `InputError` when it was not tuned."""
    location = storage.join(storage.absolute(run), RESULT)
    if not storage.exists(location):
        raise InputError(f"{location}: missing; run `gebm tune {run}` first")
    try:
        return SamplerSettings.model_validate(storage.read_json(location)["chosen"])
    except (ValueError, KeyError, TypeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise InputError(f"{location}: no readable chosen settings ({reason}); remove it and tune again") from error


def candidates(settings: TuneSettings, sampler: SamplerSettings) -> Iterator[tuple[SamplerSettings, list[int]]]:
    """Each chain of the grids with the lengths at which it is scored, in the order of the grids, none twice.

    The recipe's sampler gives what the grids do not name: to chains of its own kernel all of it, to others the layout.
    Raises `InputError` for a chain that makes no sense, or not at one of its lengths.
    """
    lengths: dict[SamplerSettings, set[int]] = {}
    for grid in settings.grids:
        combinations = itertools.product(
            grid.inverse_temperatures, grid.step_sizes, grid.frictions, grid.leapfrog_steps
        )
        for inverse_temperature, step_size, friction, leapfrog_steps in combinations:
            chain = sampler.named(grid.sampler).model_copy(
                update={
                    "inverse_temperature": inverse_temperature,
                    "step_size": step_size,
                    "friction": friction,
                    "leapfrog_steps": leapfrog_steps,
                    "steps": 0,
                }
            )
            lengths.setdefault(chain, set()).update(grid.steps)
    for chain, steps in lengths.items():
        for length in steps:
            _check(chain.model_copy(update={"steps": length}))
        yield chain.model_copy(update={"steps": max(steps)}), sorted(steps)


def candidate_items(settings: TuneSettings, sampler: SamplerSettings, seed: int) -> list[WorkItem]:
    """The base and every chain, the longest first so that no actor is left alone with one at the end.

    All have the same seed: the same prior draws and the same noise.
    """
    chains = sorted(candidates(settings, sampler), key=lambda chain: -chain[0].steps)
    base = (sampler.named(BASE).model_copy(update={"steps": 0}), [0])
    named = [(f"{number:03d}", *chain) for number, chain in enumerate(chains)] + [(BASE, *base)]
    shared = derive_seed(seed, "tune", "chains")
    return [
        WorkItem(name, shared, {"sampler": chain.model_dump(mode="json"), "lengths": lengths, "count": settings.count})
        for name, chain, lengths in named
    ]


def _check(candidate: SamplerSettings) -> None:
    try:
        SamplerSettings.model_validate(candidate.model_dump())
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise InputError(f"tune.grids, {candidate.name} with what [sampler] says of it: {reason}") from error


def _digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:16]
