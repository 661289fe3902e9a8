"""Everything that a report needs, read from a run directory: what is there, and what is not yet."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

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
from gebm.sampler.findings import findings_of_run
from gebm.sampler.run_summary import RunSummary, read_summary
from gebm.trainer.metrics import VALUES
from gebm.trainer.metrics import folder as metrics_folder
from gebm.trainer.model import model_digest

GRID_NAME = re.compile(r"round-(\d+)\.png")
MOST_IMAGES = 1000
"""Of each set that are read for pictures and energies."""


@dataclass(frozen=True)
class SampleSet:
    """A finished set of generated images.

    settings: of the farm that drew it (`model`, `sampler`, `count`, `seed`). diagnostics: of its chains, see
    `gebm.sampler.diagnostics.summarise`, and what they found out, see `gebm.sampler.findings`. images: uint8
    `(n, channels, height, width)`, or vectors float32 `(n, d)`, the first `MOST_IMAGES`. labels: int64 `(n,)` of a
    conditional model's. summary: of the run that drew them, where it left one.
    """

    settings: dict[str, Any]
    diagnostics: dict[str, Any]
    images: np.ndarray
    labels: np.ndarray | None = None
    summary: RunSummary | None = None


class SampleGrid(NamedTuple):
    """A picture of samples after a round of training: uint8 `(3, height, width)`."""

    round: int
    picture: np.ndarray


@dataclass(frozen=True)
class RunContents:
    """What a run holds; None or empty for what it does not hold yet.

    metrics: the lines of the training metrics in order of their rounds. events: what had to be done to training, one
    sentence each. grids: pictures of samples, in order of their rounds. real: uint8
    `(n, channels, height, width)` or float32 `(n, d)`, the first `MOST_IMAGES` test samples, and their labels when
    they have any. train: URL of the training shards when
    they are at hand. seconds: by stage. model_digest: of the exported weights.
    """

    run: str
    recipe: Recipe
    metrics: list[dict[str, Any]]
    events: list[str]
    grids: list[SampleGrid]
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
        if model["sampler"].get("name") == "sir" or model["sampler"].get("samples_per_chain", 1) > 1:
            return False
        return same and base["sampler"].get("shard_size") == model["sampler"].get("shard_size")


def read_contents(run: str) -> RunContents:
    """Read the run at `run`. Raises `InputError` when it is not a run and for each file that is broken."""
    run = storage.absolute(run)
    recipe = load_run(run)
    train, test = _shards(run, recipe, "train"), _shards(run, recipe, "test")
    seconds = read_format(storage.join(run, TIMINGS), Seconds)
    real = None if test is None else read_all(test, MOST_IMAGES)
    metrics, events = _read_metrics(run)
    return RunContents(
        run=run,
        recipe=recipe,
        metrics=metrics,
        events=events,
        grids=_read_grids(run),
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
        records = manifest.items.values()
        diagnostics = {**summarise(records), "found": findings_of_run(records)}
        sampler = manifest.settings["sampler"]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{storage.join(url, 'manifest.json')}: not the manifest of `gebm sample` ({error!r}); "
            "remove the folder and sample again"
        ) from error
    if not isinstance(sampler, dict):
        raise InputError(f"{storage.join(url, 'manifest.json')}: settings.sampler is not a table; sample again")
    samples = read_all(url, MOST_IMAGES)
    return SampleSet(manifest.settings, diagnostics, samples.images, samples.labels, read_summary(url))


def _read_metrics(run: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The lines of all segments in order of their rounds, and the events among them, each once."""
    folder = metrics_folder(run)
    by_round: dict[int, dict[str, Any]] = {}
    events: dict[str, None] = {}
    for name in storage.list_names(folder):
        if not name.startswith(f"{VALUES}-"):
            continue
        url = storage.join(folder, name)
        for number, line in enumerate(storage.read_bytes(url).decode(errors="replace").splitlines(), 1):
            try:
                record = json.loads(line)
                if "event" in record:
                    events[str(record["event"])] = None
                    continue
                by_round[int(record["round"])] = {**record, "phase": str(record["phase"])}
            except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                raise InputError(
                    f"{url}: line {number} is not a record of metrics ({error!r}); remove that line"
                ) from error
    return [by_round[round_number] for round_number in sorted(by_round)], list(events)


def _read_grids(run: str) -> list[SampleGrid]:
    """The pictures in `metrics/grids/`, on white."""
    folder = storage.join(metrics_folder(run), "grids")
    found = []
    for name in storage.list_names(folder):
        if (match := GRID_NAME.fullmatch(name)) is None:
            continue
        url = storage.join(folder, name)
        try:
            picture = Image.open(io.BytesIO(storage.read_bytes(url))).convert("RGBA")
        except (OSError, SyntaxError) as error:
            raise InputError(f"{url}: not a readable picture ({error}); remove it") from error
        white = Image.new("RGBA", picture.size, "white")
        pixels = np.asarray(Image.alpha_composite(white, picture).convert("RGB"))
        found.append(SampleGrid(int(match[1]), np.ascontiguousarray(pixels.transpose(2, 0, 1))))
    return found
