"""WebDataset shards that were made elsewhere: every sample checked, and an index written beside them."""

from __future__ import annotations

from gebm.cluster import storage
from gebm.cluster.index import ShardIndex, build_index, write_index
from gebm.launch.data.splits import Progress


def index_shards(url: str, *, pattern: str = "*.tar*", progress: Progress | None = None) -> ShardIndex:
    """Read and check every sample of the shards at `url` and publish their `index.json`.

    Raises `InputError`, naming shard and key, for a corrupt or truncated shard, a corrupt image or
    vector, a sample of another shape; then no index is written.
    """
    url = storage.absolute(url)
    index = build_index(url, pattern, progress)
    write_index(url, index)
    return index
