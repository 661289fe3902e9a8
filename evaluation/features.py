"""Features of whole shard sets, extracted on the farm and kept by content."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, WorkItem, run_farm
from gebm.cluster.index import ShardIndex, load_index
from gebm.cluster.reader import read_shard
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.range_order import RangeOrder

IMAGES_PER_ITEM = 250
ITEM_BYTES = 256 * 2**20
# Part of every work item, so that features are the same bytes whatever a machine or an actor has: a matrix
# product may round differently with another number of threads.
THREADS = 1

FeatureType = Literal["float32", "float16"]
FarmReport = Callable[[FarmProgress], None]


class Range(NamedTuple):
    """Images `start` to `stop` of shard number `shard` of the set number `source`: a work item."""

    source: int
    shard: int
    start: int
    stop: int


class FeatureSets(NamedTuple):
    """Features of several shard sets, `(n, d)` float32 each, and the description of their extractor."""

    features: list[np.ndarray]
    extractor: dict[str, Any]


def extract_features(
    url: str,
    settings: ExtractorSettings,
    *,
    cache: str | None = None,
    actors: int = 1,
    gpus_per_actor: float = 0,
    batch: int = 50,
    limit: int | None = None,
    progress: FarmReport | None = None,
) -> np.ndarray:
    """Features `(n, d)`, float32, of one shard set in index order; see `extract_feature_sets`."""
    return extract_feature_sets(
        [url],
        settings,
        cache=cache,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        batch=batch,
        limit=limit,
        progress=progress,
    ).features[0]


def extract_feature_sets(
    urls: Sequence[str],
    settings: ExtractorSettings,
    *,
    cache: str | None = None,
    actors: int = 1,
    gpus_per_actor: float = 0,
    batch: int = 50,
    limit: int | None = None,
    progress: FarmReport | None = None,
) -> FeatureSets:
    """Features of several shard sets, each in index order, by one farm; arguments and errors of `fold_feature_sets`."""
    found: dict[Range, np.ndarray] = {}
    description = fold_feature_sets(
        urls,
        settings,
        found.__setitem__,
        cache=cache,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        batch=batch,
        limit=limit,
        progress=progress,
    )
    parts: list[list[np.ndarray]] = [[] for _ in urls]
    for part in sorted(found):
        parts[part.source].append(found[part])
    return FeatureSets([np.concatenate(each) for each in parts], description)


def fold_feature_sets(
    urls: Sequence[str],
    settings: ExtractorSettings,
    fold: Callable[[Range, np.ndarray], None],
    *,
    cache: str | None = None,
    actors: int = 1,
    gpus_per_actor: float = 0,
    batch: int = 50,
    limit: int | None = None,
    dtype: FeatureType = "float32",
    progress: FarmReport | None = None,
) -> dict[str, Any]:
    """Hand the features of several shard sets to `fold(range, features)`, range by range, and keep none of them.

    Needs a connection to Ray. Work items are ranges of shards; decoding and network run in the actors. Every range
    comes once, in an order that follows from the sets alone; `fold` runs in one thread beside the farm. With `cache`,
    a range's features are a `.npy` file `<cache>/<digest of the extractor>/<digest of the shard>-<range>.npy`:
    extracted once, whatever the set is called, continued after an interruption, the same bytes for any number of
    actors.

    Args:
        urls: indexed shard sets.
        settings: the extractor.
        fold: told each range and its features `(n, d)`, float32.
        cache: URL of a directory that keeps features; None to keep none.
        actors: processes that extract.
        gpus_per_actor: 0 for the CPU.
        batch: images handed to the network at once.
        limit: only the first so many images of each set.
        dtype: of the files in the cache; float16 takes half the room and keeps three digits.
        progress: called with the farm's progress; not at all if everything was in the cache.

    Returns:
        The description of the extractor.

    Raises:
        InputError: no index, unreadable shards, an extractor without weights or for samples of another kind,
            NaN or infinity among the features.
        FarmError: work items that kept failing.
    """
    from gebm.evaluation.extractors.extractor import make_extractor

    urls = [storage.absolute(url) for url in urls]
    indexes = [load_index(url) for url in urls]
    _check_shapes(urls, indexes, settings)
    description = make_extractor(settings, image_shape=indexes[0].image_shape).description
    folder = None
    if cache is not None:
        folder = features_folder(cache, description, batch=batch, dtype=dtype, on_gpu=gpus_per_actor > 0)
    # Sets that share a shard share its features: by file name, the ranges that they are of.
    ranges: dict[str, list[Range]] = {}
    for number, index in enumerate(indexes):
        for part in split_into_ranges(number, index, limit):
            ranges.setdefault(file_of_range(part, index), []).append(part)
    there = _cached(folder, ranges, int(description["dimension"] or 0), dtype) if folder is not None else set()

    def fold_one(name: str, data: bytes | None) -> None:
        stored = _parse_array(storage.read_bytes(storage.join(str(folder), name)) if data is None else data, name)
        features = stored.astype(np.float32, copy=False)
        for part in ranges[name]:
            _check_finite(features, part, urls[part.source], indexes[part.source], settings)
            fold(part, features)

    with RangeOrder(list(ranges), fold_one) as order:
        for name in there:
            order.put(name)

        def keep(item: WorkItem, record: dict[str, Any]) -> dict[str, Any]:
            """Hands the features on; the farm keeps how many there were."""
            packed = record.pop("npy", None)
            order.put(item.id, None if packed is None else base64.b64decode(packed))
            return record

        items = [
            WorkItem(name, 0, {"range": list(parts[0]), "batch": batch, "threads": THREADS})
            for name, parts in ranges.items()
            if name not in there
        ]
        if items:
            run_farm(
                items,
                partial(_make_worker, urls, indexes, settings, folder, "cuda" if gpus_per_actor > 0 else "cpu", dtype),
                None,
                settings={},
                actors=min(actors, len(items)),
                gpus_per_actor=gpus_per_actor,
                progress=progress,
                keep=keep,
                stage="features",
            )
    return description


def range_features(
    url: str, index: ShardIndex, part: Range, extractor: Callable[[Any], Any], batch: int = 50
) -> np.ndarray:
    """Features `(n, d)`, float32, of one range of the set at `url`: read, decoded, `batch` images at a time."""
    import torch

    images = read_shard(url, index.shards[part.shard], part.start, part.stop, form=index.form).images
    return torch.cat([extractor(some) for some in torch.from_numpy(images).split(batch)]).numpy()


def split_into_ranges(source: int, index: ShardIndex, limit: int | None) -> list[Range]:
    """The first `limit` images of the set as ranges of at most 250 images, each within one shard."""
    size = max(1, min(IMAGES_PER_ITEM, ITEM_BYTES // index.sample_bytes))
    left = index.total if limit is None else min(limit, index.total)
    ranges = []
    for number, shard in enumerate(index.shards):
        count = min(shard.count, left)
        left -= count
        ranges += [Range(source, number, start, min(start + size, count)) for start in range(0, count, size)]
    return ranges


def _check_shapes(urls: list[str], indexes: list[ShardIndex], settings: ExtractorSettings) -> None:
    """Raise `InputError` for sets whose features would not be of one kind."""
    from gebm.evaluation.extractors import raw

    first = indexes[0]
    for url, index in zip(urls[1:], indexes[1:], strict=True):
        if index.holds_vectors != first.holds_vectors:
            raise InputError(f"{urls[0]} and {url}: images and vectors cannot be compared")
        if index.image_shape != first.image_shape and settings.name == raw.NAME:
            raise InputError(
                f"{urls[0]} has samples of shape {first.image_shape} and {url} of {index.image_shape}: "
                "raw values of different shapes cannot be compared"
            )


def _make_worker(
    urls: list[str],
    indexes: list[ShardIndex],
    settings: ExtractorSettings,
    folder: str | None,
    device: str,
    dtype: FeatureType,
) -> Callable[[WorkItem, str], dict[str, Any]]:
    """Runs once in each actor: loads the extractor and returns the function that does one item."""
    import torch

    from gebm.evaluation.extractors.extractor import make_extractor

    torch.set_num_threads(THREADS)
    extractor = make_extractor(settings, device, indexes[0].image_shape)

    def work(item: WorkItem, attempt: str) -> dict[str, Any]:
        part = Range(*item.description["range"])
        features = range_features(
            urls[part.source], indexes[part.source], part, extractor, batch=item.description["batch"]
        )
        data = _array_bytes(features, dtype)
        if folder is None:  # records are JSON
            return {"count": len(features), "npy": base64.b64encode(data).decode()}
        # Written whole or not at all, and the same by every attempt: a file that is there is right.
        storage.write_bytes_atomic(storage.join(folder, item.id), data)
        return {"count": len(features)}

    return work


def features_folder(
    cache: str, description: dict[str, Any], *, batch: int = 50, dtype: FeatureType = "float32", on_gpu: bool = False
) -> str:
    """Where a cache keeps the features of an extractor that is so described."""
    key = {"extractor": description, "batch": batch, "threads": THREADS, "gpu": on_gpu}
    return storage.join(storage.absolute(cache), digest_of(key if dtype == "float32" else key | {"dtype": dtype}))


def file_of_range(part: Range, index: ShardIndex) -> str:
    """The name of a range's file in that folder."""
    form = "".join(f"-{name}{value}" for name, value in index.form._asdict().items() if value is not None)
    return f"{index.shards[part.shard].sha256[:32]}{form}-{part.start:07d}-{part.stop:07d}.npy"


