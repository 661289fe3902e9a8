"""The whole experiment through the command line on a very small recipe, and each stage again by itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gebm.cluster.index import load_index
from gebm.cluster.manifest import load_manifest
from gebm.launch.cli.main import run

TINY = (
    "data.counts=[120, 60, 60]",
    "data.shard_size=30",
    "sample_count=60",
    "model.base_widths=[16, 8, 8, 8]",
    "model.energy_widths=[8, 8, 16]",
    "trainer.joint.steps=20",
    "trainer.energy.steps=20",
    "trainer.checkpoint_every=10",
    "trainer.log_partition_draws=200",
    "trainer.batch_norm_draws=200",
    'tune.grids=[{sampler="ula", step_sizes=[0.01], steps=[4, 8]}]',
    "tune.count=40",
    "tune.groups=4",
    "sampler.shard_size=30",
    "sampler.chains=30",
    "evaluation.groups=4",
    "evaluation.permutations=99",
    "evaluation.extractor.input_size=64",
)
STAGES = ["data", "train", "tune", "sample base", "sample model", "evaluate", "report"]


def settings(*more: str) -> list[str]:
    return [part for override in (*TINY, *more) for part in ("--set", override)]


@pytest.fixture(scope="module")
def demo(ray_cluster, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "demo"
    assert run(["demo", "--out", str(out), "--seed", "1", *settings()]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shards(folder: Path) -> list[bytes]:
    """The bytes of a shard set's shards in their order; their names hold the attempt that made them."""
    return [(folder / record.name).read_bytes() for record in load_index(str(folder)).shards]


def test_the_demo_leaves_every_result_that_the_summary_promises(demo):
    summary = json.loads((demo / "summary.json").read_text())
    assert summary["fid_ratio"] == pytest.approx(summary["fid_model"] / summary["fid_base"])
    low, high = summary["fid_ratio_interval"]
    assert low < summary["fid_ratio"] < high
    for test in ("mmd_base", "mmd_model", "mmd_null"):
        assert set(summary[test]) == {"statistic", "p_value", "n", "m", "permutations"}
        assert 1 / 100 <= summary[test]["p_value"] <= 1
    assert 0 <= summary["mmd_relative"]["p_value"] <= 1
    assert (summary["n_real"], summary["n_generated"], summary["seed"]) == (60, 60, 1)
    assert summary["extractor"]["layer"] == "320"
    assert summary["versions"]["torch"]
    assert [stage for stage in summary["seconds"] if stage != "ray"] == STAGES
    assert summary["seconds"] == json.loads((demo / "timings.json").read_text())
    assert (demo / "report.html").read_text().lower().startswith("<!doctype html>")


def test_every_stage_writes_its_files(demo):
    assert load_index(str(demo / "data/train")).total == 120
    assert (demo / "model/model.toml").exists() and (demo / "checkpoints/manifest.json").exists()
    tried = json.loads((demo / "tune.json").read_text())["tried"]
    assert [row["sampler"]["steps"] for row in tried] == [4, 8]
    for name in ("base", "model"):
        assert load_index(str(demo / "samples" / name)).total == 60
        assert load_manifest(str(demo / "samples" / name)).complete


def test_the_demo_run_again_does_nothing_and_says_so(demo, capsys):
    before = contents(demo)
    assert run(["demo", "--out", str(demo), "--seed", "1", *settings()]) == 0
    captured = capsys.readouterr()
    assert [line for line in captured.err.splitlines() if line] == [f"{stage}: finished before" for stage in STAGES]
    assert "report: " in captured.out and "FID" in captured.out
    assert contents(demo) == before


def test_a_stage_whose_files_were_lost_is_done_again_with_the_same_result(demo, capsys):
    before = shards(demo / "samples/model")
    lost = load_index(str(demo / "samples/model")).shards[0].name
    (demo / "samples/model/index.json").unlink()
    (demo / "samples/model" / lost).unlink()
    assert run(["demo", "--out", str(demo), "--seed", "1", *settings()]) == 0
    assert "sample model: done" in capsys.readouterr().err
    assert shards(demo / "samples/model") == before


