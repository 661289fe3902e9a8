"""Images or vectors out of an indexed shard set, in index order, as arrays."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import load_index
from gebm.cluster.shards import Sample, ShardRecord, decompress, sample_label, sample_values
from gebm.cluster.tar_samples import samples_at


class ImageBatch(NamedTuple):
    """Decoded samples."""

    images: np.ndarray
    """uint8 (n, channels, height, width); of a set of vectors float32 (n, d)"""
    labels: np.ndarray | None
    """int64 (n,), None for a set without labels"""
    keys: list[str]


def read_shard(
    url: str,
    record: ShardRecord,
    start: int = 0,
    stop: int | None = None,
    *,
    form: ImageForm,
    tar: bytes | None = None,
) -> ImageBatch:
    """Return samples [start, stop) of one shard of the set at `url`; to its end when `stop` is None.

    `form` is that of the set's index; `tar` the whole uncompressed tar, where it is at hand. Else of a plain .tar
    only those bytes are read, and a .tar.gz is decompressed from its beginning.
    Raises InputError when the shard is not what its record says.
    """
    stop = record.count if stop is None else stop
    if not 0 <= start < stop <= record.count:
        raise ValueError(f"samples {start} to {stop} of {record.name}, which has {record.count}")
    return decode_samples(read_samples(url, record, start, stop, tar), source=storage.join(url, record.name), form=form)


def iterate_batches(url: str, batch_size: int, start: int = 0, stop: int | None = None) -> Iterator[ImageBatch]:
    """Yield samples [start, stop) of the whole set in index order, `batch_size` at a time, the last shorter.

    Samples are numbered through all shards. One shard's encoded bytes are in memory at a time.
    """
    index = load_index(url)
    stop = index.total if stop is None else min(stop, index.total)
    waiting: list[ImageBatch] = []
    first = 0
    for record in index.shards:
        low, high = max(0, start - first), min(record.count, stop - first)
        first += record.count
        if low >= high:
            continue
        source = storage.join(url, record.name)
        samples = read_samples(url, record, low, high)
        while low < high:
            missing = batch_size - sum(len(piece.keys) for piece in waiting)
            take = min(missing, high - low)
            waiting.append(decode_samples(islice(samples, take), source=source, form=index.form))
            low += take
            if take == missing:
                yield concatenate(waiting)
                waiting = []
        next(samples, None)  # lets the iterator look whether the shard really ends here
    if waiting:
        yield concatenate(waiting)


def read_all(url: str, limit: int | None = None) -> ImageBatch:
    """Return the first `limit` samples of a set, or all of them: for sets that fit in memory."""
    total = load_index(url).total
    return next(iterate_batches(url, total if limit is None else min(limit, total)))


def shard_tar(url: str, record: ShardRecord) -> bytes:
    """Return the whole uncompressed tar of one shard. Raises InputError when it is not the file of `record`."""
    source = storage.join(url, record.name)
    data = _read(source, 0, None)
    _check_file(data, record, source)
    return decompress(data, source=source)


def decode_samples(samples: Iterable[Sample], *, source: str, form: ImageForm) -> ImageBatch:
    """Decode samples of one shard into arrays, images in `form`. Raises InputError naming shard and key."""
    images: list[np.ndarray] = []
    labels: list[int | None] = []
    keys: list[str] = []
    for sample in samples:
        image = sample_values(sample, source=source, form=form)
        if images and image.shape != images[0].shape:
            raise InputError(
                f"shard {source}: sample {sample.key!r} is of shape {image.shape}, "
                f"unlike {images[0].shape} of those before it; index the set again"
            )
        images.append(image)
        labels.append(sample_label(sample, source=source))
        keys.append(sample.key)
    known = [label for label in labels if label is not None]
    if len(known) not in (0, len(labels)):
        raise InputError(f"shard {source}: only some samples have a label; index the set again")
    return ImageBatch(np.stack(images), np.array(known, dtype=np.int64) if known else None, keys)


def concatenate(batches: list[ImageBatch]) -> ImageBatch:
    """Join batches of one set, in order."""
    if len(batches) == 1:
        return batches[0]
    labels = [batch.labels for batch in batches if batch.labels is not None]
    return ImageBatch(
        np.concatenate([batch.images for batch in batches]),
        np.concatenate(labels) if labels else None,
        [key for batch in batches for key in batch.keys],
    )


def read_samples(url: str, record: ShardRecord, start: int, stop: int, tar: bytes | None = None) -> Iterator[Sample]:
    """Read the bytes of samples [start, stop) of a shard, and return what yields the samples; `tar` as in `read_shard`.

    Raises InputError, at once or when samples are taken, when they are not what `record` says.
    """
    source = storage.join(url, record.name)
    starts = record.starts
    begin, end = int(starts[start]), int(starts[stop]) if stop < record.count else None
    if not record.name.endswith(".tar"):
        data = (shard_tar(url, record) if tar is None else tar)[begin:end]
    else:
        data = _read(source, begin, end)
        if start == 0 and end is None:
            _check_file(data, record, source)
    return samples_at(data, starts[start:stop] - begin, source=source)


def _read(source: str, begin: int, end: int | None) -> bytes:
    try:
        return storage.read_range(source, begin, end)
    except FileNotFoundError as error:
        raise InputError(f"shard {source} is missing; put it back") from error


def _check_file(data: bytes, record: ShardRecord, source: str) -> None:
    """Whoever has a whole file can tell whether it is the one that was indexed."""
    if hashlib.sha256(data).hexdigest() != record.sha256:
        raise InputError(
            f"shard {source} is not the file that was indexed (its SHA-256 is another); fetch it again or index the "
            "set again"
        )