def _cached(folder: str, ranges: dict[str, list[Range]], dimension: int, dtype: FeatureType) -> set[str]:
    """Names whose features are there; a file of another size than theirs counts as absent."""
    sizes = storage.list_sizes(folder)
    rows: dict[str, int] = {name: parts[0].stop - parts[0].start for name, parts in ranges.items() if name in sizes}
    expected = {count: _array_size(count, dimension, dtype) for count in set(rows.values())}
    return {name for name, count in rows.items() if sizes[name] == expected[count]}


def _array_size(count: int, dimension: int, dtype: FeatureType) -> int:
    """Bytes of the file of features `(count, dimension)`."""
    header, kind = io.BytesIO(), np.dtype(dtype)
    form = {"descr": kind.str, "fortran_order": False, "shape": (count, dimension)}
    np.lib.format.write_array_header_1_0(header, form)
    return len(header.getvalue()) + kind.itemsize * count * dimension


def _array_bytes(values: np.ndarray, dtype: FeatureType) -> bytes:
    buffer = io.BytesIO()
    with np.errstate(over="ignore"):  # what float16 cannot hold is infinite, and refused as such
        stored = np.ascontiguousarray(values, dtype)
    np.save(buffer, stored, allow_pickle=False)
    return buffer.getvalue()


def _parse_array(data: bytes, name: str) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"cached features {name} are damaged ({error}); remove the file") from error


def digest_of(key: dict[str, Any]) -> str:
    """32 hexadecimal digits that tell JSON-able values apart."""
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _check_finite(features: np.ndarray, part: Range, url: str, index: ShardIndex, settings: ExtractorSettings) -> None:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        first = part.start + int(np.argmin(finite))
        raise InputError(
            f"{url}: {int((~finite).sum())} of {len(features)} feature vectors of images {part.start} to {part.stop} "
            f"of {index.shards[part.shard].name} hold NaN or infinity, the first of image {first}; check the weights "
            f"of {settings.name}"
        )
