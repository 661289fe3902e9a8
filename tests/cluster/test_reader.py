"""Reading: any range of any shard is the same samples as the whole read at once."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.cluster.image_form import AS_STORED
from gebm.cluster.index import load_index
from gebm.cluster.reader import iterate_batches, read_all, read_shard


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_range_of_a_shard_is_that_part_of_the_whole(make_shards: Callable[..., str], ending: str) -> None:
    url = make_shards((9, 13), size=16, ending=ending)
    record = load_index(url).shards[1]
    whole = read_shard(url, record, form=AS_STORED)
    assert whole.images.shape == (13, 1, 16, 16) and whole.images.dtype == np.uint8
    assert whole.labels is not None and whole.labels.dtype == np.int64
    for start, stop in ((0, 1), (0, 13), (4, 9), (12, 13)):
        part = read_shard(url, record, start, stop, form=AS_STORED)
        assert part.keys == whole.keys[start:stop]
        assert np.array_equal(part.images, whole.images[start:stop])
        assert part.labels is not None and np.array_equal(part.labels, whole.labels[start:stop])


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize(("start", "stop"), [(0, None), (7, 23), (9, 22), (0, 1), (30, 31), (5, 99)])
@pytest.mark.parametrize("batch_size", [1, 4, 50])
def test_batches_follow_the_index_over_uneven_shards(
    make_shards: Callable[..., str], ending: str, start: int, stop: int | None, batch_size: int
) -> None:
    url = make_shards((9, 13, 1, 8), size=16, ending=ending)
    whole = read_all(url)
    assert whole.keys == [f"{n:06d}" for n in range(31)]
    batches = list(iterate_batches(url, batch_size, start, stop))
    assert [key for batch in batches for key in batch.keys] == whole.keys[start:stop]
    assert np.array_equal(np.concatenate([batch.images for batch in batches]), whole.images[start:stop])
    assert all(len(batch.keys) == batch_size for batch in batches[:-1])


def test_a_limit_takes_the_first_samples(tiny_shards: str) -> None:
    assert read_all(tiny_shards, limit=55).keys == read_all(tiny_shards).keys[:55]


def test_labels_are_passed_on_or_absent(make_shards: Callable[..., str]) -> None:
    labels = read_all(make_shards((40,))).labels
    assert labels is not None and set(labels.tolist()) <= set(range(10)) and len(set(labels.tolist())) > 3
    assert read_all(make_shards((4,), labels=False)).labels is None


def test_a_shard_changed_behind_its_index_is_named(make_shards: Callable[..., str]) -> None:
    url = make_shards((6, 6), size=16)
    shard = Path(url) / "shard-001.tar"
    offsets = load_index(url).shards[1].starts
    data = bytearray(shard.read_bytes())
    data[offsets[2] : offsets[2] + 4] = b"\xff" * 4
    shard.write_bytes(data)  # same size: only reading can tell
    with pytest.raises(InputError, match=r"shard-001\.tar"):
        read_all(url)
    with pytest.raises(InputError, match=r"shard-001\.tar"):
        read_shard(url, load_index(url).shards[1], 2, 4, form=AS_STORED)
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-001\.tar"):
        read_all(url)


def test_a_shard_with_fewer_samples_than_its_index_names_is_named(make_shards: Callable[..., str]) -> None:
    url, longer = make_shards((4,), size=16), make_shards((6,), size=16)
    record = load_index(longer).shards[0]
    with pytest.raises(InputError, match=r"shard-000\.tar"):
        read_shard(url, record, form=AS_STORED)
