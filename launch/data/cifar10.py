"""The shards of CIFAR-10 (`train-*.tar.gz`, `test-*.tar.gz`, with `jpg` and `cls`) as a data set."""

from __future__ import annotations

import os

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import ShardIndex, build_index, make_index, write_index
from gebm.cluster.shards import ShardRecord
from gebm.launch.data.splits import Progress, write_dataset

IMAGE_SHAPE = (3, 32, 32)
CLASSES = 10


def write_cifar10(source: str, out: str, *, validation_shards: int = 1, progress: Progress | None = None) -> bool:
    """Check the CIFAR-10 shards at `source` and lay them out in `out` as `train`, `validation` and `test`.

    The validation set is the last `validation_shards` shards of training. Files are hard-linked where `out`
    is on the same disk, else copied. Everything is read and checked before anything is written. Returns False
    when the same was laid out before. Raises `InputError` naming the shard and key that is wrong.
    """
    source, out = storage.absolute(source), storage.absolute(out)
    names = [name for name in storage.list_names(source) if name.startswith(("train-", "test-"))]
    listing = {name: size for name, size in storage.list_sizes(source).items() if name in names}
    description = {"source": "cifar10", "validation_shards": validation_shards, "shards": listing}

    def write(out: str) -> None:
        read, total = 0, max(1, len(listing))

        def advance(done: int, _: int) -> None:
            if progress is not None:
                progress(read + done, total)

        train = _checked(source, "train-*.tar*", advance)
        read = len(train.shards)
        test = _checked(source, "test-*.tar*", advance)
        if not 1 <= validation_shards < len(train.shards):
            raise InputError(
                f"--validation-shards {validation_shards}: {source} has {len(train.shards)} training shards; "
                f"give 1 to {len(train.shards) - 1}, so that both sets get some"
            )
        split = {
            "train": train.shards[:-validation_shards],
            "validation": train.shards[-validation_shards:],
            "test": test.shards,
        }
        for name, records in split.items():
            url = storage.join(out, name)
            storage.make_directory(url)
            for record in records:
                _place(source, url, record)
            write_index(url, make_index(list(records), IMAGE_SHAPE, CLASSES))

    return write_dataset(out, description, write)


def _checked(source: str, pattern: str, progress: Progress) -> ShardIndex:
    index = build_index(source, pattern, progress)
    if index.image_shape != IMAGE_SHAPE or index.classes != CLASSES:
        raise InputError(
            f"{source}/{pattern}: images of shape {index.image_shape} and {index.classes} classes; "
            f"CIFAR-10 has {IMAGE_SHAPE} and {CLASSES}: use `gebm data index` for another data set"
        )
    return index


def _place(source: str, out: str, record: ShardRecord) -> None:
    """Bring one shard file to `out`: as a hard link when that is possible, else as a copy."""
    there, here = storage.join(source, record.name), storage.join(out, record.name)
    local_there, local_here = storage.local_path(there), storage.local_path(here)
    if local_there is not None and local_here is not None:
        local_here.unlink(missing_ok=True)
        try:
            os.link(local_there, local_here)
        except OSError:
            # Another disk, or a file system without links (or a protected file): a copy does as well.
            storage.write_bytes_atomic(here, storage.read_bytes(there))
        return
    storage.write_bytes_atomic(here, storage.read_bytes(there))
