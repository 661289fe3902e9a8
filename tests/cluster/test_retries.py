"""Storage that fails for a while: done again, by name when it stays so, and never silently short."""

import errno
import hashlib
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gebm.cluster import lease, retries, storage
from gebm.cluster.errors import StorageError
from tests.cluster.faulty_proxy import FaultyProxy, always, faulty_proxy, first, seeded

DATA = random.Random(0).randbytes(300_000)
FAULTS = ("503", "500", "drop", "lost answer", "cut", "short")


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyProxy]:
    """A proxy that faults can be ordered from, before the bucket; waits and timeouts are short."""
    import fsspec
    import s3fs

    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setitem(fsspec.config.conf, "s3", {"config_kwargs": {"read_timeout": 1.0, "connect_timeout": 1.0}})
        monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.02)
        s3fs.S3FileSystem.clear_instance_cache()
        yield proxy
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def folder(bucket: str, tmp_path: Path) -> str:
    return storage.join(bucket, tmp_path.name)


def asked(proxy: FaultyProxy, what: str) -> int:
    return sum(what in request for request in proxy.requests)


@pytest.mark.parametrize("fault", [*FAULTS, "hang"])
def test_each_kind_of_fault_of_each_operation_is_overcome(proxy: FaultyProxy, folder: str, fault: str) -> None:
    url = storage.join(folder, "a.bin")
    faults = (fault,) * (1 if fault == "hang" else 3)

    def faulty(method: str) -> None:
        proxy.schedule = first(*faults, of=method)

    faulty("PUT")
    storage.write_bytes_atomic(url, DATA)
    faulty("GET")
    assert storage.read_bytes(url) == DATA
    faulty("GET")
    assert storage.read_range(url, 1000, 250_000) == DATA[1000:250_000]
    faulty("GET")
    assert storage.read_range(url, 200_000, 400_000) == DATA[200_000:]
    faulty("GET")
    assert storage.read_range(url, 200_000, None) == DATA[200_000:]
    faulty("GET")
    assert storage.sha256(url) == hashlib.sha256(DATA).hexdigest()
    faulty("GET")
    if fault != "short":  # of a listing's XML: a parser finds that out, as an error that is no fault of the store
        assert storage.list_sizes(folder) == {"a.bin": len(DATA)}
    faulty("HEAD")
    assert storage.size(url) == len(DATA) and storage.exists(url)
    faulty("HEAD")
    assert not storage.exists(storage.join(folder, "b.bin"))
    faulty("POST")
    storage.remove(url)
    proxy.schedule = lambda method, path: None
    assert storage.list_names(folder) == []
    assert proxy.done[fault] >= len(faults)


def test_what_keeps_failing_is_named_after_a_limited_number_of_tries(proxy: FaultyProxy, folder: str) -> None:
    url = storage.join(folder, "a.bin")
    for fault, operation, call, cause in (
        ("503", "writing", lambda: storage.write_bytes_atomic(url, b"x"), "SlowDown|reduce your request rate"),
        ("drop", "reading", lambda: storage.read_bytes(url), "Connection"),
        ("500", "listing", lambda: storage.list_names(folder), "OSError"),
        ("drop", "removing", lambda: storage.remove(url), "Connection"),
    ):
        proxy.schedule = always(fault)
        proxy.requests.clear()
        with pytest.raises(
            StorageError, match=rf"{url if operation != 'listing' else folder}: {operation} failed 6"
        ) as raised:
            call()
        assert isinstance(raised.value, OSError) and raised.value.__cause__ is not None
        assert raised.match(f"the last time: .*({cause})")
        # Not botocore's times s3fs's times ours; aiohttp alone asks once more where a kept connection was closed.
        assert len(proxy.requests) in (
            (retries.ATTEMPTS, 2 * retries.ATTEMPTS) if fault == "drop" else (retries.ATTEMPTS,)
        )


def test_a_read_that_stays_short_is_an_error_and_never_data(proxy: FaultyProxy, folder: str) -> None:
    url = storage.join(folder, "a.bin")
    storage.write_bytes_atomic(url, DATA)
    proxy.schedule = always("short", of="GET")
    for read in (storage.read_bytes, storage.sha256, lambda url: storage.read_range(url, 10, 250_000)):
        with pytest.raises(StorageError, match=r"ShortReadError: 1\d+ bytes came, of \d+"):
            read(url)


def test_what_will_not_pass_is_raised_at_once(proxy: FaultyProxy, folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("no wait was due"))
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(folder, "nothing"))
    with pytest.raises(FileNotFoundError):
        storage.read_range(storage.join(folder, "nothing"), 0, 10)
    with pytest.raises(FileNotFoundError):
        storage.write_bytes_atomic("s3://there-is-no-such-bucket/x", b"x")
    for error in (PermissionError("Access Denied"), KeyError("x"), OSError(errno.ENOSPC, "full")):
        assert not retries.may_pass(error)


def test_waits_grow_are_drawn_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def fail() -> None:
        raise TimeoutError("too late")

    random.seed(7)
    before = random.getstate()
    for _ in range(2):
        with pytest.raises(
            StorageError, match="s3://b/x: reading failed 6 times, the last time: TimeoutError: too late"
        ):
            retries.persist("reading", "s3://b/x", fail)
    assert random.getstate() == before  # numbers of others do not move
    assert len(waits) == 10 and waits[:5] != waits[5:]
    for number, wait in enumerate(waits[:5]):
        assert 0.25 * 2**number <= wait <= 0.5 * 2**number


def test_a_storm_of_faults_changes_no_byte(proxy: FaultyProxy, folder: str) -> None:
    proxy.schedule = seeded(3, 0.25, FAULTS[:-1])
    files = {f"{number}.bin": DATA[: number * 5000] for number in range(30)}
    for name, data in files.items():
        storage.write_bytes_atomic(storage.join(folder, name), data)
    assert {name: storage.read_bytes(storage.join(folder, name)) for name in files} == files
    assert storage.list_sizes(folder) == {name: len(data) for name, data in sorted(files.items())}
    assert sum(proxy.done[fault] for fault in FAULTS) > 20


def test_a_lease_whose_creation_was_answered_by_nobody_is_still_ones_own(
    proxy: FaultyProxy, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.1)
    proxy.schedule = first("lost answer", of="PUT")
    with lease.held(folder) as hold:
        hold.check()
    assert proxy.done["lost answer"] == 1 and storage.list_names(folder) == []


def test_a_disk_that_is_full_is_named_and_nothing_is_left(tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the write fails in its middle."""
    url = str(tmp_path / "value")
    storage.write_bytes_atomic(url, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError) as raised:
            storage.write_bytes_atomic(url, bytes(3 << 20))
        with pytest.raises(OSError) as created:
            storage.create_bytes(str(tmp_path / "other"), bytes(3 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, url) and url in str(raised.value)
    assert created.value.filename == str(tmp_path / "other")
    assert storage.list_sizes(str(tmp_path)) == {"value": 3}


def test_a_full_disk_keeps_its_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as raised:
        storage.write_bytes_atomic(str(tmp_path / "value"), b"new")
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tmp_path / "value"))
    assert list(tmp_path.iterdir()) == []
