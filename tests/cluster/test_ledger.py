"""The manifest and the journal of a farm: killed at any moment, no published record is lost."""

from __future__ import annotations

import hashlib
import json
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster import journal, manifest, storage
from gebm.cluster.errors import InputError
from gebm.cluster.ledger import Ledger
from gebm.cluster.manifest import WorkItem, load_manifest

SETTINGS = {"kind": "test", "count": 3}
ITEMS = [WorkItem(f"item-{n:02d}", n, {}) for n in range(30)]


class Killed(BaseException):
    """What a process is that was killed: it does nothing more."""


@contextmanager
def killed_at(step: int, seed: int) -> Iterator[list[int]]:
    """Storage under which the process is killed at its `step`-th change: before, in the middle of, or after it."""
    chance, count = random.Random(f"{seed} {step}"), [0]
    write, remove = storage.write_bytes_atomic, storage.remove

    def due() -> str:
        if count[0] > step:
            raise Killed  # a dead process changes nothing, whatever `finally` would do
        count[0] += 1
        return chance.choice(("before", "within", "after")) if count[0] == step + 1 else "never"

    def write_or_die(url: str, data: bytes) -> None:
        moment = due()
        if moment == "within":  # as write_bytes_atomic leaves it
            path = Path(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.0a.part").write_bytes(data[: len(data) // 2])
        if moment in ("never", "after"):
            write(url, data)
        if moment != "never":
            raise Killed

    def remove_or_die(url: str) -> None:
        moment = due()
        if moment == "within" and Path(url).is_dir():  # in any order
            for name in storage.list_names(url):
                if chance.random() < 0.5:
                    remove(storage.join(url, name))
        if moment in ("never", "after"):
            remove(url)
        if moment != "never":
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "write_bytes_atomic", write_or_die)
        patch.setattr(storage, "remove", remove_or_die)
        yield count


def go_on(output: Path, published: dict[str, Any], version: int) -> None:
    """Do what is left, one publication for each item or two; `published` gets what was published."""
    ledger = Ledger(str(output), SETTINGS, ITEMS)
    assert {name: ledger.records[name] for name in published} == published
    left = [item for item in ITEMS if item.id not in ledger.records]
    for number, item in enumerate(left):
        ledger.add(item.id, {"value": item.seed, "version": version})
        if number % 3:
            ledger.publish()
            published.update(ledger.records)
    ledger.publish()
    published.update(ledger.records)
    ledger.close()


