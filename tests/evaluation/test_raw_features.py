"""Raw features are the values themselves: the way in which sets of vectors are evaluated and compared."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import build_index, write_index
from gebm.cluster.reader import read_all
from gebm.cluster.shards import write_shard
from gebm.cluster.vectors import encode_vector
from gebm.evaluation.comparison import ComparisonSettings, compare_sets
from gebm.evaluation.evaluate import evaluate
from gebm.evaluation.extractors import ExtractorSettings, make_extractor
from gebm.evaluation.features import extract_feature_sets, extract_features
from gebm.evaluation.frechet import FrechetStatistics, frechet_distance
from gebm.evaluation.settings import EvaluationSettings

RAW = ExtractorSettings(name="raw")
SETTINGS = EvaluationSettings(extractor=RAW, permutations=199, groups=10)
COMPARED = ComparisonSettings(extractor=RAW, permutations=199)

pytestmark = pytest.mark.usefixtures("ray_cluster")


def shifted(source: str, target: Path, shift: float) -> str:
    """The vectors of a shard set with `shift` added to every number, as a shard set."""
    samples = [
        {"__key__": f"{i:06d}", "npy": encode_vector(vector + np.float32(shift))}
        for i, vector in enumerate(read_all(source).images)
    ]
    write_shard(storage.join(str(target), "shard-000.tar"), samples)
    write_index(str(target), build_index(str(target)))
    return str(target)


def test_raw_features_are_the_stored_values_in_index_order(
    make_vector_shards: Callable[..., str], make_shards: Callable[..., str], tmp_path: Path
) -> None:
    vectors, images = make_vector_shards((30, 20), dimension=5), make_shards((12, 8), size=8, channels=3)
    cache = str(tmp_path)
    found = extract_feature_sets([vectors], RAW, cache=cache, actors=2)
    assert found.features[0].dtype == np.float32 and np.array_equal(found.features[0], read_all(vectors).images)
    assert found.extractor == {"name": "raw", "layer": None, "input_size": None, "weights": None, "dimension": 5}
    pixels = extract_features(images, RAW, cache=cache)
    assert np.array_equal(pixels, read_all(images).images.reshape(20, 192).astype(np.float32))


@pytest.mark.parametrize("dimension", [1, 3])
def test_vectors_are_evaluated_by_the_distance_of_their_own_values(
    make_vector_shards: Callable[..., str], tmp_path: Path, dimension: int
) -> None:
    """The control, data against data, has the smallest p-value of all, 1/200, in 1 of 200 tests."""
    real, other = (make_vector_shards((80, 80), dimension=dimension, seed=seed) for seed in (0, 1))
    model, base = shifted(other, tmp_path / "model", 0.2), shifted(other, tmp_path / "base", 1.5)
    result = evaluate(samples=model, reference=real, base=base, settings=SETTINGS, seed=3, actors=2)
    of_real, of_model, of_base = (FrechetStatistics.of(read_all(url).images) for url in (real, model, base))
    assert result["fid_model"] == pytest.approx(frechet_distance(of_model, of_real), rel=1e-9)
    assert result["fid_base"] == pytest.approx(frechet_distance(of_base, of_real), rel=1e-9)
    # The covariances of 160 standard normals differ a little; what remains is d times the squared shift.
    assert result["fid_base"] == pytest.approx(dimension * 1.5**2, rel=0.3)
    assert result["fid_ratio_interval"][1] < 1
    assert result["mmd_base"]["p_value"] == 0.005 and result["mmd_null"]["p_value"] > 0.005
    assert result["mmd_relative"]["p_value"] < 1e-3
    assert result["warnings"] == []
    json.dumps(result, allow_nan=False)


def test_vectors_are_compared_by_their_values(make_vector_shards: Callable[..., str], tmp_path: Path) -> None:
    """A shift gets the smallest p-value that 199 permutations have, 1/200; one law gets it in 1 of 200 tests."""
    first, second = make_vector_shards((60,)), make_vector_shards((50,), seed=1)
    assert compare_sets(first, shifted(second, tmp_path, 1.0), COMPARED, actors=1)["p_value"] == 0.005
    assert compare_sets(first, second, COMPARED, actors=1)["p_value"] > 0.005


def test_an_image_extractor_refuses_vectors_and_says_what_to_do(make_vector_shards: Callable[..., str]) -> None:
    url = make_vector_shards((8,))
    with pytest.raises(InputError, match=r"efficientnet-lite0 reads images, .* vectors of length 3; give 'raw'"):
        compare_sets(url, url, ComparisonSettings(), actors=1)
    with pytest.raises(InputError, match="inception-v3-compat reads images"):
        evaluate(samples=url, reference=url, settings=EvaluationSettings(extractor={"name": "inception-v3-compat"}))


def test_sets_that_have_no_values_in_common_are_refused(
    make_vector_shards: Callable[..., str], make_shards: Callable[..., str]
) -> None:
    vectors, images = make_vector_shards((8,)), make_shards((8,), size=8)
    for settings in (COMPARED, ComparisonSettings()):
        with pytest.raises(InputError, match="images and vectors cannot be compared"):
            compare_sets(images, vectors, settings, actors=1)
    with pytest.raises(InputError, match=r"shape \(3,\) and .* of \(4,\): raw values of different shapes"):
        compare_sets(vectors, make_vector_shards((8,), dimension=4), COMPARED, actors=1)
    with pytest.raises(InputError, match="raw values of different shapes"):
        compare_sets(images, make_shards((8,), size=16), COMPARED, actors=1)


@pytest.mark.parametrize("option", [{"layer": "320"}, {"input_size": 64}, {"weights": "file"}])
def test_raw_takes_no_options_of_a_network(option: dict) -> None:
    with pytest.raises(InputError, match=f"extractor.{next(iter(option))}: raw takes values as they are"):
        make_extractor(ExtractorSettings(name="raw", **option), image_shape=(3,))


def test_without_a_layer_an_extractor_takes_that_of_its_fid() -> None:
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    left_out, named = (make_extractor(ExtractorSettings(input_size=32, layer=layer)) for layer in (None, "320"))
    assert left_out.description == named.description
    assert torch.equal(left_out(images), named(images))
