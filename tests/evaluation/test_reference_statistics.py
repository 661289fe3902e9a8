"""Statistics files: written once, read again, exchanged with other programs, refused where they do not fit."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.evaluation import features as features_module
from gebm.evaluation.extractors import ExtractorSettings
from gebm.evaluation.features import extract_features
from gebm.evaluation.frechet import FrechetStatistics, frechet_distance
from gebm.evaluation.reference_statistics import (
    check_extractor,
    read_statistics,
    set_statistics,
    write_statistics,
)

SETTINGS = ExtractorSettings(input_size=32)
EXTRACTOR = {"name": "toy", "layer": "5", "input_size": 8, "weights": "abc", "dimension": 5}
MakeShards = Callable[..., str]


def statistics(seed: int, count: int = 40) -> FrechetStatistics:
    return FrechetStatistics.of(np.random.default_rng(seed).normal(size=(count, 5)))


def test_a_file_gives_back_what_was_written_and_the_same_distance(tmp_path: Path) -> None:
    url = str(tmp_path / "reference.npz")
    there, other = statistics(0), statistics(1)
    write_statistics(url, there, extractor=EXTRACTOR, content="digest")
    found = read_statistics(url)
    assert (found.count, found.extractor, found.content, found.dimension) == (40, EXTRACTOR, "digest", 5)
    assert np.array_equal(found.mean, there.mean)
    assert frechet_distance(other, found) == pytest.approx(frechet_distance(other, there), rel=1e-12)
    assert check_extractor(url, found, EXTRACTOR) == []


def test_other_programs_files_are_read_and_ours_by_them(tmp_path: Path) -> None:
    """pytorch-fid and torchmetrics' like: np.load, then f["mu"] and f["sigma"]; and theirs have nothing else."""
    url = str(tmp_path / "ours.npz")
    write_statistics(url, statistics(0), extractor=EXTRACTOR, content="digest")
    with np.load(url) as file:
        mu, sigma = file["mu"][:], file["sigma"][:]
    theirs = str(tmp_path / "theirs.npz")
    np.savez_compressed(theirs, mu=mu.astype(np.float32), sigma=sigma)
    found = read_statistics(theirs)
    assert (found.count, found.extractor, found.content) == (None, None, None)
    assert found.mean.dtype == np.float64
    np.testing.assert_allclose(found.covariance, np.cov(np.random.default_rng(0).normal(size=(40, 5)), rowvar=False))
    assert "does not say which extractor" in check_extractor(theirs, found, EXTRACTOR)[0]


def test_a_file_that_is_none_is_one_clear_error(tmp_path: Path) -> None:
    def refused(message: str, **arrays: np.ndarray) -> None:
        np.savez(tmp_path / "bad.npz", **arrays)
        with pytest.raises(InputError, match=message):
            read_statistics(str(tmp_path / "bad.npz"))

    eye = np.eye(3)
    refused("no 'mu' and 'sigma'", mean=np.zeros(3))
    refused(r"mu has shape \(3,\) and sigma \(2, 2\)", mu=np.zeros(3), sigma=np.eye(2))
    refused("NaN or infinity", mu=np.array([0, 0, np.nan]), sigma=eye)
    refused("not symmetric", mu=np.zeros(3), sigma=eye + np.triu(np.ones((3, 3)), 1))
    (tmp_path / "bad.npz").write_bytes(b"not a zip file")
    with pytest.raises(InputError, match=r"bad\.npz is not an \.npz file"):
        read_statistics(str(tmp_path / "bad.npz"))
    with pytest.raises(InputError, match="no such statistics file"):
        read_statistics(str(tmp_path / "absent.npz"))
    with pytest.raises(InputError, match=r"ends in \.npz"):
        write_statistics(str(tmp_path / "x.json"), statistics(0), extractor=EXTRACTOR, content="")
    with pytest.raises(InputError, match="at least two samples"):
        write_statistics(str(tmp_path / "x.npz"), statistics(0, 1), extractor=EXTRACTOR, content="")


def test_statistics_of_another_extractor_are_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "reference.npz")
    write_statistics(url, statistics(0), extractor=EXTRACTOR, content="digest")
    with pytest.raises(InputError, match="made with weights 'abc' of the extractor, not 'xyz'"):
        check_extractor(url, read_statistics(url), EXTRACTOR | {"weights": "xyz"})
    np.savez(tmp_path / "theirs.npz", mu=np.zeros(3), sigma=np.eye(3))
    with pytest.raises(InputError, match="dimension 3, toy gives 5"):
        check_extractor("theirs.npz", read_statistics(str(tmp_path / "theirs.npz")), EXTRACTOR)


@pytest.mark.usefixtures("ray_cluster")
def test_a_sets_statistics_are_those_of_its_features_and_are_made_once(
    make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "IMAGES_PER_ITEM", 16)
    first, second = make_shards((40, 30)), make_shards((35,), seed=1)
    cache = str(tmp_path / "cache")
    found, description = set_statistics([first, second, first], SETTINGS, cache=cache, actors=2)
    assert description["dimension"] == 320
    for url, each in zip((first, second, first), found, strict=True):
        values = extract_features(url, SETTINGS, cache=cache).astype(np.float64)
        assert each.count == len(values)
        np.testing.assert_allclose(each.mean, values.mean(0), rtol=1e-12)
        np.testing.assert_allclose(each.covariance, np.cov(values, rowvar=False), rtol=1e-9, atol=1e-12)

    def no_work(progress: FarmProgress) -> None:
        raise AssertionError("the statistics are in the cache: no farm should run")

    for path in (tmp_path / "cache").glob("*/*.npy"):
        path.unlink()
    again, _ = set_statistics([second, first], SETTINGS, cache=cache, progress=no_work)
    for each, before in zip(again, (found[1], found[0]), strict=True):
        assert np.array_equal(each.covariance, before.covariance)
    apart, _ = set_statistics([second], SETTINGS, actors=1)  # without a cache: through the farm's records
    assert np.array_equal(apart[0].covariance, found[1].covariance)