@pytest.mark.parametrize("seed", range(2))
def test_a_run_killed_at_any_change_of_its_storage_goes_on_with_all_it_published(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run is killed at one more change than the last, and each goes on where the one before was killed."""
    monkeypatch.setattr(journal, "FANOUT", 3)
    monkeypatch.setattr("os.fsync", lambda file: None)  # a process is killed here, no machine
    kills = 0
    for first in range(0, 60, 3):
        output, published = tmp_path / str(first), {}
        for version in range(12):
            try:
                with killed_at(first if version == 0 else (first + 7 * version) % 13, seed):
                    go_on(output, published, version)
            except Killed:
                kills += 1
                seen = load_manifest(str(output))
                assert seen is not None or not published
                assert seen is None or published.items() <= seen.items.items()
        go_on(output, published, 99)
        found = json.loads((output / "manifest.json").read_text())
        assert found["complete"] and list(found["items"]) == [item.id for item in ITEMS]
        assert found["items"] == published and not (output / "journal").exists()
    assert kills > 40


def test_a_publication_is_one_small_file_and_their_number_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.fsync", lambda file: None)
    items = [WorkItem(f"item-{n:04d}", n, {}) for n in range(300)]
    ledger = Ledger(str(tmp_path), SETTINGS, items)
    written: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        write = storage.write_bytes_atomic
        patch.setattr(storage, "write_bytes_atomic", lambda url, data: (written.append(len(data)), write(url, data)))
        for item in items:
            ledger.add(item.id, {"value": "x" * 100})
            ledger.publish()
    whole = sum(len(json.dumps({item.id: {"value": "x" * 100}})) for item in items)
    # The first publication is the manifest; 299 are one of 256, two of 16 and eleven of their own.
    assert len(list((tmp_path / "journal").iterdir())) == 1 + 2 + 11
    assert sum(written) < 5 * whole, "each record is written O(log n) times"
    assert load_manifest(str(tmp_path)).items == ledger.records
    ledger.close()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]
    assert (tmp_path / "manifest.json").read_text().count("\n") < 300 + 20
    monkeypatch.setattr(storage, "list_names", lambda url: pytest.fail("complete: why look at a journal?"))
    assert load_manifest(str(tmp_path)).complete


def files(output: Path, items: list[WorkItem], attempt: str = "try0000000000") -> dict[str, Any]:
    output.mkdir(exist_ok=True)
    records = {}
    for item in items:
        name, data = f"{item.id}-{attempt}.bin", random.Random(item.seed).randbytes(200)
        (output / name).write_bytes(data)
        records[item.id] = {"name": name, "count": 2, "bytes": 200, "sha256": hashlib.sha256(data).hexdigest()}
    return records


def test_what_was_made_again_counts_though_the_run_was_cut_short(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), SETTINGS, ITEMS)
    for name, record in files(tmp_path, ITEMS).items():
        ledger.add(name, record)
    ledger.publish()
    ledger.close()
    for damaged in ("item-03", "item-04"):
        (tmp_path / ledger.records[damaged]["name"]).write_bytes(b"x" * 200)
    again = Ledger(str(tmp_path), SETTINGS, ITEMS)
    assert len(again.records) == 28
    new = files(tmp_path, ITEMS[3:5], "try1111111111")
    again.add("item-03", new["item-03"])
    again.publish()
    seen = load_manifest(str(tmp_path))
    assert seen is not None and not seen.complete and seen.items["item-03"] == new["item-03"]
    again.add("item-04", new["item-04"])
    again.publish()  # the second publication stands in the journal
    del again
    last = Ledger(str(tmp_path), SETTINGS, ITEMS)
    assert {name: last.records[name] for name in new} == new and len(last.records) == 30
    last.close()
    last.remove_strays()
    names = {path.name for path in tmp_path.iterdir()}
    assert "item-03-try0000000000.bin" not in names and "journal" not in names and len(names) == 31


def test_a_damaged_file_of_the_journal_costs_its_own_records_and_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = Ledger(str(tmp_path), SETTINGS, ITEMS)
    for item in ITEMS[:4]:
        ledger.add(item.id, {"value": item.seed})
        ledger.publish()
    victim = sorted((tmp_path / "journal").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:20])
    (tmp_path / "journal" / ".00000009-0-00000000.json.0a.part").write_text("{")
    (tmp_path / "journal" / "notes.txt").write_text("mine")
    assert list(Ledger(str(tmp_path), SETTINGS, ITEMS).records) == ["item-00", "item-01", "item-03"]
    assert victim.name in caplog.text


def test_the_journal_of_a_run_that_was_removed_says_nothing(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), SETTINGS, ITEMS)
    for item in ITEMS[:4]:
        ledger.add(item.id, {"value": "old"})
        ledger.publish()
    (tmp_path / "manifest.json").unlink()
    again = Ledger(str(tmp_path), SETTINGS, ITEMS)
    assert again.records == {}
    again.add("item-00", {"value": "new"})
    with killed_at(1, 0), pytest.raises(Killed):  # after the manifest is written, with the old journal there
        again.publish()
    assert len(list((tmp_path / "journal").iterdir())) > 0
    assert load_manifest(str(tmp_path)).items == {"item-00": {"value": "new"}}


def test_a_reader_of_a_run_that_is_on_sees_its_journal_also_while_it_is_put_together(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), SETTINGS, ITEMS)
    ledger.add("item-00", {"value": 0})
    ledger.publish()
    read, done = storage.read_bytes, []

    def read_late(url: str) -> bytes:
        if "journal" in url and not done:
            done.append(url)
            for item in ITEMS[2:25]:  # more than FANOUT: the file that was listed goes
                ledger.add(item.id, {"value": item.seed})
                ledger.publish()
        return read(url)

    ledger.add("item-01", {"value": 1})
    ledger.publish()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "read_bytes", read_late)
        seen = load_manifest(str(tmp_path))
    assert done and seen is not None and seen.items == ledger.records and len(seen.items) == 25


def test_nothing_is_written_before_there_is_something_to_name(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path / "out"), SETTINGS, ITEMS)
    ledger.publish()
    ledger.close()
    assert not (tmp_path / "out").exists()


def test_the_files_of_a_run_are_checked_many_at_a_time_and_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(str(tmp_path), SETTINGS, ITEMS)
    for name, record in files(tmp_path, ITEMS).items():
        ledger.add(name, record)
    ledger.publish()
    at_once, most, lock = 0, 0, threading.Lock()
    digest = storage.sha256

    def slow(url: str) -> str:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return digest(url)

    monkeypatch.setattr(storage, "sha256", slow)
    told: list[int] = []
    Ledger(str(tmp_path), SETTINGS, ITEMS, lambda found: told.append(len(found)))
    assert most > manifest.THREADS // 2 and told == list(range(1, 31))

    def interrupt(found: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Ledger(str(tmp_path), SETTINGS, ITEMS, interrupt)


def test_a_record_that_is_no_json_is_refused(tmp_path: Path) -> None:
    ledger = Ledger(str(tmp_path), SETTINGS, ITEMS)
    ledger.add("item-00", {"value": float("nan")})
    with pytest.raises(ValueError):
        ledger.publish()
    with pytest.raises(InputError, match="belongs to another run"):
        other = Ledger(str(tmp_path), SETTINGS, ITEMS)
        other.add("item-00", {})
        other.publish()
        Ledger(str(tmp_path), {**SETTINGS, "count": 4}, ITEMS)
