"""The manifest of a farm's output directory, `manifest.json`: its commit point; while a run is on, with its journal.

Workers write files under names that hold their attempt, so that two attempts never touch one file; what the
manifest names is the output, everything else in the directory is debris of attempts that were cut short.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.journal import FOLDER as JOURNAL
from gebm.cluster.journal import read_journal
from gebm.cluster.settings import StrictModel

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1
THREADS = 16
"""Files whose digests are taken at a time: they are reads of storage."""
MOST_READS = 20

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
    merged: int = 0
    """Publications of the journal before this number are among the items."""
    items: dict[str, dict[str, Any]]


def new_attempt() -> str:
    """Return a string that no other attempt has: part of the names of the files that this attempt writes."""
    return f"try{secrets.token_hex(5)}"


def load_manifest(output: str) -> Manifest | None:
    """Return the manifest of an output directory, None when there is none. Raises InputError.

    While a run is on, and after one that was cut short, the records of its journal are among the `items`.
    """
    for _ in range(MOST_READS):
        manifest = _read(output)
        # A complete one needs no journal: what is left of one is debris.
        if manifest is None or manifest.complete:
            return manifest
        try:
            news = read_journal(output, manifest.settings_digest, manifest.merged)
        except FileNotFoundError:
            continue  # the run that is on has put files of the journal together
        return with_items(manifest, {**manifest.items, **news})
    raise InputError(f"{storage.join(output, JOURNAL)} changes faster than it can be read; try again")


def _read(output: str) -> Manifest | None:
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


def begin_manifest(
    output: str,
    settings: dict[str, Any],
    items: Sequence[WorkItem],
    told: Callable[[dict[str, dict[str, Any]]], None] | None = None,
) -> Manifest:
    """Return the manifest to go on with: empty, or holding the sound records of an earlier run of the same.

    The files of finished items are compared with their recorded size and SHA-256, THREADS at a time; items whose file
    is gone or damaged are left out. `told` is called with the sound records so far, again and again.
    Raises InputError when the directory belongs to a run with other settings or items.
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
    return with_items(fresh, _sound(output, old.items, told))


def with_items(manifest: Manifest, items: dict[str, dict[str, Any]]) -> Manifest:
    """Return the manifest with these records."""
    return manifest.model_copy(update={"items": items, "complete": len(items) == manifest.total})


def write_manifest(output: str, manifest: Manifest) -> None:
    """Publish the manifest: from now on its records are the output.

    Readable JSON with a line for each item: a hundred thousand records take a second and not a minute. NaN and
    infinity are refused (ValueError).
    """
    head = json.dumps(
        manifest.model_copy(update={"items": {}}).model_dump(), indent=2, ensure_ascii=False, allow_nan=False
    )
    lines = [f"    {_dump(name)}: {_dump(record)}" for name, record in manifest.items.items()]
    before, empty, after = head.rpartition("{}")
    assert empty, "the items come last"
    items = "{\n" + ",\n".join(lines) + "\n  }" if lines else "{}"
    storage.write_bytes_atomic(storage.join(output, MANIFEST_NAME), f"{before}{items}{after}\n".encode())


def _dump(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def remove_strays(output: str, manifest: Manifest) -> None:
    """Remove the files of attempts that the manifest does not name, and nothing else."""
    kept = {str(record["name"]).split("/")[0] for record in manifest.items.values() if "name" in record}
    for name in storage.list_names(output):
        if _ATTEMPT.search(name) and name not in kept:
            storage.remove(storage.join(output, name))


def _sound(
    output: str,
    records: dict[str, dict[str, Any]],
    told: Callable[[dict[str, dict[str, Any]]], None] | None,
) -> dict[str, dict[str, Any]]:
    """The records whose files are as they were written, in the same order."""
    found: dict[str, dict[str, Any]] = {}
    threads = ThreadPoolExecutor(THREADS)
    try:
        answers = threads.map(lambda record: _is_sound(output, record), records.values())
        for (name, record), sound in zip(records.items(), answers, strict=True):
            if sound:
                found[name] = record
            if told is not None:
                told(found)
    finally:
        threads.shutdown(cancel_futures=True)
    return found


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
