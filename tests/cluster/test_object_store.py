"""Lanes from an S3 bucket: the same batches as from local disk, read by ranges; what is wrong there is named."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster import lane_order, storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import build_index, load_index, write_index
from gebm.cluster.lanes import LaneReader
from gebm.cluster.reader import read_all


@pytest.fixture
def remote(bucket: str, make_shards: Callable[..., str], tmp_path: Path) -> Callable[..., tuple[str, str]]:
    """Return `remote(counts, **options)`: a set on local disk and its copy in the bucket, as two URLs."""

    def make(counts: tuple[int, ...] = (31, 7, 22), **options: object) -> tuple[str, str]:
        local = make_shards(counts, size=16, **options)
        url = storage.join(bucket, tmp_path.name, Path(local).name)
        for name in storage.list_names(local):
            storage.write_bytes_atomic(storage.join(url, name), (Path(local) / name).read_bytes())
        return local, url

    return make


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_batches_from_a_bucket_are_those_from_local_disk(
    remote: Callable[..., tuple[str, str]], ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (4, 4))  # several ranges of each shard
    local, url = remote(ending=ending)
    for rank, world in ((0, 1), (0, 2), (1, 2)):
        options = {"seed": 5, "batch_size": 16, "lanes": 8, "rank": rank, "world": world, "cache_bytes": 0}
        with closing(LaneReader(local, **options)) as here, closing(LaneReader(url, **options)) as there:
            for step in (*range(8), 250):
                ours, theirs = here.batch(step), there.batch(step)
                assert np.array_equal(ours.images, theirs.images)
                assert ours.labels is not None and theirs.labels is not None
                assert np.array_equal(ours.labels, theirs.labels)


def test_a_set_is_indexed_and_read_where_it_lies(remote: Callable[..., tuple[str, str]]) -> None:
    local, url = remote()
    storage.remove(storage.join(url, "index.json"))
    with pytest.raises(InputError, match=r"has no index\.json; run `gebm data index s3://"):
        load_index(url)
    write_index(url, build_index(url))
    assert load_index(url) == load_index(local)
    assert np.array_equal(read_all(url).images, read_all(local).images)


def test_only_the_bytes_of_a_block_are_fetched(
    remote: Callable[..., tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (4, 4))
    _, url = remote((60,))
    fetched: list[int] = []
    original = storage.read_range

    def counting(*place: object) -> bytes:
        data = original(*place)  # type: ignore[arg-type]
        fetched.append(len(data))
        return data

    monkeypatch.setattr(storage, "read_range", counting)
    with closing(LaneReader(url, seed=0, batch_size=2, lanes=2)) as reader:
        reader.batch(0)
    assert fetched and max(fetched) <= 4 * 2048 + 10240


@pytest.mark.parametrize("kept", [None, 10, 3000, -1])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_shard_removed_or_cut_short_in_the_bucket_is_named(
    remote: Callable[..., tuple[str, str]], kept: int | None, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (4, 4))
    _, url = remote((8, 8), ending=ending)
    shard = storage.join(url, f"shard-001{ending}")
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        data = storage.read_bytes(shard).rstrip(b"\0")
        storage.remove(shard)
        if kept is not None:
            storage.write_bytes_atomic(shard, data[:kept])
        with pytest.raises(InputError, match=r"shard-001\.tar"):
            for step in range(4):
                reader.batch(step)
