"""WebDataset shards that were made elsewhere: every sample checked, and an index written beside them."""

from __future__ import annotations

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import ShardIndex, build_index, write_index
from gebm.cluster.lanes import CACHE_BYTES
from gebm.launch.data.splits import Progress


def index_shards(
    url: str,
    *,
    pattern: str = "*.tar*",
    size: int | None = None,
    channels: int | None = None,
    progress: Progress | None = None,
) -> ShardIndex:
    """Read and check every sample of the shards at `url` and publish their `index.json`.

    size, channels: what every image is brought to whenever it is read (see `ImageForm`); the shards stay as they are.

    Raises `InputError`, naming shard and key, for a corrupt or truncated shard, a corrupt image or
    vector, a sample of another shape; then no index is written.
    """
    if channels not in (None, 1, 3):
        raise InputError(f"--channels {channels}: give 1 (grey) or 3 (RGB)")
    url = storage.absolute(url)
    index = build_index(url, pattern, progress, ImageForm(size, channels))
    write_index(url, index)
    return index


def reading_hint(index: ShardIndex) -> str | None:
    """What the owner of a set should know of reading it, if anything."""
    compressed = not all(record.name.endswith(".tar") for record in index.shards)
    decoded = index.total * index.sample_bytes
    if not compressed or decoded <= CACHE_BYTES:
        return None
    return (
        f"these compressed shards hold {decoded >> 20:,} MiB of samples, more than the {CACHE_BYTES >> 20} MiB that a "
        "training worker keeps, and to read on in one it is decompressed from its beginning: unpack them to .tar "
        "(gunzip) and index those"
    )
