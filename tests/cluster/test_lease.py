"""A lease: one process at a time has an output directory, and one whose turn is over publishes nothing more."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster import lease, storage
from gebm.cluster.errors import InputError
from gebm.cluster.lease import LEASE_NAME, Lease, held
from gebm.cluster.processes import birth

HOLDER = """
import sys, time
from pathlib import Path
from gebm.cluster import lease
lease.RENEW_SECONDS, lease.EXPIRY_SECONDS = 0.2, 1.5
with lease.held(sys.argv[1]) as hold:
    print("on", flush=True)
    while True:
        hold.check()
        with Path(sys.argv[2]).open("a") as file:
            file.write("published\\n")
        time.sleep(0.05)
"""
ELSEWHERE = Lease(
    token="theirs",
    user="ada",
    host="far",
    machine="another boot pid:[1]",
    pid=12,
    born="345",
    command="gebm sample runs/a",
    since="2026-01-02 03:04:05 UTC",
    renewed="2026-01-02 03:04:05 UTC",
    until="2026-01-02 03:05:05 UTC",
    uptime=1.0,
)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"RENEW": 0.2, "EXPIRY": 1.5, "SETTLE": 0.4, "LOCAL_SETTLE": 0.2, "LOOK": 0.05}.items():
        monkeypatch.setattr(lease, f"{name}_SECONDS", seconds)


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "local":
        return str(tmp_path / "out")
    return storage.join(request.getfixturevalue("bucket"), tmp_path.name)


def place(output: str, there: Lease) -> None:
    storage.write_bytes_atomic(storage.join(output, LEASE_NAME), there.model_dump_json().encode())


def placed(output: str) -> dict[str, Any]:
    return storage.read_json(storage.join(output, LEASE_NAME))


@contextmanager
def holder(output: str, log: Path) -> Iterator[subprocess.Popen]:
    """Another process that has the lease and publishes a line every now and then."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, output, str(log)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "on\n"
            yield process
        finally:
            process.kill()


def compete(output: str, count: int = 6) -> tuple[list[int], list[str]]:
    """Ask for the same lease `count` times at the same moment; return who got it, and what the others were told."""
    barrier, over = threading.Barrier(count), threading.Event()
    got: list[int] = []
    told: list[str] = []

    def ask(number: int) -> None:
        barrier.wait()
        try:
            with held(output) as hold:
                hold.check()
                got.append(number)
                over.wait(20)
                hold.check()
        except InputError as error:
            told.append(str(error))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 20
    while len(got) + len(told) < count and time.monotonic() < deadline:
        time.sleep(0.01)
    over.set()
    for thread in threads:
        thread.join()
    return got, told


def test_of_several_that_start_at_the_same_moment_one_gets_it_and_the_others_are_told_who(output: str) -> None:
    got, told = compete(output)
    assert len(got) == 1 and len(told) == 5
    assert all(f"process {os.getpid()} " in message for message in told)
    assert storage.list_names(output) == []


def test_a_store_that_cannot_refuse_a_second_creation_still_has_one_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "create_bytes", storage.write_bytes_atomic)
    got, told = compete(f"memory://leases/{tmp_path.name}")
    assert len(got) == 1 and len(told) == 5


def test_of_several_that_find_a_dead_holder_one_follows(output: str) -> None:
    place(output, ELSEWHERE.model_copy(update={"machine": lease._machine(), "pid": 2**22 + 1}))
    got, told = compete(output)
    assert len(got) == 1 and len(told) == 5


def test_the_error_says_who_has_it_since_when_until_when_and_what_to_do(tmp_path: Path) -> None:
    output = str(tmp_path / "out")
    with held(output):
        there = placed(output)
        with pytest.raises(InputError) as raised, held(output):
            raise AssertionError("two have it")
    message = str(raised.value)
    for part in (output, f"{there['user']}@{there['host']}", f"process {os.getpid()} ", there["command"]):
        assert part in message
    assert f"since {there['since']}, until {there['until']} at least" in message
    assert "wait for that process to end, or stop it, or choose another output" in message
    assert "pytest" in there["command"]


def test_it_is_renewed_while_it_is_held_and_gone_at_the_end_and_on_every_error(output: str) -> None:
    with held(output) as hold:
        first = placed(output)
        time.sleep(1.0)
        hold.check()
        later = placed(output)
    assert later["uptime"] >= first["uptime"] + 0.5 and later["token"] == first["token"]
    assert not storage.exists(output)
    for error in (KeyboardInterrupt, InputError, SystemExit):
        with pytest.raises(error), held(output):
            raise error("x")
        assert not storage.exists(output)
    storage.write_bytes_atomic(storage.join(output, "shard.tar"), b"x")
    with held(output):
        pass
    assert storage.list_names(output) == ["shard.tar"]


