"""The stages of an experiment, one function each: what a command runs, and what the demo runs in a row.

Each works on the files of the stage before it in the run directory, recognises what is finished, and says how
it gets on by `report(done, total, detail)`. All but `prepare_data` and `write_report` need a Ray connection.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import index_digest, load_index
from gebm.cluster.manifest import load_manifest
from gebm.evaluation.comparison import ComparisonSettings, compare_sets
from gebm.evaluation.evaluate import evaluate
from gebm.evaluation.settings import EvaluationSettings
from gebm.launch.config import Recipe
from gebm.launch.data.sources import SOURCES
from gebm.launch.farms import farm_report, plan_actors
from gebm.launch.interrupts import Interrupted, stop_requests
from gebm.launch.likelihood import measure_likelihood
from gebm.launch.progress import Report
from gebm.launch.report import build_report
from gebm.launch.run_directory import EVALUATION, FEATURES, TUNE, data_url
from gebm.launch.tune import chosen_sampler, tune
from gebm.sampler.run_summary import RunSummary
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.stored import StoreSettings
from gebm.sampler.work import CHECKPOINT_SECONDS, sample
from gebm.trainer.driver import train
from gebm.trainer.errors import TrainingStopped
from gebm.trainer.model import build_model


def check_input(run: str, recipe: Recipe) -> None:
    """Refuse what can be known to be wrong before anything is written. Raises `InputError`.

    Shards must be there, and the networks must fit their samples.
    """
    if recipe.data.source != "shards":
        shape, classes = SOURCES[recipe.data.source].content(recipe.data)
    else:
        index = load_index(data_url(run, recipe, "train"))
        shape, classes = index.image_shape, index.classes
        for split in ("validation", "test"):
            if getattr(recipe.data, split):
                other = load_index(data_url(run, recipe, split)).image_shape
                if other != shape:
                    raise InputError(f"data.{split} has samples of shape {other}, data.train of {shape}")
    build_model(recipe.model, shape, classes)


def prepare_data(run: str, recipe: Recipe, report: Report) -> None:
    """Write the recipe's data into the run, where the recipe says how to make them."""
    source = recipe.data.source
    if source == "shards":
        return
    folders = {data_url(run, recipe, split).rpartition("/")[0] for split in ("train", "validation", "test")}
    if len(folders) != 1 or any(
        data_url(run, recipe, split).rpartition("/")[2] != split for split in ("train", "validation", "test")
    ):
        raise InputError(
            f"data.source {source!r} writes the folders train, validation and test side by side; name them so, "
            "or set data.source to 'shards'"
        )
    SOURCES[source].write(folders.pop(), recipe.data, recipe.seed, lambda done, total: report(done, total, "samples"))


def train_model(
    run: str, recipe: Recipe, report: Report, *, workers: int | None, gpus_per_worker: float | None
) -> None:
    """Train the recipe's model; the run gets `metrics/`, `checkpoints/` and `model/`.

    Raises `Interrupted` after a checkpoint when a signal comes, at once when a second one does.
    """

    def tell(record: dict[str, Any]) -> None:
        if "event" in record:
            report(0, 0, record["event"])
            return
        if "energy_fake" in record:
            # The energy is low on data: a gap above 0 says that it tells the base's images from real ones.
            course = f"energy gap {record['energy_fake'] - record['energy_real']:.2f}"
        else:
            course = f"negative log-likelihood {record['negative_log_likelihood']:.3f}"
        detail = f"{record['phase']}  {record['images_per_second']:,.0f} samples/s  {course}"
        report(record["round"], record["rounds"], detail)

    with stop_requests() as request:
        try:
            train(
                run=run,
                data=data_url(run, recipe, "train"),
                validation=data_url(run, recipe, "validation") if recipe.data.validation else None,
                model=recipe.model,
                settings=recipe.trainer,
                seed=recipe.seed,
                workers=workers,
                gpus_per_worker=gpus_per_worker,
                progress=tell,
                stop=request.event,
            )
        except TrainingStopped as stopped:
            raise Interrupted(str(stopped), request.signal) from stopped
    if request.event.is_set():
        raise Interrupted("training is finished; the same command goes on with what comes after it", request.signal)


def held_out_split(recipe: Recipe) -> str | None:
    """The split whose likelihood is reported: the test points, else the validation's; None for no density, no points.

    Only a model with a density of its base has a likelihood.
    """
    splits = (split for split in ("test", "validation") if getattr(recipe.data, split))
    return next(splits, None) if recipe.model.base == "realnvp" else None


def report_likelihood(run: str, recipe: Recipe) -> dict[str, Any]:
    """Held-out likelihood of base and model; the run gets `evaluation/likelihood.json`."""
    points = data_url(run, recipe, held_out_split(recipe) or "test")
    return measure_likelihood(run, points, recipe.likelihood, seed=recipe.seed)


def tune_sampler(run: str, recipe: Recipe, report: Report, *, validation: str, actors: int | None) -> SamplerSettings:
    """Choose the sampler's settings on validation images; the run gets `tune.json`."""
    staff = plan_actors(actors)
    tune(
        run,
        validation,
        recipe.tune,
        sampler=recipe.sampler,
        extractor=recipe.evaluation.extractor,
        seed=recipe.seed,
        actors=staff.count,
        gpus_per_actor=staff.gpus,
        progress=farm_report(report, "candidates"),
    )
    return sampler_of(run, recipe)


