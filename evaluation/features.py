"""Features of a whole shard set, extracted on the farm and kept by content."""

import hashlib
import io
import json
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, WorkItem, run_farm
from gebm.cluster.index import ShardIndex, index_digest, load_index
from gebm.cluster.reader import read_shard
from gebm.evaluation.extractors.settings import ExtractorSettings

IMAGES_PER_ITEM = 250
ITEM_BYTES = 256 * 2**20
# Part of every work item, so that features are the same bytes whatever a machine or an actor has: a matrix
# product may round differently with another number of threads.
THREADS = 1


class Range(NamedTuple):
    """Images `start` to `stop` of one shard: a work item."""

    shard: int
    start: int
    stop: int


def extract_features(
    url: str,
    settings: ExtractorSettings,
    *,
    cache: str | None = None,
    actors: int = 1,
    gpus_per_actor: float = 0,
    batch: int = 50,
    limit: int | None = None,
    progress: Callable[[FarmProgress], None] | None = None,
) -> np.ndarray:
    """Features `(n, d)`, float32, of the images of a shard set in index order.

    Work items are ranges of shards; decoding and network run in the actors. With `cache`, each range's
    features are a `.npy` file under `<cache>/<digest of shard contents and extractor>`: extracted once,
    resumed after an interruption, the same bytes for any number of actors.

    Args:
        url: an indexed shard set.
        settings: the extractor.
        cache: URL of a directory that keeps features; None to keep none.
        actors: processes that extract.
        gpus_per_actor: 0 for the CPU.
        batch: images handed to the network at once.
        limit: only the first so many images.
        progress: called with the farm's progress.

    Raises:
        InputError: no index, unreadable shards, an extractor without weights, NaN or infinity among the
            features.
        FarmError: work items that kept failing.
    """
    from gebm.evaluation.extractors.extractor import make_extractor

    url = storage.absolute(url)
    index = load_index(url)
    description = make_extractor(settings).description
    ranges = split_into_ranges(index, limit)
    items = [
        WorkItem(f"{index.shards[part.shard].name}:{part.start:07d}", 0, {**part._asdict(), "batch": batch})
        for part in ranges
    ]
    request = {"shards": index_digest(index), "extractor": description, "batch": batch, "limit": limit}
    output = storage.join(storage.absolute(cache), _digest(request)) if cache is not None else None
    device = "cuda" if gpus_per_actor > 0 else "cpu"
    records = run_farm(
        items,
        partial(_make_worker, url, index, settings, output, device),
        output,
        settings=request,
        actors=min(actors, len(items)),
        gpus_per_actor=gpus_per_actor,
        progress=progress,
    )
    parts = [
        record["features"] if output is None else _read_array(storage.join(output, record["name"]))
        for record in records.values()
    ]
    features = np.concatenate(parts)
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        raise InputError(
            f"{url}: {int((~finite).sum())} of {len(features)} feature vectors hold NaN or infinity, first "
            f"that of image {int(np.argmin(finite))}; check the weights of {settings.name}"
        )
    return features


def split_into_ranges(index: ShardIndex, limit: int | None) -> list[Range]:
    """The first `limit` images of the set as ranges of at most 250 images, each within one shard."""
    image_bytes = int(np.prod(index.image_shape))
    size = max(1, min(IMAGES_PER_ITEM, ITEM_BYTES // image_bytes))
    left = index.total if limit is None else min(limit, index.total)
    ranges = []
    for number, shard in enumerate(index.shards):
        count = min(shard.count, left)
        left -= count
        ranges += [Range(number, start, min(start + size, count)) for start in range(0, count, size)]
    return ranges


def _make_worker(
    url: str, index: ShardIndex, settings: ExtractorSettings, output: str | None, device: str
) -> Callable[[WorkItem, str], dict[str, Any]]:
    """Runs once in each actor: loads the extractor and returns the function that does one item."""
    import torch

    from gebm.evaluation.extractors.extractor import make_extractor

    torch.set_num_threads(THREADS)
    extractor = make_extractor(settings, device)

    def work(item: WorkItem, attempt: str) -> dict[str, Any]:
        shard, start, stop = (item.description[key] for key in Range._fields)
        images = torch.from_numpy(read_shard(url, index.shards[shard], start, stop).images)
        features = torch.cat([extractor(part) for part in images.split(item.description["batch"])]).numpy()
        if output is None:
            return {"count": len(features), "features": features}
        buffer = io.BytesIO()
        np.save(buffer, features, allow_pickle=False)
        data = buffer.getvalue()
        name = f"{shard:05d}-{start:07d}-{attempt}.npy"
        storage.write_bytes_atomic(storage.join(output, name), data)
        return {
            "name": name,
            "count": len(features),
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }

    return work


def _read_array(url: str) -> np.ndarray:
    return np.load(io.BytesIO(storage.read_bytes(url)), allow_pickle=False)


def _digest(request: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()[:32]
