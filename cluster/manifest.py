"""The manifest of a farm's output directory, `manifest.json`: its commit point.

Workers write files under names that hold their attempt, so that two attempts never touch one file; what the
manifest names is the output, everything else in the directory is debris of attempts that were cut short.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Sequence
from typing import Any, NamedTuple

from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.settings import StrictModel

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1

_ATTEMPT = re.compile(r"try[0-9a-f]{10}")


class WorkItem(NamedTuple):
    """One idempotent piece of work: its result depends on these three alone."""

    id: str
    seed: int
    description: dict[str, Any]
    """Small and JSON-able."""


class Manifest(StrictModel):
    """What stands in an output directory. `items` maps item id to its record, in item order."""

    format_version: int = FORMAT_VERSION
    settings_digest: str
    """Of the settings and the work items."""
    settings: dict[str, Any]
    total: int
    complete: bool
    items: dict[str, dict[str, Any]]


def new_attempt() -> str:
    """Return a string that no other attempt has: part of the names of the files that this attempt writes."""
    return f"try{secrets.token_hex(5)}"


def load_manifest(output: str) -> Manifest | None:
    """Return the manifest of an output directory, None when there is none. Raises InputError."""
    location = storage.join(output, MANIFEST_NAME)
    try:
        manifest = Manifest.model_validate_json(storage.read_bytes(location))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise InputError(
            f"{location} is not a manifest that this gebm can read ({error.errors()[0]['msg']}); "
            "choose another output directory or remove this one"
        ) from error
    if manifest.format_version != FORMAT_VERSION:
        raise InputError(
            f"{location} has format_version {manifest.format_version}, this gebm reads {FORMAT_VERSION}; "
            "choose another output directory"
        )
    return manifest


def begin_manifest(output: str, settings: dict[str, Any], items: Sequence[WorkItem]) -> Manifest:
    """Return the manifest to go on with: empty, or holding the sound records of an earlier run of the same.

    The files of finished items are compared with their recorded size and SHA-256; items whose file is gone or
    damaged are left out. Raises InputError when the directory belongs to a run with other settings or items.
    """
    settings = json.loads(json.dumps(settings))
    fresh = Manifest(
        settings_digest=_digest(settings, items),
        settings=settings,
        total=len(items),
        complete=False,
        items={},
    )
    old = load_manifest(output)
    if old is None:
        return fresh
    if old.settings_digest != fresh.settings_digest:
        raise InputError(
            f"{output} belongs to another run ({_first_difference(old.settings, settings)}); "
            "choose another output directory or remove this one"
        )
    return with_items(fresh, {name: record for name, record in old.items.items() if _is_sound(output, record)})


def with_items(manifest: Manifest, items: dict[str, dict[str, Any]]) -> Manifest:
    """Return the manifest with these records."""
    return manifest.model_copy(update={"items": items, "complete": len(items) == manifest.total})


def write_manifest(output: str, manifest: Manifest) -> None:
    """Publish the manifest: from now on its records are the output."""
    storage.write_json_atomic(storage.join(output, MANIFEST_NAME), manifest.model_dump())


def remove_strays(output: str, manifest: Manifest) -> None:
    """Remove the files of attempts that the manifest does not name, and nothing else."""
    kept = {str(record["name"]).split("/")[0] for record in manifest.items.values() if "name" in record}
    for name in storage.list_names(output):
        if _ATTEMPT.search(name) and name not in kept:
            storage.remove(storage.join(output, name))


def _is_sound(output: str, record: dict[str, Any]) -> bool:
    if "name" not in record:
        return True  # an item that makes no file has nothing that could be damaged
    location = storage.join(output, str(record["name"]))
    try:
        return storage.size(location) == record["bytes"] and storage.sha256(location) == record["sha256"]
    except FileNotFoundError:
        return False


def _digest(settings: dict[str, Any], items: Sequence[WorkItem]) -> str:
    text = json.dumps([settings, [list(item) for item in items]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str:
    for key in sorted(old.keys() | new.keys()):
        there, here = old.get(key), new.get(key)
        if there == here:
            continue
        if isinstance(there, dict) and isinstance(here, dict):
            return _first_difference(there, here, f"{prefix}{key}.")
        return f"{prefix}{key} is {there!r} there and {here!r} here"
    return "its work items are others"
