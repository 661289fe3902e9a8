"""A run that is told to stop makes a checkpoint of where it is, in the middle of a line too, and loses nothing."""

import pytest

from gebm.cluster import storage
from gebm.trainer.checkpoints.manifest import read_manifest
from gebm.trainer.council import MOVE, STOP
from gebm.trainer.loop import TrainingJob
from gebm.trainer.metrics import TIMINGS, Window, read_metrics
from tests.trainer.tiny_runs import PulseWithWord, run_alone, snapshot, tiny_job, write_points


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> TrainingJob:
    job = tiny_job(tmp_path_factory.mktemp("run") / "undisturbed", data, log_every=4)
    run_alone(job)
    return job


def checkpoints(job: TrainingJob) -> list[int]:
    return [record.round for record in read_manifest(job.run, job.run_digest).checkpoints]


@pytest.mark.parametrize("word", [STOP, MOVE])
@pytest.mark.parametrize("at", [0, 3, 4, 7, 8, 9, 13])
def test_a_run_stopped_anywhere_and_gone_on_with_is_the_undisturbed_one(word, at, data, undisturbed, tmp_path):
    """Lines are of 4 rounds, checkpoints of 4, phases end after 8 and 14."""
    job = tiny_job(tmp_path, data, log_every=4)
    posted = run_alone(job, pulse=PulseWithWord(word, at))
    assert posted[-1] == {"stopped": at, "word": word}
    assert checkpoints(job)[-1] == at and not (tmp_path / "model").exists()
    run_alone(job)
    assert snapshot(job) == snapshot(undisturbed)


def test_a_run_stopped_after_every_round_is_the_undisturbed_one(data, undisturbed, tmp_path):
    job = tiny_job(tmp_path, data, log_every=4)
    for at in range(14):
        run_alone(job, pulse=PulseWithWord(STOP, at))
    run_alone(job)
    assert snapshot(job) == snapshot(undisturbed)
    assert [row["round"] for row in read_metrics(job.run, TIMINGS)] == [4, 8, 12, 14]


def test_a_run_in_a_bucket_is_stopped_and_gone_on_with_as_one_on_disk(bucket, data, undisturbed):
    """Where files can neither be appended to nor renamed. The newest checkpoint is damaged on top of it."""
    job = tiny_job(f"{bucket}/run", data, log_every=4)
    for at in (3, 9):
        run_alone(job, pulse=PulseWithWord(STOP, at))
    newest = read_manifest(job.run, job.run_digest).checkpoints[-1]
    storage.write_bytes_atomic(f"{bucket}/run/checkpoints/{newest.name}/__0_0.distcp", b"damaged")
    stray = f"{bucket}/run/checkpoints/round-00000002-0badcafe"
    storage.write_bytes_atomic(f"{stray}/__0_0.distcp", b"of an attempt that was killed")
    posted = run_alone(job)
    assert f"{newest.name}/__0_0.distcp: missing or damaged; round 8 is taken instead" in posted[0]["event"]
    assert snapshot(job) == snapshot(undisturbed)
    assert checkpoints(job) == [12, 14] and not storage.exists(stray)


def test_a_run_stopped_where_a_checkpoint_is_makes_no_other(data, tmp_path):
    job = tiny_job(tmp_path, data, keep_checkpoints=9)
    run_alone(job, pulse=PulseWithWord(STOP, 4))
    run_alone(job, pulse=PulseWithWord(STOP, 4))
    assert checkpoints(job) == [4]


def test_a_word_after_the_last_round_does_not_keep_the_model_back(data, tmp_path):
    job = tiny_job(tmp_path, data)
    run_alone(job, pulse=PulseWithWord(STOP, 14))
    assert (tmp_path / "model" / "model.toml").exists()


def test_the_timings_of_a_line_hold_what_was_done_of_it_before_the_stop(data, tmp_path):
    job = tiny_job(tmp_path, data, log_every=4)
    run_alone(job, pulse=PulseWithWord(STOP, 3))
    run_alone(job)
    first = read_metrics(job.run, TIMINGS)[0]
    # Energy steps of 4 joint rounds, 3 of them with 3 or 2 of warm-up: all their images, not the last round's alone.
    assert first["seconds"] * first["images_per_second"] == pytest.approx(16 * (3 + 3 * 2))
    window = Window(5, {"rows": [{"loss": 1.0}], "batches": 0, "seconds": 1000.0})
    assert 1000.0 <= window.close(1, "joint", 6, 16)[1]["seconds"] < 1100.0
