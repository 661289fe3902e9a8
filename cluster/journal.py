"""The journal of a farm that is on: the records that its manifest does not name yet, in small files of their own.

Object stores can neither append nor rename, so each publication is one new file of new records, in `journal/` beside
the manifest. When FANOUT files have come together they are written again as one, and FANOUT of those as one, and so on:
n publications leave O(log n) files and write each record O(log n) times. The manifest says from which number on the
journal counts, so that files which it has taken over, and nobody has removed yet, say nothing.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from gebm.cluster import storage

Record = dict[str, Any]

FOLDER = "journal"
FANOUT = 16
THREADS = 16

# The number of the last publication in it, how often it was put together, and chance: two drivers of one run, which
# must not be, at least do not write over each other's records.
_NAME = re.compile(r"(?P<last>\d{8})-(?P<level>\d+)-[0-9a-f]{8}\.json")

_log = logging.getLogger(__name__)


class _File(NamedTuple):
    name: str
    items: tuple[str, ...]


class Journal:
    """Writes the journal of the run whose settings have this digest, from publication `number` on."""

    def __init__(self, output: str, settings_digest: str, number: int) -> None:
        self._folder = storage.join(output, FOLDER)
        self._digest, self._number = settings_digest, number
        self._levels: list[list[_File]] = []

    def append(self, items: Iterable[str], records: Mapping[str, Record]) -> None:
        """Publish the records of these items; `records` holds them and all published before."""
        file = self._write(0, items, records)
        self._number += 1
        for level, files in enumerate(self._levels):
            files.append(file)
            if len(files) < FANOUT:
                return
            together = {name: None for each in files for name in each.items}
            file = self._write(level + 1, together, records, last=self._number - 1)
            for each in files:
                storage.remove(storage.join(self._folder, each.name))
            files.clear()
        self._levels.append([file])

    def _write(self, level: int, items: Iterable[str], records: Mapping[str, Record], last: int | None = None) -> _File:
        items = tuple(items)
        last = self._number if last is None else last
        name = f"{last:08d}-{level}-{secrets.token_hex(4)}.json"
        content = {"settings_digest": self._digest, "items": {item: records[item] for item in items}}
        text = json.dumps(content, ensure_ascii=False, allow_nan=False)
        storage.write_bytes_atomic(storage.join(self._folder, name), text.encode() + b"\n")
        return _File(name, items)


def read_journal(output: str, settings_digest: str, first: int) -> dict[str, Record]:
    """Return the records published in the journal of this run since number `first`, the last one of each item.

    A file that cannot be read was not published whole, and is passed over with a warning. Raises FileNotFoundError
    when a file goes while it is read: it has been put together with others, and all must be read again.
    """
    folder = storage.join(output, FOLDER)
    names = [name for last, name in _list(folder) if last >= first]
    records: dict[str, Record] = {}
    locations = [storage.join(folder, name) for name in names]
    with ThreadPoolExecutor(THREADS) as threads:
        contents = list(threads.map(storage.read_bytes, locations))
    for location, data in zip(locations, contents, strict=True):
        try:
            content = json.loads(data)
            if content["settings_digest"] == settings_digest:
                records.update({str(item): dict(record) for item, record in content["items"].items()})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            _log.warning("%s is damaged (%r): its items are done again", location, error)
    return records


def next_number(output: str) -> int:
    """Return a number that no publication in the journal at `output` has, nor one before it."""
    return max((last + 1 for last, _ in _list(storage.join(output, FOLDER))), default=0)


def remove_journal(output: str) -> None:
    """Remove the journal, once the manifest names all."""
    storage.remove(storage.join(output, FOLDER))


def _list(folder: str) -> list[tuple[int, str]]:
    """The files of a journal in the order in which they were published."""
    found = [(match, name) for name in storage.list_names(folder) if (match := _NAME.fullmatch(name))]
    return [(int(match["last"]), name) for match, name in sorted(found, key=lambda each: each[1])]
