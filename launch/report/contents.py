"""Everything that a report needs, read from a run directory: what is there, and what is not yet."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import INDEX_NAME
from gebm.cluster.manifest import load_manifest
from gebm.cluster.reader import read_all
from gebm.launch.config import Recipe
from gebm.launch.likelihood import RESULT as LIKELIHOOD
from gebm.launch.report.formats import Evaluation, Likelihood, Seconds, Tuning, read_format
from gebm.launch.run_directory import (
    BASE_SAMPLES,
    EVALUATION,
    MODEL_SAMPLES,
    TIMINGS,
    TUNE,
    data_url,
    load_run,
)
from gebm.sampler.diagnostics import summarise
from gebm.trainer.metrics import VALUES
from gebm.trainer.metrics import folder as metrics_folder
from gebm.trainer.model import model_digest

MOST_IMAGES = 1000
"""Of each set that are read for pictures and energies."""


@dataclass(frozen=True)
class SampleSet:
    """A finished set of generated images.

    settings: of the farm that drew it (`model`, `sampler`, `count`, `seed`). diagnostics: of its chains, see
    `gebm.sampler.diagnostics.summarise`. images: uint8 `(n, channels, height, width)`, or vectors float32
    `(n, d)`, the first `MOST_IMAGES`. labels: int64 `(n,)` of a conditional model's.
    """

    settings: dict[str, Any]
    diagnostics: dict[str, Any]
    images: np.ndarray
    labels: np.ndarray | None = None


@dataclass(frozen=True)
class RunContents:
    """What a run holds; None or empty for what it does not hold yet.

    metrics: the lines of the training metrics in order of their rounds. real: uint8
    `(n, channels, height, width)` or float32 `(n, d)`, the first `MOST_IMAGES` test samples, and their labels when
    they have any. train: URL of the training shards when
    they are at hand. seconds: by stage. model_digest: of the exported weights.
    """

    run: str
    recipe: Recipe
    metrics: list[dict[str, Any]]
    tuning: Tuning | None
    base: SampleSet | None
    model: SampleSet | None
    real: np.ndarray | None
    real_labels: np.ndarray | None
    train: str | None
    evaluation: Evaluation | None
    likelihood: Likelihood | None
    seconds: dict[str, float]
    model_digest: str | None

    @property
    def are_vectors(self) -> bool:
        """Whether the samples are vectors, which are drawn as points instead of pictures."""
        sets = (self.real, *(each.images for each in (self.base, self.model) if each is not None))
        return any(images is not None and images.ndim == 2 for images in sets)

    @property
    def paired(self) -> bool:
        """Whether image i of base and model came from the same latent."""
        if self.base is None or self.model is None:
            return False
        (base, model) = (self.base.settings, self.model.settings)
        same = all(base.get(key) == model.get(key) for key in ("model", "seed", "count"))
        return same and base["sampler"].get("shard_size") == model["sampler"].get("shard_size")


def read_contents(run: str) -> RunContents:
    """Read the run at `run`. Raises `InputError` when it is not a run and for each file that is broken."""
    run = storage.absolute(run)
    recipe = load_run(run)
    train, test = _shards(run, recipe, "train"), _shards(run, recipe, "test")
    seconds = read_format(storage.join(run, TIMINGS), Seconds)
    real = None if test is None else read_all(test, MOST_IMAGES)
    return RunContents(
        run=run,
        recipe=recipe,
        metrics=_read_metrics(run),
        tuning=read_format(storage.join(run, TUNE), Tuning),
        base=_read_samples(storage.join(run, BASE_SAMPLES)),
        model=_read_samples(storage.join(run, MODEL_SAMPLES)),
        real=None if real is None else real.images,
        real_labels=None if real is None else real.labels,
        train=train,
        evaluation=read_format(storage.join(run, EVALUATION), Evaluation),
        likelihood=read_format(storage.join(run, LIKELIHOOD), Likelihood),
        seconds=seconds.root if seconds else {},
        model_digest=model_digest(run) if storage.exists(storage.join(run, "model", "model.toml")) else None,
    )


def _shards(run: str, recipe: Recipe, split: str) -> str | None:
    if not getattr(recipe.data, split):
        return None
    url = data_url(run, recipe, split)
    return url if storage.exists(storage.join(url, INDEX_NAME)) else None


def _read_samples(url: str) -> SampleSet | None:
    """A sample set whose farm has finished; one that is still being drawn counts as not there."""
    manifest = load_manifest(url)
    if manifest is None or not manifest.complete or not storage.exists(storage.join(url, INDEX_NAME)):
        return None
    try:
        diagnostics = summarise(manifest.items.values())
        sampler = manifest.settings["sampler"]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{storage.join(url, 'manifest.json')}: not the manifest of `gebm sample` ({error!r}); "
            "remove the folder and sample again"
        ) from error
    if not isinstance(sampler, dict):
        raise InputError(f"{storage.join(url, 'manifest.json')}: settings.sampler is not a table; sample again")
    samples = read_all(url, MOST_IMAGES)
    return SampleSet(manifest.settings, diagnostics, samples.images, samples.labels)


def _read_metrics(run: str) -> list[dict[str, Any]]:
    """The lines of all segments in order of their rounds."""
    folder = metrics_folder(run)
    by_round: dict[int, dict[str, Any]] = {}
    for name in storage.list_names(folder):
        if not name.startswith(f"{VALUES}-"):
            continue
        url = storage.join(folder, name)
        for number, line in enumerate(storage.read_bytes(url).decode(errors="replace").splitlines(), 1):
            try:
                record = json.loads(line)
                by_round[int(record["round"])] = {**record, "phase": str(record["phase"])}
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{url}: line {number} is not a record of metrics ({error!r}); remove that line"
                ) from error
    return [by_round[round_number] for round_number in sorted(by_round)]
