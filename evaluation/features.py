"""Features of whole shard sets, extracted on the farm and kept by content."""

import base64
import hashlib
import io
import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, WorkItem, run_farm
from gebm.cluster.index import ShardIndex, load_index
from gebm.cluster.reader import read_shard
from gebm.evaluation.extractors.settings import ExtractorSettings

IMAGES_PER_ITEM = 250
ITEM_BYTES = 256 * 2**20
# Part of every work item, so that features are the same bytes whatever a machine or an actor has: a matrix
# product may round differently with another number of threads.
THREADS = 1

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
    """Features of several shard sets, each in index order, by one farm. Needs a connection to Ray.

    Work items are ranges of shards; decoding and network run in the actors. With `cache`, a range's features
    are a `.npy` file `<cache>/<digest of the extractor>/<digest of the shard>-<range>.npy`: extracted once,
    whatever the set is called, continued after an interruption, the same bytes for any number of actors.

    Args:
        urls: indexed shard sets.
        settings: the extractor.
        cache: URL of a directory that keeps features; None to keep none.
        actors: processes that extract.
        gpus_per_actor: 0 for the CPU.
        batch: images handed to the network at once.
        limit: only the first so many images of each set.
        progress: called with the farm's progress; not at all if everything was in the cache.

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
        key = {"extractor": description, "batch": batch, "threads": THREADS, "gpu": gpus_per_actor > 0}
        folder = storage.join(storage.absolute(cache), _digest(key))
    ranges = [part for number, index in enumerate(indexes) for part in split_into_ranges(number, index, limit)]
    names = {part: _file_name(part, indexes[part.source]) for part in ranges}
    found = _read_cache(folder, names) if folder is not None else {}

    missing = {names[part]: part for part in ranges if names[part] not in found}
    items = [
        WorkItem(name, 0, {"range": list(part), "batch": batch, "threads": THREADS}) for name, part in missing.items()
    ]
    if items:
        records = run_farm(
            items,
            partial(_make_worker, urls, indexes, settings, folder, "cuda" if gpus_per_actor > 0 else "cpu"),
            None,
            settings={},
            actors=min(actors, len(items)),
            gpus_per_actor=gpus_per_actor,
            progress=progress,
            stage="features",
        )
        for name, record in records.items():
            data = base64.b64decode(record["npy"]) if folder is None else storage.read_bytes(storage.join(folder, name))
            found[name] = _parse_array(data)
    features = []
    for source, url in enumerate(urls):
        parts = [found[names[part]] for part in ranges if part.source == source]
        features.append(np.concatenate(parts))
        _check_finite(features[-1], url, settings)
    return FeatureSets(features, description)


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
    urls: list[str], indexes: list[ShardIndex], settings: ExtractorSettings, folder: str | None, device: str
) -> Callable[[WorkItem, str], dict[str, Any]]:
    """Runs once in each actor: loads the extractor and returns the function that does one item."""
    import torch

    from gebm.evaluation.extractors.extractor import make_extractor

    torch.set_num_threads(THREADS)
    extractor = make_extractor(settings, device, indexes[0].image_shape)

    def work(item: WorkItem, attempt: str) -> dict[str, Any]:
        part = Range(*item.description["range"])
        index = indexes[part.source]
        batch = read_shard(urls[part.source], index.shards[part.shard], part.start, part.stop, form=index.form)
        images = torch.from_numpy(batch.images)
        features = torch.cat([extractor(some) for some in images.split(item.description["batch"])]).numpy()
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        if folder is None:  # records are JSON
            return {"count": len(features), "npy": base64.b64encode(buffer.getvalue()).decode()}
        # Written whole or not at all, and the same by every attempt: a file that is there is right.
        storage.write_bytes_atomic(storage.join(folder, item.id), buffer.getvalue())
        return {"count": len(features)}

    return work


def _file_name(part: Range, index: ShardIndex) -> str:
    form = "".join(f"-{name}{value}" for name, value in index.form._asdict().items() if value is not None)
    return f"{index.shards[part.shard].sha256[:32]}{form}-{part.start:07d}-{part.stop:07d}.npy"


def _read_cache(folder: str, names: dict[Range, str]) -> dict[str, np.ndarray]:
    """The features that are there, by file name; a file that is cut short or no array counts as absent."""
    there = set(storage.list_names(folder))
    found = {}
    for part, name in names.items():
        if name in there and name not in found:
            try:
                values = _parse_array(storage.read_bytes(storage.join(folder, name)))
            except (ValueError, EOFError):
                continue
            if values.ndim == 2 and len(values) == part.stop - part.start and values.dtype == np.float32:
                found[name] = values
    return found


def _parse_array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def _digest(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _check_finite(features: np.ndarray, url: str, settings: ExtractorSettings) -> None:
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{url}: {int((~finite).sum())} of {len(features)} feature vectors hold NaN or infinity, the "
            f"first of image {int(np.argmin(finite))}; check the weights of {settings.name}"
        )
