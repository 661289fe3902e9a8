"""Tuning picks sampler settings by validation images, says what it tried, and admits when nothing helps."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.cluster.reader import read_all
from gebm.evaluation.extractors import ExtractorSettings, make_extractor
from gebm.evaluation.frechet import FrechetStatistics, frechet_distance
from gebm.launch.tune import Grid, TuneSettings, candidate_items, candidates, chosen_sampler, tune
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.work import prepare
from gebm.trainer.model import from_uint8, load_model, to_uint8
from tests.sampler.small_models import save_small_model

EXTRACTOR = ExtractorSettings(input_size=32)
LAYOUT = SamplerSettings(chains=25, shard_size=50)
SETTINGS = TuneSettings(
    grids=(
        Grid(sampler="ula", inverse_temperatures=(1.0, 4.0), step_sizes=(0.05,), steps=(20, 5)),
        Grid(sampler="kla", step_sizes=(0.2,), steps=(5,)),
    ),
    count=60,
    groups=5,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("run")
    save_small_model(str(folder / "model"))
    return str(folder)


@pytest.fixture
def validation(make_shards: Callable[..., str]) -> str:
    return make_shards((40, 30), size=8)


def call(run: str, validation: str, **changes: Any) -> dict[str, Any]:
    request = {"sampler": LAYOUT, "extractor": EXTRACTOR, "seed": 3, "actors": 2}
    return tune(run, validation, SETTINGS, **{**request, **changes})


def test_tuning_scores_every_chain_at_every_length_and_is_not_repeated(
    ray_cluster: None, run: str, validation: str
) -> None:
    result = call(run, validation)
    assert json.loads((Path(run) / "tune.json").read_text()) == result
    tried = [
        (row["sampler"]["name"], row["sampler"]["inverse_temperature"], row["sampler"]["steps"])
        for row in result["tried"]
    ]
    assert sorted(tried) == [("kla", 1.0, 5), ("ula", 1.0, 5), ("ula", 1.0, 20), ("ula", 4.0, 5), ("ula", 4.0, 20)]
    assert (result["n_generated"], result["n_validation"]) == (60, 70)
    assert chosen_sampler(run) == SamplerSettings.model_validate(result["chosen"])
    assert chosen_sampler(run).shard_size == LAYOUT.shard_size
    best = min((row for row in result["tried"] if row["improves"]), key=lambda row: row["fid"], default=None)
    if best is not None:
        assert result["chosen"] == best["sampler"]
    assert result["improves"] == (best is not None)
    # The chain goes down in energy the further, the longer and the colder it is.
    energy = {key: row["energy"] for key, row in zip(tried, result["tried"], strict=True)}
    assert energy["ula", 4.0, 20] < energy["ula", 4.0, 5] < energy["ula", 1.0, 5] < result["energy_base"]
    for row in result["tried"]:
        assert row["energy_gap"] == pytest.approx(row["energy"] - result["energy_validation"])
        assert row["fid_ratio"] == pytest.approx(row["fid"] / result["fid_base"])

    reports: list[Any] = []
    assert call(run, validation, progress=reports.append) == result
    assert not reports

    # A new answer, with one actor: apart from times the same.
    (Path(run) / "tune.json").unlink()
    for file in Path(run).glob("tune/*/manifest.json"):
        file.unlink()
    again = call(run, validation, actors=1)
    for row in again["tried"] + result["tried"]:
        del row["seconds"]
    assert again == result

    model, extractor = prepare(load_model(run)), make_extractor(EXTRACTOR)
    seed = derive_seed(derive_seed(3, "tune", "chains"), "tune", "prior")
    prior = model.sample_prior(60, torch.Generator().manual_seed(seed))
    real = torch.from_numpy(read_all(validation).images)
    sides = [FrechetStatistics.of(extractor(images).numpy()) for images in (to_uint8(model.generate(prior)), real)]
    assert result["fid_base"] == pytest.approx(frechet_distance(*sides), rel=1e-3)
    assert result["energy_validation"] == pytest.approx(float(model.energy(from_uint8(real)).mean()), rel=1e-4)
    assert result["energy_base"] == pytest.approx(float(model.energy(model.generate(prior)).mean()), rel=1e-4)


def test_an_answer_to_another_request_is_not_taken(ray_cluster: None, run: str, validation: str) -> None:
    """Another number of groups, another seed: both are done anew."""
    first = call(run, validation)
    other = call(run, validation, seed=4)
    assert other["fid_base"] != first["fid_base"]
    assert other["request"]["seed"] == 4


def test_candidates_are_the_products_of_their_grids_and_none_comes_twice() -> None:
    settings = TuneSettings(
        grids=(
            Grid(sampler="kla", inverse_temperatures=(1, 2), step_sizes=(0.1, 0.2), frictions=(1, 5), steps=(10, 30)),
            Grid(sampler="kla", inverse_temperatures=(2,), step_sizes=(0.1,), frictions=(5,), steps=(20,)),
        )
    )
    found = {
        (chain.inverse_temperature, chain.step_size, chain.friction): (chain.steps, lengths)
        for chain, lengths in candidates(settings, LAYOUT)
    }
    assert set(found) == set(itertools.product((1.0, 2.0), (0.1, 0.2), (1.0, 5.0)))
    assert found[2.0, 0.1, 5.0] == (30, [10, 20, 30])
    assert len(list(candidates(settings, LAYOUT))) == 8


def test_what_the_recipe_says_of_its_sampler_is_for_candidates_of_that_sampler_alone() -> None:
    """MALA is tuned to its acceptance; ULA, which has none, and the base are as they were."""
    sampler = SamplerSettings(name="mala", target_acceptance=0.6, warmup=20, chains=25)
    grids = (Grid(sampler="mala", step_sizes=(0.1,), steps=(5,)), Grid(sampler="ula", step_sizes=(0.1,), steps=(5,)))
    items = candidate_items(TuneSettings(grids=grids), sampler, seed=0)
    found = {item.description["sampler"]["name"]: item.description["sampler"] for item in items}
    assert [found[name]["warmup"] for name in ("mala", "ula", "base")] == [20, 0, 0]
    assert {settings["chains"] for settings in found.values()} == {25}


def test_a_length_at_which_a_candidate_would_not_be_cold_is_refused() -> None:
    sampler = SamplerSettings(name="ula", anneal={"start": 0.1, "steps": 40})
    settings = TuneSettings(grids=(Grid(sampler="ula", step_sizes=(0.1,), steps=(20, 60)),))
    with pytest.raises(InputError, match=r"tune\.grids, ula .*anneal\.steps 40 is more than steps 20"):
        candidate_items(settings, sampler, seed=0)


def test_all_candidates_and_the_base_share_their_latents_and_the_longest_come_first() -> None:
    items = candidate_items(SETTINGS, LAYOUT, seed=3)
    assert len({item.seed for item in items}) == 1
    assert [item.description["sampler"]["steps"] for item in items] == [20, 20, 5, 0]
    assert items[-1].id == "base"


def test_a_run_that_was_not_tuned_or_whose_answer_is_damaged_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gebm tune"):
        chosen_sampler(str(tmp_path))
    for content in ("{}", '{"chosen": {"stepsize": 1}}', "[", "[]"):
        (tmp_path / "tune.json").write_text(content)
        with pytest.raises(InputError, match=r"tune\.json: no readable chosen settings"):
            chosen_sampler(str(tmp_path))
