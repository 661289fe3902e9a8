"""Recipes: one TOML file an experiment, validated, overridable key by key, and written resolved into its run.

A recipe is a name of a packaged file (`mnist`, `cifar10_convnet`) or a path. Errors name the key, the file and line
or the `--set` that it came from, and the nearest valid key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import tomli_w
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.settings import StrictModel
from gebm.evaluation.settings import EvaluationSettings
from gebm.launch.data.tabular import TABLES
from gebm.launch.data.toy import TOYS
from gebm.launch.likelihood import LikelihoodSettings
from gebm.launch.recipe_errors import KeyPath, Origins, explain, toml_lines
from gebm.launch.tune import TuneSettings
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model.settings import ModelSettings
from gebm.trainer.settings import TrainerSettings

Settings = TypeVar("Settings", bound=StrictModel)


class DataSettings(StrictModel):
    """Where the three shard sets are. Paths that are not absolute begin at the run directory."""

    source: Literal["mnist", "stacked_mnist", "tabular", "toy", "shards"] = "shards"
    """`shards`: made before, by `gebm data`. All others are written into the run when missing."""
    name: str | None = None
    """Which table of `tabular`, which distribution of `toy`."""
    train: str | None = None
    validation: str | None = None
    """Read by tuning."""
    test: str | None = None
    """Read by evaluation and report, once."""
    counts: tuple[PositiveInt, PositiveInt, PositiveInt] = (3500, 500, 1000)
    """Samples for training, validation and test; `mnist`, `stacked_mnist` and `toy` only."""
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    """Shares of training, validation and test in the rows of a table; `tabular` only."""
    shard_size: PositiveInt = 500
    """Samples in each shard that is written into the run."""

    @model_validator(mode="after")
    def _known_name(self) -> DataSettings:
        known = {"tabular": TABLES, "toy": TOYS}.get(self.source, ())
        if known and self.name not in known:
            given = "" if self.name is None else f", not {self.name!r}"
            raise ValueError(f"source {self.source!r} needs a name, one of {', '.join(known)}{given}")
        return self


class Recipe(StrictModel):
    """All settings of an experiment."""

    name: str = Field(min_length=1)
    seed: NonNegativeInt = 0
    sample_count: PositiveInt = 1000
    """Images that the demo draws from the base and from the model each."""
    data: DataSettings
    model: ModelSettings
    trainer: TrainerSettings
    tune: TuneSettings
    sampler: SamplerSettings
    evaluation: EvaluationSettings
    likelihood: LikelihoodSettings = LikelihoodSettings()


def recipe_names() -> list[str]:
    """The names of the packaged recipes."""
    folder = resources.files("gebm.launch.recipes")
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and lay `overrides` (`"trainer.batch_size=64"`, values as in TOML) over it.

    Raises `InputError` when there is no such recipe, the file is not TOML, or a key or value is wrong.
    """
    text, source = _read(name_or_path)
    return parse_recipe(text, source, overrides)


def parse_recipe(text: str, source: str, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in `text`; `source` is the file that errors name. Raises `InputError`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{source}: not valid TOML: {error}") from error
    origins: Origins = {path: f"{source}:{line}" for path, line in toml_lines(text).items()}
    for override in overrides:
        path, value = parse_override(override)
        _assign(content, path, value, override)
        origins[path] = f"--set {override}"
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error, Recipe, source, origins)) from error


def parse_override(text: str) -> tuple[KeyPath, Any]:
    """`"a.b=c"` to `(("a", "b"), c)`; the value is TOML, or a bare word for a string. Raises `InputError`."""
    key, equals, value = text.partition("=")
    path = tuple(part.strip() for part in key.split("."))
    if not equals or not all(path):
        raise InputError(f"--set {text}: write SECTION.KEY=VALUE, for example --set trainer.batch_size=64")
    try:
        return path, tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError as error:
        # Quotes seldom survive a shell: `--set sampler.name=kla` means the string.
        if re.fullmatch(r"[A-Za-z_./~][\w./:~-]*", value.strip()):
            return path, value.strip()
        raise InputError(f"--set {text}: {value!r} is not a TOML value; quote it if it is a string") from error


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as TOML, every key written out; `parse_recipe` gives back an equal one."""
    return tomli_w.dumps(recipe.model_dump(mode="json", exclude_none=True))


def changed(settings: Settings, options: Mapping[str, Any]) -> Settings:
    """The settings with command-line options (`None`: not given) laid over them, validated again.

    Raises `InputError` that names the option.
    """
    given = {key: value for key, value in options.items() if value is not None}
    try:
        return type(settings).model_validate({**settings.model_dump(), **given})
    except ValidationError as error:
        origins: Origins = {(key,): f"--{key.replace('_', '-')}" for key in given}
        raise InputError(explain(error, type(settings), "options", origins)) from error


def overridden(settings: Settings, section: str, overrides: Sequence[str]) -> Settings:
    """The settings of the recipe's `section` with `overrides` (`"sampler.thin=5"`) laid over them, validated again.

    Raises `InputError` that names the override.
    """
    content = settings.model_dump(mode="json", exclude_none=True)
    origins: Origins = {}
    for override in overrides:
        path, value = parse_override(override)
        if path[0] != section or len(path) == 1:
            raise InputError(f"--set {override}: only keys of [{section}] count here: write {section}.KEY=VALUE")
        _assign(content, path[1:], value, override)
        origins[path[1:]] = f"--set {override}"
    try:
        return type(settings).model_validate(content)
    except ValidationError as error:
        raise InputError(explain(error, type(settings), f"[{section}]", origins)) from error


def _read(name_or_path: str) -> tuple[str, str]:
    """Text of a recipe and the name that errors give it."""
    packaged = recipe_names()
    if name_or_path in packaged:
        file = resources.files("gebm.launch.recipes") / f"{name_or_path}.toml"
        return file.read_text(encoding="utf-8"), str(file)
    if not name_or_path.endswith(".toml") and not storage.exists(name_or_path):
        near = get_close_matches(name_or_path, packaged, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "give the path of a .toml file or one of"
        raise InputError(f"no recipe {name_or_path!r}; {hint} ({', '.join(packaged)} are packaged)")
    path = storage.absolute(name_or_path)
    if Path(path).is_dir():
        raise InputError(f"{path} is a directory; give a recipe's name ({', '.join(packaged)}) or its .toml file")
    try:
        return storage.read_text(path), path
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such recipe; packaged ones are {', '.join(packaged)}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text; a recipe is a TOML file") from error


def _assign(content: dict[str, Any], path: KeyPath, value: Any, override: str) -> None:
    table = content
    for depth, part in enumerate(path[:-1], 1):
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise InputError(f"--set {override}: {'.'.join(path[:depth])} is a value, not a section")
    table[path[-1]] = value