def sampler_of(run: str, recipe: Recipe, name: str | None = None) -> SamplerSettings:
    """The sampler settings of a run: the tuned ones if there are, else the recipe's.

    With `name`, those of that sampler: the tuned ones only if they are its own. Tuning leaves the layout of
    chains and shards alone, so that base and model of one recipe start from the same prior draws.
    """
    if name != "base" and storage.exists(storage.join(run, TUNE)):
        tuned = chosen_sampler(run)
        if name in (None, tuned.name):
            return tuned
    return recipe.sampler if name is None else recipe.sampler.named(name)


def draw_samples(
    model_url: str,
    output: str,
    settings: SamplerSettings,
    report: Report,
    *,
    count: int,
    seed: int,
    actors: int | None,
    gpus_per_actor: float | None = None,
    store: StoreSettings = StoreSettings(),  # noqa: B008
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    summary: Callable[[RunSummary], None] | None = None,
) -> dict[str, Any]:
    """Draw `count` images of a model (or its base) into a shard set at `output`; the rest as `sampler.work.sample`."""
    staff = plan_actors(actors, gpus_per_actor)
    return sample(
        model_url=model_url,
        output=output,
        settings=settings,
        count=count,
        seed=seed,
        actors=None if actors is None else staff.count,  # none: as many as find room, also when the cluster grows
        gpus_per_actor=staff.gpus,
        store=store,
        checkpoint_seconds=checkpoint_seconds,
        progress=farm_report(report, "samples", count),
        summary=summary,
    )


def evaluate_samples(
    samples: str,
    reference: str,
    base: str | None,
    settings: EvaluationSettings,
    report: Report,
    *,
    digits: str | None = None,
    seed: int,
    out: str | None,
    cache: str | None,
    actors: int | None,
) -> dict[str, Any]:
    """Compare samples (and those of the base alone) with reference images; write the result to `out`.

    `digits`: labelled training images of stacked digits, for the metrics `modes` and `labels`. A result at `out` that
    came from the same images, settings and seed is returned as it is.
    """
    request = request_of(samples, reference, base, digits, settings, seed)
    if out is not None and (found := finished_evaluation(out, request)) is not None:
        return found
    staff = plan_actors(actors)
    result = evaluate(
        samples=samples,
        reference=reference,
        base=base,
        digits=digits,
        settings=settings,
        seed=seed,
        cache=cache,
        actors=staff.count,
        gpus_per_actor=staff.gpus,
        progress=report,
    )
    result = {**result, "request": request}
    if out is not None:
        storage.write_json_atomic(out, result)
    return result


def write_report(run: str, report: Report) -> str:
    """Write the run's `report.html` and `summary.json`. Returns the path of the page."""
    return build_report(run, progress=lambda *state: report(*state))


def compare_samples(
    first: str,
    second: str,
    settings: ComparisonSettings,
    report: Report,
    *,
    base: str | None = None,
    output: str | None = None,
    cache: str | None,
    actors: int | None,
    gpus_per_actor: float | None = None,
) -> dict[str, Any]:
    """The two-sample test of two sets, or the relative test of three."""
    staff = plan_actors(actors, gpus_per_actor)
    return compare_sets(
        first,
        second,
        settings,
        base=base,
        output=output,
        cache=cache,
        actors=staff.count,
        gpus_per_actor=staff.gpus,
        progress=lambda farm, progress: farm_report(report, farm)(progress),
    )


def has_data(run: str, recipe: Recipe) -> bool:
    """Whether the three shard sets of the run are there, every shard with its size."""
    try:
        for split in ("train", "validation", "test"):
            load_index(data_url(run, recipe, split))
    except InputError:
        return False
    return True


def is_trained(run: str) -> bool:
    """Whether the run's model is exported: the last thing that training does."""
    return storage.exists(storage.join(run, "model", "model.toml"))


def is_tuned(run: str) -> bool:
    """Whether the run's sampler is chosen."""
    return storage.exists(storage.join(run, TUNE))


def is_sampled(output: str) -> bool:
    """Whether the shard set of a sampling farm is complete."""
    manifest = load_manifest(output)
    return manifest is not None and manifest.complete and storage.exists(storage.join(output, "index.json"))


def is_evaluated(run: str, samples: str, reference: str, base: str | None, recipe: Recipe) -> bool:
    """Whether the run's evaluation of just these images with the recipe's settings is there."""
    location = storage.join(run, EVALUATION)
    if not storage.exists(location):
        return False
    request = request_of(samples, reference, base, digits_of_run(run, recipe), recipe.evaluation, recipe.seed)
    return finished_evaluation(location, request) is not None


def digits_of_run(run: str, recipe: Recipe) -> str | None:
    """The labelled digits that modes and labels are read by: the training images, None where neither is asked for."""
    return data_url(run, recipe, "train") if {"modes", "labels"} & set(recipe.evaluation.metrics) else None


def features_cache(run: str) -> str:
    """Where a run keeps the features of the images that it was evaluated on."""
    return storage.join(run, FEATURES)


def request_of(
    samples: str, reference: str, base: str | None, digits: str | None, settings: EvaluationSettings, seed: int
) -> dict[str, Any]:
    """What an evaluation was asked: enough to tell whether it is the same question again.

    However it was put: a layer that is left out and the same layer by its name are one question.
    """
    settings = settings.model_copy(update={"extractor": settings.extractor.spelt_out()})
    sets: dict[str, str | None] = {"samples": samples, "reference": reference, "base": base, "digits": digits}
    return {
        **{name: url and {"url": url, "digest": index_digest(load_index(url))} for name, url in sets.items()},
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
    }


def finished_evaluation(out: str, request: dict[str, Any]) -> dict[str, Any] | None:
    """The result at `out`, if it answers just this request."""
    if not storage.exists(out):
        return None
    found = storage.read_json(out)
    return found if isinstance(found, dict) and found.get("request") == request else None
