"""Candidates are scored against the data and their base, and those that flew away lose with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation.extractors import ExtractorSettings
from gebm.evaluation.report import Table, Text
from gebm.launch.report.contents import read_contents
from gebm.launch.report.tuning import tuning_section
from gebm.launch.tune import Grid, TuneSettings, tune
from gebm.launch.tune_scores import choose, score
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model import ModelSettings, build_model, save_model
from tests.launch.synthetic_run import write_run

LAYOUT = SamplerSettings(chains=25, shard_size=50)


def scored(candidate_law: float, base_law: float) -> dict[str, Any]:
    """Scores of a candidate and a base whose features are normal with these means, the data's being 0."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(1, 200, 5))
    features = {"base": noise + base_law, "000": noise + 0.01 * random.normal(size=noise.shape) + candidate_law}
    common = {"energies": [0.0], "acceptance": [1.0], "nonfinite": [0], "seconds": 1.0, "lengths": [7]}
    records = {
        "000": {**common, "sampler": LAYOUT.model_dump(mode="json")},
        "base": {**common, "energy_validation": -1.0},
    }
    return score(records, features, random.normal(size=(300, 5)), groups=10, seed=0)


def test_a_candidate_that_is_closer_to_the_data_than_the_base_is_marked_as_improving() -> None:
    (row,) = scored(candidate_law=0.1, base_law=0.5)["tried"]
    assert row["improves"]
    assert row["fid_ratio_interval"][0] < row["fid_ratio"] < row["fid_ratio_interval"][1] < 1
    assert row["sampler"]["steps"] == 7


@pytest.mark.parametrize("candidate_law", [0.5, 0.7])
def test_a_candidate_that_is_not_closer_than_the_base_is_not(candidate_law: float) -> None:
    (row,) = scored(candidate_law, base_law=0.5)["tried"]
    assert not row["improves"]


def test_the_smallest_fid_wins_among_those_that_improve_on_the_base() -> None:
    def row(name: str, fid: float, gap: float, improves: bool) -> dict[str, Any]:
        return {"sampler": name, "fid": fid, "energy_gap": gap, "improves": improves, "failure": None}

    lucky, good, calm, poor = (
        row("lucky", 10.0, 3.0, False),
        row("good", 11.0, -2.0, True),
        row("calm", 12.0, 0.5, True),
        row("poor", 20.0, 0.1, False),
    )
    assert choose([lucky, good, calm, poor], "fid") == {"chosen": "good", "improves": True, "criterion": "fid"}
    assert choose([lucky, good, calm, poor], "energy_gap")["chosen"] == "calm"
    assert choose([poor, lucky], "fid") == {"chosen": "lucky", "improves": False, "criterion": "fid"}


def flown_away(*names: str, base: float = 0.5) -> dict[str, Any]:
    """Scores of the candidates `000`, near the data, and `001`; those named have infinity in 3 of 200 samples."""
    random = np.random.default_rng(0)
    noise = random.normal(size=(1, 200, 5))
    features = {"base": noise + base, "000": 0.99 * noise + 0.1, "001": 0.98 * noise + 0.2}
    for name in names:
        features[name][0, :3] = np.inf
    common = {"energies": [0.0], "acceptance": [1.0], "nonfinite": [0], "seconds": 1.0, "lengths": [7]}
    records: dict[str, dict[str, Any]] = {
        name: {**common, "sampler": LAYOUT.model_copy(update={"step_size": size}).model_dump(mode="json")}
        for name, size in (("000", 5.0), ("001", 0.01))
    }
    for name in names:
        records[name]["energies"] = [None]
    records["base"] = {**common, "energy_validation": -1.0}
    return score(records, features, random.normal(size=(300, 5)), groups=10, seed=0)


def test_a_candidate_whose_samples_are_infinite_loses_with_a_reason() -> None:
    result = flown_away("000")
    lost, scored_row = result["tried"]
    assert lost["failure"] == "3 of 200 samples are not finite" and lost["fid"] is lost["energy_gap"] is None
    assert scored_row["failure"] is None and scored_row["fid"] > 0
    for criterion in ("fid", "energy_gap"):
        assert choose(result["tried"], criterion)["chosen"] == scored_row["sampler"]
    assert choose(flown_away()["tried"], "fid")["chosen"]["step_size"] == 5.0  # it would win


def test_when_all_have_flown_away_the_error_names_them_and_what_to_do() -> None:
    with pytest.raises(InputError) as refusal:
        flown_away("000", "001")
    assert str(refusal.value) == (
        "no candidate of tune.grids can be scored (ula, β 1, step 5, 7 steps: 3 of 200 samples are not finite; "
        "ula, β 1, step 0.01, 7 steps: 3 of 200 samples are not finite): their chains have flown away; give smaller "
        "step_sizes or inverse_temperatures in tune.grids, or fewer steps"
    )


def test_a_base_whose_samples_are_infinite_is_named() -> None:
    with pytest.raises(InputError, match=r"^the generator alone: 200 of 200 samples are not finite, so there is noth"):
        flown_away(base=np.inf)


def test_tuning_vectors_with_a_step_that_is_far_too_large_passes_it_over(
    ray_cluster: None, make_vector_shards: Callable[..., str], tmp_path: Path
) -> None:
    """End to end. Langevin kernels reject what is not finite; the descent of `dot` goes as far as it is sent."""
    settings = ModelSettings(network="mlp", latent_dimension=3, base_widths=(8,), energy_widths=(8,))
    save_model(build_model(settings, (3,), seed=0), settings, str(tmp_path / "model"))
    grids = (Grid(sampler="dot", step_sizes=(0.05, 1e25), steps=(10,)),)
    wild = (Grid(sampler="dot", step_sizes=(1e25,), steps=(10,)),)

    def call(grids: tuple[Grid, ...]) -> dict[str, Any]:
        shards, options = make_vector_shards(), {"extractor": ExtractorSettings(name="raw"), "seed": 3, "actors": 2}
        return tune(str(tmp_path), shards, TuneSettings(grids=grids, count=40, groups=5), sampler=LAYOUT, **options)

    result = call(grids)
    assert [row["failure"] for row in result["tried"]] == [None, "40 of 40 samples are not finite"]
    assert result["chosen"]["step_size"] == 0.05
    with pytest.raises(InputError, match=r"tune\.grids can be scored \(dot, step 1e\+25, 10 steps: 40 of 40 samples"):
        call(wild)


def test_the_report_says_why_a_candidate_was_passed_over(tmp_path: Path) -> None:
    """Beside the table of those that were scored."""
    write_run(str(tmp_path / "run"), lambda random: random.integers(0, 256, (1, 32, 32), dtype=np.uint8))
    location = tmp_path / "run" / "tune.json"
    result = json.loads(location.read_text())
    far = SamplerSettings(name="dot", step_size=1e25, steps=100).model_dump(mode="json")
    scores = dict.fromkeys(("fid", "fid_ratio", "fid_ratio_interval", "energy_gap"))
    lost = {"sampler": far, "failure": "40 of 250 samples are not finite", "improves": False, **scores}
    location.write_text(json.dumps(result | {"tried": [lost, *result["tried"]]}))
    section = tuning_section(read_contents(str(tmp_path / "run")))
    table, *_ = (block for block in section.blocks if isinstance(block, Table))
    assert not any("DOT" in row[0].text for row in table.rows) and "chosen" in table.rows[0][0].text
    told = [block.text for block in section.blocks if isinstance(block, Text)]
    assert "Passed over: dot, step 1e+25, 100 steps: 40 of 250 samples are not finite." in told
