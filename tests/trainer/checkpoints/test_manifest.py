"""The manifest is the commit point: it says what exists, what is kept, and who may write."""

import hashlib
from pathlib import Path

import pytest

from gebm.cluster.errors import InputError
from gebm.trainer.checkpoints.manifest import (
    CheckpointManifest,
    CheckpointRecord,
    FileRecord,
    checkpoint_name,
    commit,
    mark_finished,
    read_manifest,
    retained,
    take_over,
    whole_best,
)

FIRST, SECOND = "0" * 8, "1" * 8
DATA = b"weights"
FILE = FileRecord(name="data", bytes=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())


def record(round_number: int, attempt: str = FIRST, reading: float | None = None) -> CheckpointRecord:
    name = checkpoint_name(round_number, 0, attempt)
    return CheckpointRecord(round=round_number, name=name, files=(FILE,), reading=reading)


def saved(run: Path, each: CheckpointRecord, attempt: str = FIRST, keep: int = 2, best=None) -> None:
    """The files, then the commit."""
    (run / "checkpoints" / each.name).mkdir(parents=True)
    (run / "checkpoints" / each.name / "data").write_bytes(DATA)
    commit(str(run), "digest", attempt, each, keep, best)


def rounds(run: Path) -> list[int]:
    return [each.round for each in read_manifest(str(run), "digest").checkpoints]


def folders(run: Path) -> set[str]:
    return {path.name for path in (run / "checkpoints").iterdir()} - {"manifest.json"}


def test_the_newest_are_kept_and_their_folders_alone(tmp_path):
    take_over(str(tmp_path), "digest", FIRST)
    for number in (4, 8, 12):
        saved(tmp_path, record(number))
    assert rounds(tmp_path) == [8, 12]
    assert folders(tmp_path) == {record(8).name, record(12).name}


@pytest.mark.parametrize(("metric", "kept"), [("fid", [4, 12, 16]), ("kale", [8, 12, 16])])
def test_the_best_is_kept_beyond_the_newest(metric, kept, tmp_path):
    take_over(str(tmp_path), "digest", FIRST)
    for number, reading in ((0, None), (4, 1.0), (8, 3.0), (12, 2.0), (16, 2.5)):
        saved(tmp_path, record(number, reading=reading), best=metric)
    assert rounds(tmp_path) == kept
    best, damaged = whole_best(str(tmp_path), "digest", metric)
    assert best.round == kept[0] and not damaged


def test_of_equal_readings_the_first_is_the_best():
    equal = tuple(record(number, reading=1.0) for number in (4, 8, 12))
    assert [each.round for each in retained(equal, 1, "fid")] == [4, 12]


def test_a_damaged_best_gives_way_to_the_next_best_and_is_named(tmp_path):
    take_over(str(tmp_path), "digest", FIRST)
    for number, reading in ((4, 1.0), (8, 3.0), (12, 2.0)):
        saved(tmp_path, record(number, reading=reading), best="fid")
    (tmp_path / "checkpoints" / record(4).name / "data").write_bytes(b"weighty")
    best, damaged = whole_best(str(tmp_path), "digest", "fid")
    assert best.round == 12 and damaged == [f"{tmp_path}/checkpoints/{record(4).name}/data"]


def test_what_killed_attempts_left_is_collected_and_nothing_else(tmp_path):
    take_over(str(tmp_path), "digest", FIRST)
    for name in ("round-00000002-0badcafe", "round-00000002-rollback-1-0badcafe", "round-2", "mine", "round-00000002"):
        (tmp_path / "checkpoints" / name).mkdir()
    (tmp_path / "checkpoints" / ".manifest.json.0123456789ab.part").write_text("{")
    (tmp_path / "checkpoints" / "notes.part").write_text("mine")
    saved(tmp_path, record(4))
    assert folders(tmp_path) == {record(4).name, "round-2", "mine", "round-00000002", "notes.part"}


def test_a_damaged_checkpoint_falls_back_and_what_came_later_is_forgotten(tmp_path):
    take_over(str(tmp_path), "digest", FIRST)
    for number in (4, 8, 12):
        saved(tmp_path, record(number), keep=3)
    (tmp_path / "checkpoints" / record(12).name / "data").write_bytes(b"weight")
    (tmp_path / "checkpoints" / record(8).name / "data").unlink()
    taken = take_over(str(tmp_path), "digest", SECOND)
    assert taken.newest == record(4)
    assert taken.damaged == [f"{tmp_path}/checkpoints/{record(number).name}/data" for number in (12, 8)]
    assert rounds(tmp_path) == [4]
    saved(tmp_path, record(8, SECOND), SECOND)
    assert folders(tmp_path) == {record(4).name, record(8, SECOND).name}


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_by_name(tmp_path):
    take_over(str(tmp_path), "digest", FIRST)
    saved(tmp_path, record(4))
    (tmp_path / "checkpoints" / record(4).name / "data").unlink()
    with pytest.raises(InputError, match=rf"{record(4).name}/data: missing or damaged, and no older .*start again"):
        take_over(str(tmp_path), "digest", SECOND)
    assert read_manifest(str(tmp_path), "digest").attempt == FIRST


def test_an_attempt_that_was_given_up_cannot_write_over_the_next_one(tmp_path):
    take_over(str(tmp_path), "digest", FIRST)
    saved(tmp_path, record(4))
    take_over(str(tmp_path), "digest", SECOND)
    with pytest.raises(InputError, match=r"manifest\.json: attempt: another process has gone on with this run"):
        saved(tmp_path, record(8))
    with pytest.raises(InputError, match="another process"):
        mark_finished(str(tmp_path), "digest", FIRST)
    assert read_manifest(str(tmp_path), "digest") == CheckpointManifest(
        run_digest="digest", attempt=SECOND, checkpoints=(record(4),)
    )
