"""The best checkpoint by a validation reading: kept beyond the newest, exported where that is asked for."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from gebm.cluster.errors import InputError
from gebm.trainer.checkpoints.manifest import CheckpointRecord, read_manifest
from gebm.trainer.loop import TrainingJob
from gebm.trainer.metrics import read_metrics
from gebm.trainer.resume import reading_of
from gebm.trainer.settings import TrainerSettings
from tests.trainer.tiny_runs import read_checkpoint, run_alone, run_until, snapshot, tiny_job, write_points

WATCH: dict[str, Any] = {"images": 32, "draws": 64, "tensorboard": False}
# A rate at which the energy wanders: its best is not its last.
ENERGY: dict[str, Any] = {"steps": 20, "learning_rate": 0.2, "schedule": {"shape": "constant"}, "energy_average": 0.5}
LONG: dict[str, Any] = {"energy": ENERGY, "keep_checkpoints": 1, "watch": WATCH}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def validation(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("validation"), count=60, seed=1)


@pytest.fixture(scope="module")
def best(data, validation, tmp_path_factory) -> TrainingJob:
    out = tmp_path_factory.mktemp("runs") / "best"
    job = tiny_job(out, data, validation=validation, keep_best="kale", export="best", **LONG)
    run_alone(job)
    return job


def kept(job: TrainingJob) -> tuple[CheckpointRecord, ...]:
    return read_manifest(job.run, job.run_digest).checkpoints


def readings(job: TrainingJob) -> dict[int, float]:
    rows = [row for row in read_metrics(job.run) if row["phase"] == "energy"]
    return {row["round"]: row["kale_validation"] for row in rows if "kale_validation" in row}


def test_the_best_of_the_last_phase_is_kept_with_its_reading_beyond_the_newest(best):
    read = readings(best)
    winner = max(read, key=lambda number: read[number])
    assert winner < 28  # else the test would show nothing
    assert [record.round for record in kept(best)] == [winner, 28]
    assert kept(best)[0].reading == read[winner]


def test_the_exported_model_is_that_of_the_best_checkpoint(best):
    winner = kept(best)[0].round
    weights = load_file(Path(best.run) / "model" / "weights.safetensors")
    average = read_checkpoint(best.run, winner)["networks"]["energy_average"]
    last = read_checkpoint(best.run)["networks"]["energy_average"]
    names = [name for name in average if average[name].is_floating_point()]
    for name in names:
        assert weights[f"energy_network.{name}"].equal(average[name]), name
    assert not all(average[name].equal(last[name]) for name in names)
    card = (Path(best.run) / "model" / "README.md").read_text()
    assert f"the state after round {winner} of 28 was taken: the best by kale on validation data" in card


def test_training_is_the_same_whatever_is_exported(best, data, validation, tmp_path):
    job = tiny_job(tmp_path, data, validation=validation, **LONG)
    run_alone(job)
    assert read_metrics(job.run) == read_metrics(best.run)
    assert snapshot(job)[1] != snapshot(best)[1]


def test_a_killed_run_keeps_and_exports_the_same_best(best, data, validation, tmp_path):
    job = tiny_job(tmp_path, data, validation=validation, keep_best="kale", export="best", **LONG)
    run_until(job, 14)
    run_until(job, 26)
    posted = run_alone(job)
    assert snapshot(job) == snapshot(best)
    assert [(r.round, r.reading) for r in kept(job)] == [(r.round, r.reading) for r in kept(best)]
    assert f"the state after round {kept(best)[0].round} of 28" in posted[-1]["event"]


def test_without_an_energy_phase_the_best_is_that_of_the_joint_phase_by_fid(data, validation, tmp_path):
    watch = WATCH | {"fid_every": 4, "fid_images": 32, "extractor": {"name": "raw"}}
    changes: dict[str, Any] = {"joint": {"steps": 16}, "energy": {"steps": 0}, "watch": watch}
    job = tiny_job(tmp_path, data, validation=validation, keep_best="fid", keep_checkpoints=1, **changes)
    run_alone(job)
    read = {row["round"]: row["fid"] for row in read_metrics(job.run) if "fid" in row}
    winner = min(read, key=lambda number: read[number])
    assert (winner, read[winner]) in [(record.round, record.reading) for record in kept(job)]


def test_readings_of_earlier_phases_do_not_count():
    """They are of another base, or of no energy at all."""
    settings = TrainerSettings(keep_best="kale")
    assert reading_of(settings, "joint", {"kale_validation": 9.0}) is None
    assert reading_of(settings, "energy", {"kale_validation": 0.5, "kale_train": 1.0}) == 0.5
    assert reading_of(TrainerSettings(), "energy", {"kale_validation": 0.5}) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keep_best": "fid"}, r"trainer\.keep_best: it reads fid, which needs trainer\.watch\.fid_every above 0"),
        (
            {"keep_best": "kid", "watch": WATCH | {"fid_every": 4, "extractor": {"name": "raw"}}},
            r"trainer\.keep_best: it reads kid, but in the energy phase the base stands still",
        ),
        ({"keep_best": "kale", "watch": WATCH | {"every": 0}}, r"trainer\.keep_best: it reads kale, which is not"),
        ({"keep_best": "kale", "energy": {"steps": 0}}, r"trainer\.keep_best: KALE tells .* no energy phase"),
    ],
)
def test_a_best_that_nothing_tells_is_refused_before_anything_starts(changes, message, data, validation, tmp_path):
    with pytest.raises(InputError, match=message):
        run_alone(tiny_job(tmp_path / "run", data, validation=validation, **changes))
    with pytest.raises(InputError, match=r"validation samples"):
        run_alone(tiny_job(tmp_path / "run", data, keep_best="kale"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"export": "best"}, 'export = "best" needs keep_best'),
        (
            {"keep_best": "fid", "watch": {"fid_every": 30}, "checkpoint_every": 20},
            r"watch\.fid_every \(30\) must be a multiple of checkpoint_every \(20\) with keep_best",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        TrainerSettings.model_validate(changes)
