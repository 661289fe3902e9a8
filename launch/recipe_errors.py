"""From a validation error to one sentence: which key, written where, what is wrong, what was meant."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

KeyPath = tuple[str, ...]
Origins = dict[KeyPath, str]
"""Where each key was written: `file:line` or the `--set` option."""

_SECTION = re.compile(r"^\s*(\[\[?)\s*([\w.-]+)\s*\]")
_KEY = re.compile(r"^\s*([\w.-]+)\s*=")


def toml_lines(text: str) -> dict[KeyPath, int]:
    """The line, from 1, on which each section and key of a TOML text stands (bare keys only).

    The second `[[a.b]]` has the path `("a", "b", "1")`.
    """
    lines: dict[KeyPath, int] = {}
    section: KeyPath = ()
    entries: Counter[KeyPath] = Counter()
    for number, line in enumerate(text.splitlines(), 1):
        if match := _SECTION.match(line):
            section = tuple(match[2].split("."))
            lines.setdefault(section, number)
            if match[1] == "[[":
                entries[section] += 1
                section = (*section, str(entries[section] - 1))
                lines.setdefault(section, number)
        elif match := _KEY.match(line):
            lines.setdefault((*section, *match[1].split(".")), number)
    return lines


def explain(error: ValidationError, model: type[BaseModel], source: str, origins: Origins) -> str:
    """One sentence about the first error, and how many more there are."""
    errors = error.errors(include_url=False)
    # A misspelt key comes with "missing" for the right one: the misspelling is the cause.
    errors.sort(key=lambda entry: entry["type"] != "extra_forbidden")
    message = _explain_one(errors[0], model, source, origins)
    return message if len(errors) == 1 else f"{message} (and {len(errors) - 1} more)"


def key_paths(model: type[BaseModel], prefix: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of all keys of a settings class, sections included."""
    for name, field in model.model_fields.items():
        path = (*prefix, name)
        yield path
        for inner in _models(field.annotation):
            yield from key_paths(inner, path)


def _explain_one(entry: ErrorDetails, model: type[BaseModel], source: str, origins: Origins) -> str:
    path = tuple(part for part in entry["loc"] if isinstance(part, str))
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]).removeprefix(".")
    where = _origin(tuple(str(part) for part in entry["loc"]), source, origins)
    if entry["type"] == "extra_forbidden":
        return f"{where}: unknown key {key}; {_nearest_key(path, model)}"
    if entry["type"] == "missing":
        return f"{where}: the key {key} is missing; add it"
    message = entry["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = entry["input"]
    if not isinstance(given, dict):
        message = f"{message}, not {_spell(given)}"
    return f"{where}: {key}: {message}{_nearest_value(entry)}"


def _origin(path: KeyPath, source: str, origins: Origins) -> str:
    """The place of the key, or of the nearest section that is written down."""
    for length in range(len(path), 0, -1):
        if path[:length] in origins:
            return origins[path[:length]]
        # A section that no line opens, only keys in it: `[a.b]`, or `--set a.b=c`.
        for written, place in origins.items():
            if written[:length] == path[:length]:
                return place
    return source


def _nearest_key(path: KeyPath, model: type[BaseModel]) -> str:
    every = list(key_paths(model))
    siblings = [known[-1] for known in every if known[:-1] == path[:-1]]
    dotted = [".".join(known) for known in every if len(known) >= len(path)]
    candidates = [
        *_beside(path, get_close_matches(path[-1], siblings, n=1, cutoff=0.8)),
        # The right key in the wrong section.
        *(".".join(known) for known in every if known[-1] == path[-1]),
        *_beside(path, get_close_matches(path[-1], siblings, n=1, cutoff=0.6)),
        *get_close_matches(".".join(path), dotted, n=1, cutoff=0.8),
    ]
    if candidates:
        return f"did you mean {candidates[0]}?"
    section = f"[{'.'.join(path[:-1])}]" if len(path) > 1 else "a recipe"
    return f"{section} knows {', '.join(siblings)}"


def _beside(path: KeyPath, names: list[str]) -> list[str]:
    return [".".join((*path[:-1], name)) for name in names]


def _nearest_value(entry: ErrorDetails) -> str:
    if entry["type"] != "literal_error" or not isinstance(entry["input"], str):
        return ""
    known = re.findall(r"'([^']*)'", str(entry.get("ctx", {}).get("expected", "")))
    near = get_close_matches(entry["input"], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _spell(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings classes in an annotation: `Grid`, `Grid | None`, `tuple[Grid, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)
