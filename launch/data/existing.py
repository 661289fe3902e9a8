"""WebDataset shards that were made elsewhere: every sample checked, and an index written beside them."""

from __future__ import annotations

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import ShardIndex, build_index, write_index
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
