"""Writing a data set: its splits as shard sets, beside a description of what they were made from."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import tomli_w

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index, make_index, write_index
from gebm.cluster.shards import ShardRecord, write_shard

SPLITS = ("train", "validation", "test")
DESCRIPTION = "dataset.toml"

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


def write_dataset(out: str, description: Mapping[str, Any], write: Callable[[str], None]) -> bool:
    """Let `write(out)` make the shard sets of a data set, unless they are there already; say whether it ran.

    `description` is what the data set is made from: the same one at `out` means that it is finished; a
    damaged or interrupted one is written again, another one raises `InputError`. When `write` refuses its
    input, what it had written is taken away again.
    """
    out = storage.absolute(out)
    location = storage.join(out, DESCRIPTION)
    if storage.exists(location):
        found = tomllib.loads(storage.read_text(location))
        complete = found.pop("complete", False)
        if complete and found != dict(description):
            raise InputError(
                f"{out} belongs to another data set: {_difference(found, description)}; choose another OUT"
            )
        if complete and all(_is_sound(storage.join(out, split)) for split in splits_of(out)):
            return False
    elif any(storage.exists(storage.join(out, split)) for split in SPLITS):
        raise InputError(f"{out} holds shards without a {DESCRIPTION}: another tool made them; choose another OUT")
    _describe(location, description, complete=False)
    _remove_splits(out)
    try:
        write(out)
    except InputError:
        _remove_splits(out)
        storage.remove(location)
        if not storage.list_names(out):
            storage.remove(out)
        raise
    _describe(location, description, complete=True)
    return True


def write_split(
    url: str,
    samples: Iterable[Mapping[str, str | bytes]],
    *,
    image_shape: tuple[int, ...],
    classes: int | None,
    shard_size: int,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Write samples as shards of `shard_size` and publish their index. One shard at a time is in memory.

    `progress` is told the number of samples in each finished shard.
    """
    iterator = iter(samples)
    records: list[ShardRecord] = []
    while chunk := list(islice(iterator, shard_size)):
        records.append(write_shard(storage.join(url, f"{len(records):05d}.tar"), chunk))
        if progress is not None:
            progress(len(chunk))
    write_index(url, make_index(records, image_shape, classes))


def counting(progress: Progress | None, total: int) -> Callable[[int], None]:
    """From reports of so many more to reports of so many of `total`, over several splits."""
    done = 0

    def advance(finished: int) -> None:
        nonlocal done
        done += finished
        if progress is not None:
            progress(done, total)

    return advance


def split_counts(total: int, fractions: tuple[float, float, float]) -> tuple[int, int, int]:
    """Cut `total` samples into train, validation and test. Raises `InputError` when a split comes out empty.

    A fraction of 0 leaves that split out; training gets what rounding leaves over.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6 or fractions[0] == 0:
        spelled = ",".join(f"{fraction:g}" for fraction in fractions)
        raise InputError(f"split {spelled}: give three fractions with sum 1, the first above 0")
    validation, test = (round(total * fraction) for fraction in fractions[1:])
    counts = (total - validation - test, validation, test)
    for name, fraction, count in zip(SPLITS, fractions, counts, strict=True):
        if fraction > 0 and count < 1:
            raise InputError(
                f"{total} samples leave none for {name} ({fraction:g}); give more of them or another split"
            )
    return counts


def splits_of(out: str) -> Iterator[str]:
    """The names of the splits that stand in the folder of a data set."""
    return (split for split in SPLITS if storage.exists(storage.join(out, split, "index.json")))


def _is_sound(url: str) -> bool:
    """Whether every shard is there with its size: a damaged set is written again."""
    try:
        load_index(url)
    except InputError:
        return False
    return True


def _remove_splits(out: str) -> None:
    for split in SPLITS:
        storage.remove(storage.join(out, split))


def _describe(location: str, description: Mapping[str, Any], *, complete: bool) -> None:
    storage.write_bytes_atomic(location, tomli_w.dumps({**description, "complete": complete}).encode())


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    key = next(key for key in {**found, **wanted} if found.get(key) != wanted.get(key))
    return f"its {key} is {found.get(key, 'unset')}, not {wanted.get(key, 'unset')}"
