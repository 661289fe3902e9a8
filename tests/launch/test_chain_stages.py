"""The picture of the same chains at several stages: whose images they are, what it says, what it refuses."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.launch.chain_stages import draw_stages, read_stages, stage_settings
from gebm.launch.cli.main import run as gebm
from gebm.launch.config import dump_recipe, load_recipe
from gebm.launch.report.contents import read_contents
from gebm.launch.report.stages import stages_picture, stages_section
from gebm.sampler import SamplerSettings
from gebm.trainer.model import ModelSettings, build_model, load_model, save_model, to_stored
from tests.sampler.small_models import save_small_model

SETTINGS = stage_settings(SamplerSettings(name="kla", step_size=0.3), every=10, stages=4)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    save_small_model(str(tmp_path / "model"))
    (tmp_path / "config.toml").write_text(dump_recipe(load_recipe("mnist")))
    return tmp_path


def test_a_step_goes_as_far_as_one_of_the_runs_own_sampler() -> None:
    """Of ULA with `h`: `d = sqrt(2h)`. Nothing else of the sampler but its temperature and layout is taken over."""
    tuned = SamplerSettings(name="ula", step_size=0.02, inverse_temperature=3, schedule={"shape": "stepwise"}, steps=70)
    found = stage_settings(tuned, every=25, stages=5)
    assert (found.name, found.step_size, found.inverse_temperature) == ("kla", pytest.approx(0.2), 3)
    assert (found.steps, found.thin, found.samples_per_chain, found.transitions) == (0, 25, 5, 100)
    assert found.schedule.shape == "constant"
    assert stage_settings(SamplerSettings(name="kla", step_size=0.06), 5, 3).step_size == 0.06
    assert stage_settings(SamplerSettings(name="mala", step_size=0.5), 5, 3).step_size == pytest.approx(1.0)


def test_all_frictions_start_from_the_same_images_and_low_friction_moves_further(run: Path) -> None:
    result = draw_stages(str(run), SETTINGS, [20.0, 0.05], chains=6, seed=3)
    found = read_stages(str(run))
    assert found is not None and found[0] == result
    images = found[1]
    assert images.shape == (2, 6, 4, 1, 8, 8) and images.dtype == np.uint8
    model = load_model(str(run))
    prior = model.sample_prior(6, torch.Generator().manual_seed(derive_seed(3, "chains", "prior")))
    begin = to_stored(model.generate(prior)).numpy().astype(int)
    for block in images:
        assert np.abs(block[:, 0] - begin).max() <= 1
    assert not np.array_equal(images[0, :, 1], images[1, :, 1])
    assert result.steps == (0, 10, 20, 30)
    steps = np.diff(images.astype(float), axis=2)
    assert result.moved == pytest.approx(np.sqrt((steps**2).mean((3, 4, 5))).mean((1, 2)).tolist())
    assert result.moved[1] > 1.3 * result.moved[0]
    energy = model.energy(model.generate(prior)).mean()
    assert [row[0] for row in result.energy] == pytest.approx([float(energy)] * 2, rel=1e-4)
    assert all(math.isfinite(value) for row in result.energy for value in row)


def test_the_same_seed_gives_the_same_images(run: Path) -> None:
    first, again, other = (
        draw_stages(str(run), SETTINGS, [1.0], chains=3, seed=seed).images_sha256 for seed in (1, 1, 2)
    )
    assert first == again != other


def test_the_command_writes_a_picture_and_the_report_shows_the_rows(run: Path, capsys) -> None:
    command = ["chains", str(run), "--friction", "5", "--friction", "0.2", "--chains", "3", "--stages", "3"]
    assert gebm([*command, "--every", "4", "--inverse-temperature", "2"]) == 0
    assert capsys.readouterr().out.strip().endswith("chains.png")
    picture = Image.open(io.BytesIO((run / "chains.png").read_bytes()))
    assert picture.size[0] > 200 and picture.size[1] > picture.size[0]
    found = read_stages(str(run))
    assert found is not None
    stages, images = found
    assert (stages.frictions, stages.steps, stages.sampler.inverse_temperature) == ((5.0, 0.2), (0, 4, 8), 2.0)
    assert stages_picture(stages, images)[:4] == b"\x89PNG"
    section = stages_section(read_contents(str(run)))
    assert section is not None
    grids = section.blocks[0].blocks  # type: ignore[union-attr]
    assert [grid.title for grid in grids] == ["Friction 5", "Friction 0.2"]
    # A chain a row, from its first stage to its last.
    assert np.array_equal(grids[1].images.reshape(images[1].shape), images[1]) and grids[1].columns == 3
    assert [head.text for head in grids[0].heads] == ["0", "4", "8"]


def test_without_the_command_the_report_says_nothing_of_it(run: Path) -> None:
    assert read_stages(str(run)) is None
    assert stages_section(read_contents(str(run))) is None


def test_chains_of_another_model_are_not_shown(run: Path) -> None:
    draw_stages(str(run), SETTINGS, [1.0], chains=2, seed=0)
    save_small_model(str(run / "model"), seed=7)
    section = stages_section(read_contents(str(run)))
    assert section is not None and "another model" in section.blocks[0].text  # type: ignore[union-attr]


def test_broken_files_and_chains_that_cannot_be_drawn_are_refused(run: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(InputError, match=r"fly away at step size 1e\+20; give a smaller --step-size"):
        draw_stages(str(run), SETTINGS.model_copy(update={"step_size": 1e20}), [1.0], chains=2, seed=0)
    assert read_stages(str(run)) is None
    draw_stages(str(run), SETTINGS, [1.0], chains=2, seed=0)
    (run / "chains.npy").write_bytes(b"other")
    with pytest.raises(InputError, match=r"chains\.npy is not the file.*run `gebm chains"):
        read_stages(str(run))
    (run / "chains.json").write_text(json.dumps({"format_version": 2}))
    with pytest.raises(InputError, match=r"chains\.json: not the chains of this version"):
        read_stages(str(run))
    assert gebm(["chains", str(run), "--friction", "-1"]) == 2
    assert "--friction -1: give a positive number" in capsys.readouterr().err
    vectors = ModelSettings(network="mlp", latent_dimension=2, base_widths=(4,), energy_widths=(4,))
    save_model(build_model(vectors, (3,), seed=0), vectors, str(tmp_path / "vectors"))
    with pytest.raises(InputError, match="vectors of 3 numbers"):
        draw_stages(str(tmp_path / "vectors"), SETTINGS, [1.0], chains=2, seed=0)