def test_another_seed_in_the_same_directory_is_refused(demo, capsys):
    before = contents(demo)
    assert run(["demo", "--out", str(demo), "--seed", "2", *settings()]) == 2
    assert "belongs to another run: seed is 1 there and 2 here" in capsys.readouterr().err
    assert contents(demo) == before


def test_gebm_sample_draws_what_the_demo_drew_with_any_number_of_actors(demo, tmp_path):
    command = ["sample", str(demo), "--count", "60", "--seed", "1", "--actors", "1"]
    assert run([*command, "--out", str(tmp_path / "model")]) == 0
    assert run([*command, "--sampler", "base", "--out", str(tmp_path / "base")]) == 0
    assert shards(tmp_path / "model") == shards(demo / "samples/model")
    assert shards(tmp_path / "base") == shards(demo / "samples/base")
    assert shards(tmp_path / "base") != shards(tmp_path / "model")


def test_gebm_sample_takes_another_sampler_and_refuses_to_mix_two(demo, tmp_path, capsys):
    command = ["sample", str(demo), "--count", "30", "--sampler", "kla", "--steps", "3", "--out", str(tmp_path / "kla")]
    assert run(command) == 0
    sampler = load_manifest(str(tmp_path / "kla")).settings["sampler"]
    assert (sampler["name"], sampler["steps"], sampler["shard_size"]) == ("kla", 3, 30)
    assert run([*command, "--friction", "2"]) == 2
    assert "belongs to another run (sampler.friction is 1.0 there and 2.0 here)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sampler", "ulla"], "did you mean 'ula'?"),
        (["--step-size", "-1"], "--step-size: step_size: input should be greater than 0"),
    ],
)
def test_gebm_sample_names_a_bad_option(demo, tmp_path, capsys, options, message):
    assert run(["sample", str(demo), "--out", str(tmp_path / "x"), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_gebm_evaluate_finds_what_the_demo_found(demo, tmp_path, capsys):
    samples = [str(demo / "samples/model"), "--reference", str(demo / "data/test")]
    options = ["--groups", "4", "--permutations", "99", "--input-size", "64", "--seed", "1"]
    cache = ["--cache", str(demo / "evaluation/features")]
    out = ["--out", str(tmp_path / "main.json")]
    assert run(["evaluate", *samples, "--base", str(demo / "samples/base"), *options, *cache, *out]) == 0
    assert "model / base" in capsys.readouterr().out
    assert json.loads((tmp_path / "main.json").read_text()) == json.loads((demo / "evaluation/main.json").read_text())
    only = ["--metrics", "kid", "--tests", "none", "--out", str(tmp_path / "kid.json")]
    assert run(["evaluate", *samples, *options, *cache, *only]) == 0
    kid = json.loads((tmp_path / "kid.json").read_text())
    assert kid["fid_model"] is None and kid["mmd_model"] is None and kid["kid_model"] > 0


def test_gebm_compare_tells_samples_from_data_but_not_data_from_itself(demo, tmp_path, capsys):
    options = ["--input-size", "64", "--permutations", "99", "--cache", str(demo / "evaluation/features")]
    assert run(["compare", str(demo / "samples/base"), str(demo / "data/test"), *options]) == 0
    # Forty rounds of training make no digits: p is the smallest possible.
    assert "the two samples differ (p = 0.01)" in capsys.readouterr().out
    assert run(["compare", str(demo / "data/test"), str(demo / "data/test"), *options]) == 0
    assert "could not be told apart" in capsys.readouterr().out


def test_gebm_train_tune_and_report_recognise_the_finished_run(demo, capsys):
    before = contents(demo)
    assert run(["train", "mnist", "--out", str(demo), "--seed", "1", *settings()]) == 0
    assert run(["tune", str(demo)]) == 0
    after = contents(demo)
    for name in before.keys() - {"timings.json"}:
        assert after[name] == before[name], name
    assert run(["report", str(demo)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(demo / "report.html")