def test_a_holder_that_was_killed_is_followed_at_once(output: str, tmp_path: Path) -> None:
    """Also while it is a zombie: a container's first process may reap nobody."""
    with holder(output, tmp_path / "log") as process:
        with pytest.raises(InputError, match=f"process {process.pid} "), held(output):
            raise AssertionError("two have it")
        process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        begun = time.monotonic()
        with held(output):
            assert time.monotonic() - begun < lease.EXPIRY_SECONDS
            assert placed(output)["pid"] == os.getpid()


@pytest.mark.parametrize("born", [birth(os.getpid()), "1"])
def test_a_process_number_that_was_given_anew_is_not_taken_for_the_holder(tmp_path: Path, born: str) -> None:
    """The one of this process: alive, and of another birth than the holder's was."""
    now = {"machine": lease._machine(), "pid": os.getpid(), "born": born, "uptime": lease._uptime()}
    place(str(tmp_path), ELSEWHERE.model_copy(update=now))
    if born == "1":
        with held(str(tmp_path)) as hold:
            hold.check()
    else:
        with pytest.raises(InputError, match="ada@far"), held(str(tmp_path)):
            raise AssertionError("two have it")


@pytest.mark.parametrize("year", ["2001", "2099"])
def test_a_holder_on_another_host_that_renews_no_more_is_followed_whatever_its_clock_says(
    tmp_path: Path, year: str
) -> None:
    output = str(tmp_path)
    shifted = {name: year + getattr(ELSEWHERE, name)[4:] for name in ("since", "renewed", "until")}
    place(output, ELSEWHERE.model_copy(update=shifted))
    begun = time.monotonic()
    with held(output):
        assert time.monotonic() - begun >= lease.EXPIRY_SECONDS


def test_a_holder_on_another_host_that_renews_is_refused_at_its_first_sign(output: str) -> None:
    place(output, ELSEWHERE)
    renewal = threading.Timer(0.6, place, (output, ELSEWHERE.model_copy(update={"uptime": 2.0})))
    renewal.start()
    with pytest.raises(InputError, match=r"ada@far, process 12 \(`gebm sample runs/a`\), has it since 2026-01-02"):
        with held(output):
            raise AssertionError("two have it")
    renewal.join()
    assert placed(output)["token"] == "theirs"


def test_a_lease_that_cannot_be_read_is_watched_like_any_other(tmp_path: Path) -> None:
    (tmp_path / LEASE_NAME).write_bytes(b"")
    begun = time.monotonic()
    with held(str(tmp_path)) as hold:
        assert time.monotonic() - begun >= lease.EXPIRY_SECONDS
        hold.check()


def test_a_holder_that_was_paused_longer_than_its_lease_publishes_nothing_more(output: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with holder(output, log) as process:
        time.sleep(0.3)
        process.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        while True:
            try:
                with held(output) as hold:
                    published = log.read_text().count("published")
                    process.send_signal(signal.SIGCONT)
                    _, errors = process.communicate(timeout=20)
                    hold.check()
                break
            except InputError:
                assert time.monotonic() - begun < 20
                time.sleep(0.1)
        assert time.monotonic() - begun >= lease.EXPIRY_SECONDS
    assert process.returncode == 1
    assert "InputError" in errors and "is no longer this process's" in errors
    assert f"process {os.getpid()} " in errors and "was paused" in errors
    # One that had been checked before the pause is allowed.
    assert published >= 1 and log.read_text().count("published") <= published + 1
    assert not storage.exists(storage.join(output, LEASE_NAME))


def test_a_lease_that_was_removed_or_replaced_is_lost_and_not_written_again(output: str) -> None:
    with held(output) as hold:
        storage.remove(storage.join(output, LEASE_NAME))
        time.sleep(0.5)
        with pytest.raises(InputError, match="its lease was removed"):
            hold.check()
        assert not storage.exists(storage.join(output, LEASE_NAME))
        place(output, ELSEWHERE)
        time.sleep(0.5)
        with pytest.raises(InputError, match="ada@far, process 12"):
            hold.check()
    assert placed(output) == json.loads(ELSEWHERE.model_dump_json())


def test_a_file_is_no_output_directory(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(InputError, match="out is a file"), held(str(tmp_path / "out")):
        raise AssertionError("no directory")
