"""`compare_sets` on real shard sets: the library's answer, features extracted once, and honest refusals."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.cluster.reader import read_all
from gebm.evaluation import features
from gebm.evaluation.comparison import ComparisonSettings, check_settings_of, compare_sets, named_samples
from gebm.evaluation.extractors import ExtractorSettings
from gebm.evaluation.feature_files import feature_tables
from gebm.evaluation.features import extract_feature_sets
from gebm.evaluation.two_sample import mmd_test, relative_mmd_test

IMAGES = ExtractorSettings(input_size=32)
RAW = ExtractorSettings(name="raw")
MakeShards = Callable[..., str]


@pytest.mark.usefixtures("ray_cluster")
def test_images_are_compared_by_features_that_are_extracted_once(make_shards: MakeShards, tmp_path: Path) -> None:
    x, y = make_shards((40, 30)), make_shards((60,), seed=1, size=24)
    settings = ComparisonSettings(extractor=IMAGES, permutations=199, seed=3)
    farms: list[str] = []

    def tell(farm: str, _: FarmProgress) -> None:
        farms.append(farm)

    first = compare_sets(x, y, settings, output=str(tmp_path / "out"), cache=str(tmp_path / "cache"), actors=2)
    found = extract_feature_sets([x, y], IMAGES, cache=str(tmp_path / "cache")).features
    expected = mmd_test(found[0], found[1], permutations=199, seed=3)
    assert (first["p_value"], first["reject"]) == (expected.p_value, True)
    assert first["statistic"] == pytest.approx(expected.statistic, rel=1e-6)
    assert (first["n"], first["m"], first["null"], first["extractor"]["layer"]) == (70, 60, "permutation", "320")
    assert json.loads((tmp_path / "out" / "result.json").read_text()) == json.loads(json.dumps(first))
    again = compare_sets(x, y, settings, cache=str(tmp_path / "cache"), actors=1, progress=tell)
    assert again == first and set(farms) == {"tiles"}


@pytest.mark.usefixtures("ray_cluster")
def test_a_damaged_file_of_features_is_made_again(
    make_vector_shards: MakeShards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "IMAGES_PER_ITEM", 20)
    samples = {"x": make_vector_shards((50,)), "y": make_vector_shards((40,), seed=1)}
    expected = feature_tables(samples, RAW, cache=str(tmp_path), dtype="float16")
    files = sorted(tmp_path.rglob("*.npy"))
    assert len(files) == 5 and np.load(files[0]).dtype == np.float16
    sound = [path.read_bytes() for path in files]
    files[0].write_bytes(sound[0][:-2] + bytes([sound[0][-2] ^ 1]) + sound[0][-1:])
    files[1].write_bytes(sound[1][:-1])
    files[2].unlink()
    seen: list[int] = []
    again = feature_tables(
        samples, RAW, cache=str(tmp_path), dtype="float16", progress=lambda progress: seen.append(progress.total)
    )
    assert again == expected and set(seen) == {3}
    assert [path.read_bytes() for path in files] == sound


@pytest.mark.usefixtures("ray_cluster")
def test_vectors_in_shards_and_in_arrays_are_compared_by_their_values(
    make_vector_shards: MakeShards, tmp_path: Path
) -> None:
    sets = [make_vector_shards((60,), seed=seed) for seed in range(3)]
    arrays = [read_all(url).images for url in sets]
    files = []
    for number, array in enumerate(arrays):
        np.save(tmp_path / f"{number}.npy", array)
        files.append(str(tmp_path / f"{number}.npy"))
    settings = ComparisonSettings(extractor=RAW, null="sign_flip", permutations=99)
    expected = mmd_test(arrays[0], arrays[1], null="sign_flip", permutations=99)
    for x, y in (sets[:2], files[:2]):
        assert compare_sets(x, y, settings, actors=1)["p_value"] == expected.p_value
    relative = ComparisonSettings(test="relative", permutations=99)
    nearer = relative_mmd_test(arrays[0], arrays[1], arrays[2], permutations=99)
    result = compare_sets(files[0], files[1], relative, base=files[2], actors=1)
    assert (result["p_value"], result["sign_flip_p_value"]) == pytest.approx(
        (nearer.p_value, nearer.sign_flip_p_value), rel=1e-6
    )
    with pytest.raises(InputError, match=r"a \.npy file is compared with \.npy files only"):
        compare_sets(sets[0], files[1], settings)


@pytest.mark.parametrize(
    ("settings", "counts", "message"),
    [
        ({"kernel": "gausian"}, [20, 20], "no kernel 'gausian'; there are gaussian"),
        ({"null": "permutatoin"}, [20, 20], "no null distribution 'permutatoin'; there are permutation"),
        ({"null": "auto"}, [20, 20], "name the null"),
        ({"statistic": "block"}, [20, 20], "null='permutation' relabels all points"),
        ({"null": "sign_flip"}, [20, 21], "x has 20 points and y has 21"),
        ({"null": "bins", "bins": 4}, [20, 20], "too few for level"),
        ({"null": "normal", "block": 30}, [20, 20], "20 pairs do not make 2 blocks of 30"),
        ({"permutations": 10}, [20, 20], "too few to reject at level"),
        ({"bandwidth": -1.0}, [20, 20], "bandwidth: must be a positive number"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_begins(
    settings: dict, counts: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        check_settings_of(ComparisonSettings(**settings), counts)


def test_sets_that_do_not_go_with_the_test_are_refused() -> None:
    with pytest.raises(InputError, match="take --test relative"):
        named_samples("x", "y", "base", ComparisonSettings())
    with pytest.raises(InputError, match="give --base"):
        named_samples("x", "y", None, ComparisonSettings(test="relative"))
    with pytest.raises(InputError, match="leave out --null"):
        named_samples("x", "y", "base", ComparisonSettings(test="relative", null="bins"))
    with pytest.raises(InputError, match=r"y\.npy holds vectors, which efficientnet-lite0 does not read"):
        named_samples("x", "y.npy", None, ComparisonSettings(extractor=IMAGES))
