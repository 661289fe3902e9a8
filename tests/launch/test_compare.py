"""`gebm compare`: the result printed and written, kept in its folder, estimated without being done."""

import json
from pathlib import Path

import numpy as np
import pytest

from gebm.evaluation.two_sample import mmd_test
from gebm.evaluation.two_sample.distributed.stream import stream_block_test
from gebm.launch.cli.main import run


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    rng = np.random.default_rng(0)
    paths = [str(tmp_path / f"{name}.npy") for name in "xy"]
    for path, shift in zip(paths, (0.0, 1.0), strict=True):
        np.save(path, rng.normal(size=(60, 4)) + shift)
    return paths


@pytest.mark.usefixtures("ray_cluster")
def test_compare_says_what_the_library_says_and_keeps_it_in_a_folder_or_a_file(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--null", "sign_flip", "--permutations", "99", "--seed", "3", "--actors", "1"]
    folder, file = tmp_path / "out", tmp_path / "found.json"
    assert run(["compare", *files, *options, "--features", "raw", "--out", str(folder)]) == 0
    assert "the two samples differ (p = 0.01)" in capsys.readouterr().out
    expected = mmd_test(*(np.load(path) for path in files), null="sign_flip", permutations=99, seed=3)
    result = json.loads((folder / "result.json").read_text())
    assert result["p_value"] == expected.p_value == 0.01
    assert result["statistic"] == pytest.approx(expected.statistic, rel=1e-9)
    assert (folder / "tiles" / "manifest.json").exists()
    assert run(["compare", *files, *options, "--out", str(file)]) == 0
    assert json.loads(file.read_text()) == result
    assert run(["compare", *files, *options, "--seed", "4", "--out", str(folder)]) == 2
    assert "belongs to another run (seed is" in capsys.readouterr().err


def test_an_estimate_needs_no_cluster_and_does_nothing(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:1")
    before = sorted(tmp_path.iterdir())
    assert run(["compare", *files, "--estimate", "--actors", "4"]) == 0
    assert "seconds" in capsys.readouterr().out
    assert run(["compare", *files, "--estimate", "--null", "bins"]) == 2
    assert "the cost model is of the permutation test" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_a_stream_needs_no_cluster_and_gives_the_block_test(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "nowhere.invalid:1")
    x, y = (np.load(path) for path in files)
    expected = stream_block_test([x], [y], block=7, null="sign_flip", permutations=99)
    options = ["--stream", "--block", "7", "--null", "sign_flip", "--statistic", "block", "--permutations", "99"]
    assert run(["compare", *files, *options, "--out", str(tmp_path / "found.json")]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["p_value"], found["statistic"]) == (expected.p_value, expected.statistic)
    assert run(["compare", *files, "--stream"]) == 2
    assert "one pass is for the block test; take --null normal" in capsys.readouterr().err
    assert run(["compare", *files, *options, "--out", str(tmp_path / "folder")]) == 2
    assert "name a file that ends in .json" in capsys.readouterr().err
