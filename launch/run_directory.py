"""The run directory: which files it holds, whose it is, and where its data lies."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.launch.config import DataSettings, Recipe, dump_recipe, parse_recipe

CONFIG = "config.toml"
METRICS = "metrics"
CHECKPOINTS = "checkpoints"
TUNE = "tune.json"
CONTEST = "contest.json"
TIMINGS = "timings.json"
EVALUATION = "evaluation/main.json"
FEATURES = "evaluation/features"
BASE_SAMPLES = "samples/base"
MODEL_SAMPLES = "samples/model"
REPORT = "report.html"
SUMMARY = "summary.json"

# What may lie in a directory that no run has claimed yet: data made for it before.
_BEFORE_A_RUN = {"data"}


@contextmanager
def claimed_run(run: str, recipe: Recipe) -> Iterator[str]:
    """Make `run` the directory of this recipe, or find that it is already; yields its absolute URL.

    Raises `InputError`, naming each key that differs, when it belongs to another configuration, and when it
    is a directory of something else. When a run that was new refuses its input before it has trained
    anything, the claim is given up again: the corrected command must not meet it.
    """
    run = storage.absolute(run)
    location = storage.join(run, CONFIG)
    fresh = not storage.exists(location)
    if fresh:
        strange = [name for name in storage.list_names(run) if name not in _BEFORE_A_RUN]
        if strange:
            raise InputError(f"{run} holds {strange[0]} and no {CONFIG}: it is not a run; choose another --out")
        storage.write_bytes_atomic(location, dump_recipe(recipe).encode())
    else:
        _refuse_another(location, load_run(run), recipe)
    try:
        yield run
    except InputError:
        if fresh and not _has_trained(run):
            for name in (TIMINGS, METRICS, CHECKPOINTS, CONFIG):
                storage.remove(storage.join(run, name))
            if not storage.list_names(run):
                storage.remove(run)
        raise


def _has_trained(run: str) -> bool:
    """Whether there is a line of metrics or a checkpoint: the manifest alone says only who may write some."""
    return any(set(storage.list_names(storage.join(run, name))) - {"manifest.json"} for name in (METRICS, CHECKPOINTS))


def _refuse_another(location: str, there: Recipe, here: Recipe) -> None:
    different = differences(there, here)
    if different:
        raise InputError(
            f"{location} belongs to another run: {'; '.join(different[:3])}"
            f"{f' (and {len(different) - 3} more)' if len(different) > 3 else ''}; "
            "choose another --out, or give the same recipe and settings"
        )


def load_run(run: str) -> Recipe:
    """The resolved recipe of an existing run. Raises `InputError` when `run` is not one."""
    location = storage.join(storage.absolute(run), CONFIG)
    try:
        text = storage.read_text(location)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{run} is not a run (no {CONFIG}); make one with `gebm train RECIPE --out {run}`") from error
    return parse_recipe(text, location)


def differences(there: Recipe, here: Recipe) -> list[str]:
    """`"key is A there and B here"` for every key whose value differs, in the order of the recipe."""
    old, new = _flat(there), _flat(here)
    return [
        f"{key} is {old.get(key, 'unset')} there and {new.get(key, 'unset')} here"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]


def data_url(run: str, recipe: Recipe, split: str) -> str:
    """The URL of the shard set of `split` (`train`, `validation`, `test`). Raises `InputError` when unset."""
    url: str | None = getattr(recipe.data, split)
    if not url:
        raise InputError(
            f"recipe {recipe.name}: data.{split} is not set; make shards with `gebm data` and give "
            f"{'--data' if split == 'train' else f'--set data.{split}='} their URL"
        )
    if "://" in url or url.startswith(("/", "~")):
        return storage.absolute(url)
    return storage.join(storage.absolute(run), url)


def with_data(data: DataSettings, train: str | None, validation: str | None) -> DataSettings:
    """The data settings with the shards that `--data` and `--validation` name laid over them.

    `train` may be a shard set, or the folder that `gebm data` makes, with `train`, `validation` and `test`.
    Paths are made absolute: they were given relative to the current directory.
    """
    changes: dict[str, Any] = {}
    if train is not None:
        train = storage.absolute(train)
        inside = {name for name in ("train", "validation", "test") if _is_set(storage.join(train, name))}
        if "train" in inside and not _is_set(train):
            changes = {name: storage.join(train, name) for name in inside}
        else:
            changes["train"] = train
        # The recipe's own splits belong to the recipe's own data.
        changes = {"source": "shards", "name": None, "validation": None, "test": None, **changes}
    if validation is not None:
        changes["validation"] = storage.absolute(validation)
    return data.model_copy(update=changes)


def _is_set(url: str) -> bool:
    return storage.exists(storage.join(url, "index.json"))


def _flat(recipe: Recipe) -> dict[str, Any]:
    flat: dict[str, Any] = {}

    def walk(table: dict[str, Any], prefix: str) -> None:
        for key, value in table.items():
            if isinstance(value, dict):
                walk(value, f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(tomllib.loads(dump_recipe(recipe)), "")
    return flat
