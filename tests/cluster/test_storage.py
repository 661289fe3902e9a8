"""Storage: a reader sees a whole file or none, on local disk and on an object store."""

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gebm.cluster import storage
from gebm.cluster.errors import InputError


@pytest.fixture(params=["local", "object store"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path)
    return f"memory://bucket/{tmp_path.name}"


def test_what_is_written_is_read_listed_measured_and_removed(root: str) -> None:
    data = bytes(range(256)) * 40
    url = storage.join(root, "run", "part.bin")
    assert not storage.exists(url)
    assert storage.list_names(storage.join(root, "run")) == []
    storage.write_bytes_atomic(url, data)
    storage.write_json_atomic(storage.join(root, "run", "a.json"), {"π": [1, 2.5]})
    assert storage.exists(url) and storage.read_bytes(url) == data
    assert storage.read_json(storage.join(root, "run", "a.json")) == {"π": [1, 2.5]}
    assert storage.read_range(url, 10, 20) == data[10:20]
    assert storage.read_range(url, 10_000, None) == data[10_000:]
    assert storage.size(url) == len(data)
    assert storage.list_sizes(storage.join(root, "run"))["part.bin"] == len(data)
    assert storage.sha256(url) == hashlib.sha256(data).hexdigest()
    assert storage.list_names(storage.join(root, "run")) == ["a.json", "part.bin"]
    assert storage.list_names(url) == []
    storage.remove(url)
    storage.remove(url)
    assert storage.list_names(storage.join(root, "run")) == ["a.json"]
    storage.remove(storage.join(root, "run"))
    assert not storage.exists(storage.join(root, "run", "a.json"))


def test_a_second_writing_replaces_the_first(root: str) -> None:
    url = storage.join(root, "value.txt")
    storage.write_bytes_atomic(url, b"a much longer first value")
    storage.write_bytes_atomic(url, b"second")
    assert storage.read_text(url) == "second"


def test_reading_what_is_not_there_raises(root: str) -> None:
    for read in (storage.read_bytes, storage.sha256, storage.size, storage.read_json):
        with pytest.raises(FileNotFoundError):
            read(storage.join(root, "nothing"))


def test_a_listing_does_not_hide_what_another_process_wrote(tmp_path: Path) -> None:
    assert storage.list_names(str(tmp_path)) == []
    (tmp_path / "new").write_bytes(b"x")
    assert storage.list_names(str(tmp_path)) == ["new"]


def test_a_failed_write_leaves_the_old_file_and_no_debris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = str(tmp_path / "value")
    storage.write_bytes_atomic(url, b"old")

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        storage.write_bytes_atomic(url, b"new")
    assert storage.read_bytes(url) == b"old"
    assert storage.list_names(str(tmp_path)) == ["value"]


def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    url = str(tmp_path / "value")
    size = 4 << 20
    storage.write_bytes_atomic(url, b"a" * size)
    program = (
        "import sys; from gebm.cluster import storage\n"
        "print('on', flush=True)\n"
        "while True:\n"
        f"  for letter in (b'a', b'b'): storage.write_bytes_atomic(sys.argv[1], letter * {size})\n"
    )
    for milliseconds in (5, 12, 31, 50):
        writer = subprocess.Popen([sys.executable, "-c", program, url], stdout=subprocess.PIPE)
        assert writer.stdout is not None and writer.stdout.readline() == b"on\n"
        time.sleep(milliseconds / 1000)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        data = storage.read_bytes(url)
        assert len(data) == size and data in (b"a" * size, b"b" * size)


def test_json_that_no_other_reader_would_accept_is_refused(tmp_path: Path) -> None:
    url = str(tmp_path / "value.json")
    with pytest.raises(ValueError):
        storage.write_json_atomic(url, {"fid": float("nan")})
    assert not storage.exists(url)


def test_absolute_means_the_same_in_every_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("runs/a/") == str(tmp_path / "runs" / "a")
    assert storage.absolute(f"file://{tmp_path}/x") == str(tmp_path / "x")
    assert storage.absolute("s3://bucket/run/") == "s3://bucket/run"
    assert storage.local_path("s3://bucket/run") is None
    assert storage.local_path("runs") == tmp_path / "runs"
    assert storage.join("s3://bucket/", "a", "/b") == "s3://bucket/a/b"


def test_an_unknown_kind_of_storage_is_an_input_error_that_names_the_url() -> None:
    with pytest.raises(InputError, match="nostore://bucket/run cannot be opened"):
        storage.exists("nostore://bucket/run")
