"""All samplers on one model: one law, one budget, settings from validation images, one table of the test images."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster.errors import InputError
from gebm.cluster.index import index_digest, load_index
from gebm.cluster.manifest import load_manifest
from gebm.cluster.reader import read_all
from gebm.evaluation.evaluate import evaluate
from gebm.evaluation.report import Figure, Table, Text
from gebm.launch import contest as contest_module
from gebm.launch.cli.main import run as gebm
from gebm.launch.config import Recipe, dump_recipe, load_recipe
from gebm.launch.contest import Contender, ContestSettings, best_of, grids_of, hold_contest, target_law
from gebm.launch.progress import make_display
from gebm.launch.report.contents import read_contents
from gebm.launch.report.contest import contest_section
from gebm.sampler.settings import SamplerSettings
from tests.launch.synthetic_run import write_samples
from tests.sampler.small_models import save_small_model

COUNT = 60
SMALL = (
    'data.source="shards"',
    f"sample_count={COUNT}",
    "tune.count=40",
    "tune.groups=4",
    "sampler.inverse_temperature=2.0",
    "sampler.chains=30",
    "sampler.shard_size=30",
    "evaluation.groups=5",
    "evaluation.permutations=99",
    "evaluation.extractor.input_size=32",
)
SETTINGS = ContestSettings(
    evaluations=6,
    contenders=(
        Contender(sampler="imh"),
        Contender(sampler="dot", step_sizes=(0.1, 1e39)),
        Contender(sampler="ula", step_sizes=(0.02, 0.1)),
        Contender(sampler="hmc", step_sizes=(0.2,), leapfrog_steps=(2, 5)),
    ),
)


@pytest.fixture
def run(tmp_path: Path, make_shards: Callable[..., str]) -> Path:
    """A trained run without samples, whose test images are others than its validation images."""
    splits = {"train": 0, "validation": 1, "test": 2}
    data = [f'data.{split}="{make_shards((COUNT,), size=8, seed=seed)}"' for split, seed in splits.items()]
    save_small_model(str(tmp_path / "model"))
    (tmp_path / "config.toml").write_text(dump_recipe(load_recipe("mnist", (*SMALL, *data))))
    return tmp_path


def recipe_of(run: Path) -> Recipe:
    return load_recipe(str(run / "config.toml"))


def hold(run: Path, settings: ContestSettings = SETTINGS, **options: Any) -> dict[str, Any]:
    return hold_contest(str(run), recipe_of(run), settings, make_display(), **{"count": COUNT, "actors": 2, **options})


def test_all_spend_the_same_on_one_law_and_each_is_measured_as_if_alone(
    ray_cluster: None, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(run)
    result = hold(run)
    assert json.loads((run / "contest.json").read_text()) == result
    drawn = {model["drawn"]["sampler"]["name"]: model["drawn"] for model in result["models"]}
    assert list(drawn) == ["imh", "dot", "ula", "hmc"]
    assert {each["sampler"]["inverse_temperature"] for each in drawn.values()} == {2.0}
    spent = {name: each["evaluations"] for name, each in drawn.items()}
    assert [spent[name]["gradients"] for name in ("dot", "ula")] == [6, 6]
    assert spent["hmc"]["gradients"] in (5, 6) and spent["imh"]["values"] == 6

    # Chosen on validation images, among all that were tried; what flew away is named.
    tuned = json.loads((run / "contest" / "tune.json").read_text())
    assert tuned["request"]["validation"] == index_digest(load_index(str(recipe.data.validation)))
    assert {name: each["candidates"] for name, each in result["tuning"].items()} == {**{"dot": 2, "ula": 2, "hmc": 2}}
    (reason,) = result["left_out"]
    assert reason.startswith("dot, step 1e+39")
    assert drawn["dot"]["sampler"]["step_size"] == 0.1
    rows = [row for row in tuned["tried"] if row["sampler"]["name"] == "ula"]
    assert drawn["ula"]["sampler"] == min(rows, key=lambda row: (not row["improves"], row["fid"]))["sampler"]

    # All start from the base's own prior draws, and are judged by the test images.
    (base,) = (run / "contest").glob("base-*")
    starts = [load_manifest(model["samples"]) for model in (*result["models"], {"samples": str(base)})]
    seeds = {(manifest.settings["seed"], manifest.settings["count"]) for manifest in starts if manifest}
    assert seeds == {(recipe.seed, COUNT)}
    settings = recipe.evaluation.model_copy(update={"tests": ("relative",)})
    last = result["models"][-1]
    alone = evaluate(
        samples=last["samples"], reference=str(recipe.data.test), base=str(base), settings=settings, seed=recipe.seed
    )
    assert {key: last[key] for key in ("fid_model", "fid_ratio", "fid_ratio_interval", "kid_model")} == {
        key: alone[key] for key in ("fid_model", "fid_ratio", "fid_ratio_interval", "kid_model")
    }
    raw = [model["mmd_relative"]["p_value"] for model in result["models"]]
    corrected = [model["mmd_relative"]["p_value_holm"] for model in result["models"]]
    assert last["mmd_relative"]["p_value"] == alone["mmd_relative"]["p_value"]
    assert min(corrected) == pytest.approx(min(1.0, 4 * min(raw)))

    # The page shows it, and says so when the model is another by now.
    section = contest_section(read_contents(str(run)))
    assert section is not None
    figure, table = section.blocks[:2]
    assert isinstance(figure, Figure) and "HMC" in figure.svg
    assert isinstance(table, Table)
    assert [row[0].text for row in table.rows] == ["Generator alone", "IMH", "DOT", "ULA", "HMC"]
    assert "inverse temperature 2, and 6 evaluations" in section.lead
    assert any(isinstance(block, Text) and reason in block.text for block in section.blocks)
    (run / "contest.json").write_text(json.dumps({**result, "model": "0" * 64}))
    stale = contest_section(read_contents(str(run)))
    assert stale is not None and [block.text for block in stale.blocks if isinstance(block, Text)] == [
        "This comparison is of another model than the run now holds: run `gebm contest` again."
    ]

    # Asked again, nothing is done again.
    for work in ("several.evaluate_several", "tune.score"):
        monkeypatch.setattr(f"gebm.launch.{work}", lambda *_, **__: pytest.fail("done again"))
    assert hold(run) == result


def test_the_command_prints_the_table_and_takes_those_that_are_named(
    ray_cluster: None, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contenders = "contest.contenders=[{sampler='imh'}, {sampler='ula', step_sizes=[0.1]}, {sampler='mala'}]"
    arguments = ["contest", str(run), "--evaluations", "5", "--inverse-temperature", "1.5"]
    assert gebm([*arguments, "--set", contenders, "--sampler", "imh", "--actors", "1"]) == 0
    shown = capsys.readouterr().out
    first = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert [word for word in first if word in ("base", "imh,", "ula,", "mala,")] == ["base", "imh,"]
    assert "β 1.5" in shown and "5 without gradient" in shown and "the target, exact" in shown
    assert gebm([*arguments, "--sampler", "sir"]) == 2
    assert "--sampler sir: one of imh, dot, ddls, ula, mala, hmc, kla takes part" in capsys.readouterr().err


def test_evaluate_takes_several_sets_and_says_how_each_was_drawn(
    ray_cluster: None, tmp_path: Path, make_shards: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    """One set is of `gebm sample`, the other comes from elsewhere."""
    real, other, base = make_shards((40,)), make_shards((40,), seed=1), make_shards((40,), seed=2)
    ours = str(tmp_path / "ours")
    write_samples(ours, read_all(other).images, "0" * 64, None, name="mala", steps=20)
    out = tmp_path / "several.json"
    arguments = ["evaluate", ours, "--samples", other, "--reference", real, "--base", base, "--out", str(out)]
    options = ["--groups", "5", "--permutations", "99", "--input-size", "32", "--tests", "relative"]
    assert gebm([*arguments, *options]) == 0
    shown = capsys.readouterr().out
    first, second = json.loads(out.read_text())["models"]
    assert first["fid_model"] == second["fid_model"]  # the same images
    assert first["drawn"]["evaluations"] == {"gradients": 21.0, "values": 0.0}
    assert second["drawn"] is None
    first_words = [line.split()[0] for line in shown.splitlines() if line.strip()]
    assert [word for word in first_words if word in ("base", "mala,", other.rpartition("/")[2])] == [
        *("base", "mala,", other.rpartition("/")[2])
    ]
    assert gebm([*arguments, "--samples", ours, *options]) == 2
    assert "given twice" in capsys.readouterr().err


def test_the_law_is_the_one_asked_for_or_that_of_the_runs_tuned_sampler(run: Path) -> None:
    recipe = recipe_of(run)
    assert target_law(str(run), recipe, ContestSettings()) == 2.0
    tuned = SamplerSettings(name="kla", inverse_temperature=3.5)
    (run / "tune.json").write_text(json.dumps({"chosen": tuned.model_dump(mode="json")}))
    assert target_law(str(run), recipe, ContestSettings()) == 3.5
    assert target_law(str(run), recipe, ContestSettings(inverse_temperature=0.5)) == 0.5


def test_a_contest_that_makes_no_sense_is_refused_before_any_work(run: Path) -> None:
    twice = ContestSettings(contenders=(Contender(sampler="ula"), Contender(sampler="ula")))
    with pytest.raises(InputError, match="ula, ula: name each sampler once"):
        hold(run, twice)
    with pytest.raises(InputError, match=r"hmc cannot make a step within 5 evaluations of the energy; give more"):
        hold(run, SETTINGS.model_copy(update={"evaluations": 5}))
    with pytest.raises(InputError, match=f"--count 50: .* has {COUNT} images.*give {COUNT}, or --unequal"):
        hold(run, count=50)
    assert not (run / "contest").exists()


def test_each_length_of_hmc_is_a_grid_of_its_own_with_the_steps_that_it_can_afford() -> None:
    contender = Contender(sampler="hmc", step_sizes=(0.1, 0.2), leapfrog_steps=(3, 10))
    grids = list(grids_of(contender, law=3.0, evaluations=100))
    assert [(grid.leapfrog_steps, grid.steps, grid.inverse_temperatures) for grid in grids] == [
        ((3,), (33,), (3.0,)),
        ((10,), (9,), (3.0,)),
    ]
    assert list(grids_of(Contender(sampler="imh"), 3.0, 100)) == []


def test_a_sampler_all_of_whose_candidates_flew_away_takes_no_part() -> None:
    def row(step_size: float, fid: float | None) -> dict[str, Any]:
        sampler = SamplerSettings(name="dot", step_size=step_size).model_dump(mode="json")
        failure = "3 of 40 samples are not finite" if fid is None else None
        scores = {"fid": fid, "fid_ratio": fid, "fid_ratio_interval": fid and [fid, fid], "improves": fid is not None}
        return {"sampler": sampler, "failure": failure, **scores}

    assert best_of("dot", [row(9.0, None), row(10.0, None)]) is None
    found = best_of("dot", [row(9.0, None), row(0.2, 0.8), row(0.1, 0.7)])
    assert found is not None
    assert found[0] == {"candidates": 3, "fid_ratio": 0.7, "fid_ratio_interval": [0.7, 0.7]}
    assert found[1].step_size == 0.1


def test_the_default_contenders_are_the_papers_and_all_can_spend_a_hundred() -> None:
    settings = ContestSettings()
    assert [each.sampler for each in settings.contenders] == ["imh", "dot", "ddls", "ula", "mala", "hmc", "kla"]
    for contender in settings.contenders:
        for grid in grids_of(contender, 1.0, settings.evaluations):
            assert grid.sampler == contender.sampler
    assert contest_module.UNTUNED == "imh"
