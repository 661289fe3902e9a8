"""Checkpoints: what an interruption leaves, and what cannot be gone on from."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster.errors import InputError
from gebm.trainer.checkpoints.manifest import read_manifest
from gebm.trainer.loop import TrainingJob
from gebm.trainer.metrics import MetricsWriter, read_metrics
from gebm.trainer.settings import TrainerSettings
from tests.trainer.tiny_runs import MLP, run_alone, snapshot, tiny_job, write_points


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> TrainingJob:
    url = tmp_path_factory.mktemp("run")
    job = tiny_job(url / "undisturbed", write_points(url / "points"))
    run_alone(job)
    return job


def cut_back(job: TrainingJob, out: Path, **changes: Any) -> tuple[TrainingJob, dict[str, Any]]:
    """A copy of the run without its model, and with these changes in its manifest of checkpoints."""
    shutil.copytree(job.run, out)
    shutil.rmtree(out / "model")
    location = out / "checkpoints" / "manifest.json"
    manifest = json.loads(location.read_text()) | {"finished": False}
    location.write_text(json.dumps(manifest | changes))
    return tiny_job(out, job.data), manifest


def test_a_run_cut_back_to_its_last_checkpoint_goes_on_to_the_same_end(undisturbed, tmp_path):
    """What an interruption leaves: no model, and metrics beyond the checkpoint."""
    again, manifest = cut_back(undisturbed, tmp_path / "again")
    only = manifest["checkpoints"][:1]
    assert only[0]["round"] < 14
    (tmp_path / "again" / "checkpoints" / "manifest.json").write_text(json.dumps(manifest | {"checkpoints": only}))
    run_alone(again)
    assert snapshot(again) == snapshot(undisturbed)


@pytest.mark.parametrize("file", ["__0_0.distcp", ".metadata", "plain.json"])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(file, undisturbed, tmp_path):
    again, manifest = cut_back(undisturbed, tmp_path / "again")
    name = manifest["checkpoints"][-1]["name"]
    newest = tmp_path / "again" / "checkpoints" / name / file
    content = newest.read_bytes()
    newest.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    posted = run_alone(again)
    assert f"{name}/{file}: missing or damaged; round 12 is taken instead" in posted[0]["event"]
    assert snapshot(again) == snapshot(undisturbed)
    kept = [record.name for record in read_manifest(again.run, again.run_digest).checkpoints]
    assert len(kept) == 2 and name not in kept


def test_a_checkpoint_of_another_architecture_is_refused(undisturbed, tmp_path):
    cut_back(undisturbed, tmp_path / "again")
    wider = MLP.model_copy(update={"energy_widths": (24,)})
    with pytest.raises(InputError, match=r"round-[^/]*: a checkpoint of another architecture"):
        run_alone(tiny_job(tmp_path / "again", undisturbed.data, model=wider))


def test_checkpoints_of_another_run_are_refused(undisturbed, tmp_path):
    again, _ = cut_back(undisturbed, tmp_path / "again", run_digest="another")
    with pytest.raises(InputError, match=r"manifest\.json: run_digest.*another model"):
        run_alone(again)


def test_a_broken_checkpoint_manifest_is_refused(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "manifest.json").write_text("{")
    with pytest.raises(InputError, match="not a checkpoint manifest"):
        read_manifest(str(tmp_path), "0")


def test_metrics_after_the_checkpoint_are_dropped_and_written_anew(tmp_path):
    writer = MetricsWriter(str(tmp_path), 0)
    writer.write({"round": 1}, {})
    writer.next_segment(1)
    writer.write({"round": 2}, {})
    resumed = MetricsWriter(str(tmp_path), 1)
    assert read_metrics(str(tmp_path)) == [{"round": 1}]
    resumed.write({"round": 2, "again": True}, {})
    assert read_metrics(str(tmp_path)) == [{"round": 1}, {"round": 2, "again": True}]


def test_checkpoints_must_fall_on_lines_of_metrics():
    with pytest.raises(ValueError, match=r"checkpoint_every \(5\) must be a multiple of log_every \(2\)"):
        TrainerSettings(checkpoint_every=5, log_every=2)
