"""`evaluate` and `compare` on real shard sets: right numbers under the agreed keys, and honest refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import build_index, write_index
from gebm.cluster.reader import read_all
from gebm.cluster.shards import encode_png, write_shard
from gebm.evaluation import features as features_module
from gebm.evaluation.comparison import ComparisonSettings, compare_sets
from gebm.evaluation.evaluate import evaluate, evaluate_several
from gebm.evaluation.extractors import ExtractorSettings
from gebm.evaluation.features import extract_features
from gebm.evaluation.frechet import FrechetStatistics, frechet_distance
from gebm.evaluation.kernel_distance import kernel_distance
from gebm.evaluation.neighbours import density_coverage, precision_recall
from gebm.evaluation.settings import EvaluationSettings

SETTINGS = EvaluationSettings(extractor=ExtractorSettings(input_size=32), permutations=199, groups=10)
MakeShards = Callable[..., str]

pytestmark = pytest.mark.usefixtures("ray_cluster")


def noisy_copy(source: str, target: Path, noise: float) -> str:
    """The images of a shard set with Gaussian noise of `noise` grey levels, as a shard set."""
    images = read_all(source).images
    noisy = images + np.random.default_rng(0).normal(0, noise, images.shape)
    samples = [
        {"__key__": f"{i:06d}", "png": encode_png(image.transpose(1, 2, 0))}
        for i, image in enumerate(np.clip(noisy, 0, 255).astype(np.uint8))
    ]
    write_shard(storage.join(str(target), "shard-000.tar"), samples)
    write_index(str(target), build_index(str(target)))
    return str(target)


def test_an_evaluation_holds_the_agreed_keys_and_the_right_numbers(make_shards: MakeShards, tmp_path: Path) -> None:
    real, other = make_shards((100, 60)), make_shards((160,), seed=1)
    model, base = noisy_copy(other, tmp_path / "model", 10.0), noisy_copy(other, tmp_path / "base", 40.0)
    seen: list[tuple[int, int, str]] = []
    request = {"samples": model, "reference": real, "base": base, "settings": SETTINGS, "seed": 3, "actors": 2}
    cache = str(tmp_path / "cache")
    result = evaluate(**request, cache=cache, progress=lambda *state: seen.append(state))

    assert set(result) == {
        *("fid_base", "fid_model", "fid_ratio", "fid_ratio_interval", "fid_ratio_bias_corrected"),
        *("fid_difference", "fid_difference_interval"),
        *(f"{name}_{side}" for name in ("precision", "recall", "density", "coverage") for side in ("base", "model")),
        *("kid_base", "kid_model", "mmd_base", "mmd_model", "mmd_null", "mmd_relative"),
        *("modes_base", "modes_model", "modes_real", "modes_classifier"),
        *("labels_base", "labels_model", "labels_real"),
        *("n_real", "n_generated", "extractor", "warnings", "details"),
    }
    sets = [extract_features(url, SETTINGS.extractor, cache=cache) for url in (real, model, base)]
    f_real, f_model, f_base = (FrechetStatistics.of(side) for side in sets)
    assert result["fid_model"] == pytest.approx(frechet_distance(f_model, f_real), rel=1e-9)
    assert result["fid_base"] == pytest.approx(frechet_distance(f_base, f_real), rel=1e-9)
    assert result["fid_ratio"] == pytest.approx(result["fid_model"] / result["fid_base"], rel=1e-9)
    low, high = result["fid_ratio_interval"]
    assert low < result["fid_ratio"] < high < 1
    assert result["fid_difference"] == pytest.approx(result["fid_model"] - result["fid_base"], rel=1e-9)
    low, high = result["fid_difference_interval"]
    assert low < result["fid_difference"] < high < 0
    assert result["precision_model"] is result["coverage_base"] is None  # were not asked for
    assert result["kid_model"] == kernel_distance(sets[1], sets[0]).mean
    for name, n, m in (("mmd_base", 160, 160), ("mmd_model", 160, 160), ("mmd_null", 80, 80)):
        assert set(result[name]) == {"statistic", "p_value", "n", "m", "permutations"}
        assert (result[name]["n"], result[name]["m"], result[name]["permutations"]) == (n, m, 199)
    assert result["mmd_base"]["p_value"] == 0.005
    assert result["mmd_null"]["p_value"] > 0.05
    assert set(result["mmd_relative"]) == {"statistic", "p_value"}
    assert result["mmd_relative"]["p_value"] < 1e-3
    assert (result["n_real"], result["n_generated"]) == (160, 160)
    assert result["extractor"]["name"] == "efficientnet-lite0"
    assert "160 samples for features of dimension 320" in result["warnings"][0]
    json.dumps(result, allow_nan=False)
    assert seen[-1][:2] == (3, 3)
    assert any("samples a second" in detail for _, _, detail in seen)

    assert evaluate(**request, cache=cache) == result

    lone = evaluate(samples=model, reference=real, settings=SETTINGS, seed=3, cache=cache)
    for name in ("fid_base", "fid_ratio", "fid_ratio_interval", "kid_base", "mmd_base", "mmd_relative"):
        assert lone[name] is None
    for name in ("fid_model", "kid_model", "mmd_model", "mmd_null"):
        assert lone[name] == result[name]

    part = SETTINGS.model_copy(update={"metrics": ("precision_recall", "density_coverage"), "tests": ()})
    near = evaluate(samples=model, reference=real, base=base, settings=part, seed=3, cache=cache)
    for name, side in (("model", sets[1]), ("base", sets[2])):
        found = (near[f"precision_{name}"], near[f"recall_{name}"])
        assert found == precision_recall(sets[0], side)
        assert (near[f"density_{name}"], near[f"coverage_{name}"]) == density_coverage(sets[0], side)
    assert near["precision_model"] > near["precision_base"]

    part = SETTINGS.model_copy(update={"metrics": ("kid",), "tests": ()})
    short = evaluate(samples=model, reference=real, base=base, settings=part, seed=3, cache=cache)
    assert short["kid_base"] == result["kid_base"]
    assert short["fid_model"] is short["mmd_null"] is short["mmd_relative"] is None


def test_unequal_sizes_are_refused_unless_asked_for(make_shards: MakeShards, tmp_path: Path) -> None:
    real, few = make_shards((60,)), make_shards((50,), seed=1)
    base = noisy_copy(few, tmp_path / "base", 40.0)
    request = {"samples": few, "reference": real, "base": base, "cache": str(tmp_path / "cache")}
    with pytest.raises(InputError, match=r"samples has 50 samples, reference has 60.*allow_unequal_sizes"):
        evaluate(**request, settings=SETTINGS)
    allowed = SETTINGS.model_copy(update={"allow_unequal_sizes": True})
    result = evaluate(**request, settings=allowed)
    assert (result["n_real"], result["n_generated"]) == (60, 50)
    assert (result["mmd_model"]["n"], result["mmd_model"]["m"]) == (60, 50)
    assert result["details"]["mmd_relative"]["n"] == 50
    assert any("comparable only at equal numbers" in warning for warning in result["warnings"])
    assert any("first 50 of each" in warning for warning in result["warnings"])


def test_too_few_images_for_the_groups_is_a_clear_error(make_shards: MakeShards) -> None:
    real = make_shards((12,))
    with pytest.raises(InputError, match="12 samples cannot be split into 10 groups"):
        evaluate(samples=real, reference=real, base=make_shards((12,), seed=1), settings=SETTINGS)


def test_identical_sets_are_at_distance_zero_and_not_told_apart(make_shards: MakeShards) -> None:
    real = make_shards((40,))
    result = evaluate(samples=real, reference=real, settings=SETTINGS)
    assert result["fid_model"] == pytest.approx(0.0, abs=1e-3)
    assert result["mmd_model"]["p_value"] > 0.05


def test_compare_tells_different_sets_apart_and_like_ones_not(make_shards: MakeShards, tmp_path: Path) -> None:
    real = make_shards((70,))
    cache = str(tmp_path)
    settings = ComparisonSettings(extractor=SETTINGS.extractor, permutations=199)
    different = compare_sets(real, make_shards((60,), seed=1, size=24), settings, cache=cache, actors=2)
    assert different["reject"]
    assert (different["n"], different["m"], different["null"]) == (70, 60, "permutation")
    flips = settings.model_copy(update={"null": "sign_flip", "seed": 5})
    alike = compare_sets(real, make_shards((70,), seed=2), flips, cache=cache, actors=1)
    assert alike["p_value"] > 0.05
    assert alike["extractor"]["layer"] == "320"
    json.dumps([different, alike], allow_nan=False)


def test_several_sets_are_each_measured_as_if_they_were_alone_and_features_are_extracted_once(
    make_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, other = make_shards((100,)), make_shards((100,), seed=1)
    near, far, base = (noisy_copy(other, tmp_path / str(noise), noise) for noise in (10.0, 60.0, 40.0))
    request = {"reference": real, "base": base, "settings": SETTINGS, "seed": 3, "actors": 2}
    farms: list[int] = []
    run_farm = features_module.run_farm

    def counted(items: list, *arguments: object, **options: object) -> object:
        farms.append(len(items))
        return run_farm(items, *arguments, **options)

    monkeypatch.setattr(features_module, "run_farm", counted)
    seen: list[tuple[int, int, str]] = []
    both = evaluate_several(samples=[near, far], **request, progress=lambda *state: seen.append(state))
    assert farms == [4]  # one range for each set of a hundred images
    assert seen[-1][:2] == (6, 6)
    assert both == [evaluate(samples=url, **request) for url in (near, far)]
    assert both[0]["fid_ratio_interval"][1] < 1 < both[1]["fid_ratio_interval"][0]
    with pytest.raises(InputError, match="samples 1 has 100 samples, samples 2 has 60 samples, reference has 100"):
        evaluate_several(samples=[near, make_shards((60,))], **request)
