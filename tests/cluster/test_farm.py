"""The farm: every item exactly once, whatever dies, stops or is damaged on the way."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.farm import FarmProgress, WorkItem, run_farm
from gebm.cluster.manifest import load_manifest

pytestmark = pytest.mark.usefixtures("ray_cluster")

SETTINGS = {"sampler": {"name": "ula", "steps": 3}, "count": 60}


def work_items(output: Path | str, count: int = 6, **description: Any) -> list[WorkItem]:
    return [WorkItem(f"item-{n}", 100 + n, {"output": str(output), **description}) for n in range(count)]


def file_maker(log: Path, seconds: float = 0.05) -> Callable[[], Any]:
    """Return a `make_worker` whose worker first leaves half a file, and logs what it did at `log`."""

    def make() -> Any:
        import hashlib
        import os
        import random
        import time
        from pathlib import Path

        from gebm.cluster import storage

        def work(item: Any, attempt: str) -> dict[str, Any]:
            data = random.Random(item.seed).randbytes(1000)
            folder = Path(item.description["output"])
            folder.mkdir(parents=True, exist_ok=True)
            half = folder / f"{item.id}-{attempt}.half"
            half.write_bytes(data[:500])
            (log / f"{item.id}.{os.getpid()}.{attempt}").touch()
            time.sleep(seconds)
            name = f"{item.id}-{attempt}.bin"
            storage.write_bytes_atomic(str(folder / name), data)
            half.unlink()
            digest = hashlib.sha256(data).hexdigest()
            return {"name": name, "count": 10, "bytes": len(data), "sha256": digest}

        return work

    return make


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def no_worker() -> Any:
    raise AssertionError("no actor may start")


def done_items(log: Path) -> list[str]:
    return sorted(path.name.split(".")[0] for path in log.iterdir())


def contents(output: Path) -> dict[str, str]:
    """Return {name without its attempt: digest} of all that stands in an output directory."""
    return {
        re.sub(r"try[0-9a-f]{10}", "try", path.name): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in output.iterdir()
        if path.name != "manifest.json"
    }


def undisturbed(folder: Path) -> dict[str, str]:
    """Return the contents that one actor makes in peace."""
    (folder / "peace-log").mkdir()
    output = folder / "peace"
    maker = file_maker(folder / "peace-log", 0)
    run_farm(work_items(output), maker, str(output), settings=SETTINGS, actors=1)
    return contents(output)


def test_records_come_in_item_order_and_the_manifest_names_them(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    items = work_items(output)
    told: list[FarmProgress] = []
    started: list[dict[str, Any]] = []
    records = run_farm(
        items,
        file_maker(log),
        str(output),
        settings=SETTINGS,
        actors=2,
        progress=told.append,
        on_actor_start=started.append,
    )
    assert list(records) == [item.id for item in items] and done_items(log) == list(records)
    manifest = load_manifest(str(output))
    assert manifest is not None and manifest.complete and manifest.items == records
    assert list(manifest.items) == list(records) and manifest.settings == SETTINGS
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["manifest.json", *(record["name"] for record in records.values())]
    )
    assert told[0].done == 0 and told[-1].done == told[-1].total == 6 and told[-1].units_done == 60
    assert told[-1].rate > 0
    pids = {pid for state in told for pid in state.actor_pids}
    assert pids == {info["pid"] for info in started} and 1 <= len(pids) <= 2
    assert os.getpid() not in pids


def test_killing_an_actor_in_the_middle_changes_nothing(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    killed: list[int] = []

    def kill_one(state: FarmProgress) -> None:
        halves = sorted(output.glob("*.half")) if output.exists() else []
        if state.done >= 1 and halves and not killed:
            item, attempt = halves[0].stem.rsplit("-", 1)
            (entry,) = log.glob(f"{item}.*.{attempt}")
            killed.append(int(entry.name.split(".")[1]))
            assert killed[0] in state.actor_pids
            os.kill(killed[0], signal.SIGKILL)

    started: list[dict[str, Any]] = []
    records = run_farm(
        work_items(output),
        file_maker(log, 0.4),
        str(output),
        settings=SETTINGS,
        actors=2,
        progress=kill_one,
        on_actor_start=started.append,
    )
    assert len(killed) == 1 and not Path(f"/proc/{killed[0]}").exists()
    assert len(done_items(log)) == 7 and set(done_items(log)) == set(records)
    assert len(started) == 3
    assert contents(output) == undisturbed(tmp_path)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"

    def interrupt(state: FarmProgress) -> None:
        if state.done >= 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_farm(
            work_items(output),
            file_maker(log, 0.2),
            str(output),
            settings=SETTINGS,
            actors=2,
            progress=interrupt,
        )
    manifest = load_manifest(str(output))
    assert manifest is not None and not manifest.complete and 3 <= len(manifest.items) < 6
    before = dict(manifest.items)
    for path in log.iterdir():
        path.unlink()
    records = run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=2)
    assert {name: records[name] for name in before} == before
    assert set(done_items(log)) == set(records) - set(before)
    assert contents(output) == undisturbed(tmp_path)


def test_a_finished_run_is_recognised_and_starts_no_actor(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    first = run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=2)
    started: list[dict[str, Any]] = []
    again = run_farm(
        work_items(output),
        file_maker(log),
        str(output),
        settings=SETTINGS,
        actors=2,
        on_actor_start=started.append,
    )
    assert again == first and not started and len(done_items(log)) == 6


@pytest.mark.parametrize("damage", ["flipped bit", "cut short", "gone"])
def test_a_damaged_file_is_made_again(tmp_path: Path, log: Path, damage: str) -> None:
    output = tmp_path / "out"
    first = run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=2)
    victim = output / first["item-2"]["name"]
    data = bytearray(victim.read_bytes())
    if damage == "flipped bit":
        data[300] ^= 1
        victim.write_bytes(data)
    elif damage == "cut short":
        victim.write_bytes(data[:-1])
    else:
        victim.unlink()
    again = run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=2)
    assert done_items(log).count("item-2") == 2 and len(done_items(log)) == 7
    assert again["item-2"]["sha256"] == first["item-2"]["sha256"]
    assert again["item-2"]["name"] != first["item-2"]["name"] and not victim.exists()
    assert contents(output) == undisturbed(tmp_path)


def test_another_runs_output_is_refused_and_left_alone(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=2)
    before = {path.name: path.read_bytes() for path in output.iterdir()}
    other = {**SETTINGS, "sampler": {"name": "ula", "steps": 4}}
    for settings, items, difference in (
        (other, work_items(output), r"sampler\.steps is 3 there and 4 here"),
        (SETTINGS, work_items(output, 7), "its work items are others"),
    ):
        with pytest.raises(InputError, match=f"out belongs to another run.*{difference}"):
            run_farm(items, file_maker(log), str(output), settings=settings, actors=2)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == before


def test_a_manifest_that_is_none_is_refused(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "manifest.json").write_text('{"written": "by something else"}')
    with pytest.raises(InputError, match=r"out/manifest\.json is not a manifest"):
        run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=1)


def test_files_of_others_in_the_output_are_left_alone(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "notes.txt").write_text("mine")
    (output / ".item-0-try0123456789.bin.0a.part").write_text("debris")
    (output / "item-0-try0123456789.bin").write_text("debris")
    run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=1)
    names = {path.name for path in output.iterdir()}
    assert "notes.txt" in names and not any("0123456789" in name for name in names)


def test_an_item_that_fails_is_named_after_its_tries_and_the_rest_is_done(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    tries.mkdir()

    def make() -> Any:
        def work(item: Any, attempt: str) -> dict[str, Any]:
            (tries / f"{item.id}.{attempt}").touch()
            if item.id == "item-1":
                raise ValueError("energy is nan")
            return {"value": item.seed}

        return work

    output = tmp_path / "out"
    with pytest.raises(FarmError, match=r"1 of 4 work items failed.*item-1 \(ValueError: energy is nan\)"):
        run_farm(work_items(output, 4), make, str(output), settings=SETTINGS, actors=2, tries=3)
    assert done_items(tries).count("item-1") == 3 and len(done_items(tries)) == 6
    manifest = load_manifest(str(output))
    assert manifest is not None and not manifest.complete
    assert list(manifest.items) == ["item-0", "item-2", "item-3"]


def test_an_item_that_fails_once_is_done_again(tmp_path: Path) -> None:
    flag = tmp_path / "failed"

    def make() -> Any:
        def work(item: Any, attempt: str) -> dict[str, Any]:
            if item.id == "item-0" and not flag.exists():
                flag.touch()
                raise OSError("storage is away")
            return {"value": item.seed}

        return work

    records = run_farm(work_items(tmp_path, 3), make, None, settings={}, actors=1)
    assert flag.exists()
    assert records == {"item-0": {"value": 100}, "item-1": {"value": 101}, "item-2": {"value": 102}}


def test_a_record_that_the_manifest_cannot_hold_is_its_items_failure(tmp_path: Path) -> None:
    def make() -> Any:
        return lambda item, attempt: {"energy": float("nan") if item.id == "item-1" else 1.0}

    output = tmp_path / "out"
    with pytest.raises(FarmError, match=r"1 of 3 work items failed.*item-1 \(ValueError: "):
        run_farm(work_items(output, 3), make, str(output), settings={}, actors=1, tries=1)
    manifest = load_manifest(str(output))
    assert manifest is not None and list(manifest.items) == ["item-0", "item-2"]


def test_an_item_that_kills_its_actors_is_given_up_and_named() -> None:
    def make() -> Any:
        import os
        import signal

        def work(item: Any, attempt: str) -> dict[str, Any]:
            if item.id == "item-1":
                os.kill(os.getpid(), signal.SIGKILL)
            return {"value": item.seed}

        return work

    with pytest.raises(FarmError, match=r"1 of 3 work items failed.*item-1"):
        run_farm(work_items("", 3), make, None, settings={}, actors=2)


def test_bad_input_found_by_a_worker_stops_the_farm_at_once(tmp_path: Path) -> None:
    tries = tmp_path / "tries"
    tries.mkdir()

    def make() -> Any:
        from gebm.cluster.errors import InputError

        def work(item: Any, attempt: str) -> dict[str, Any]:
            (tries / f"{item.id}.{attempt}").touch()
            raise InputError("shard s3://b/0.tar is truncated")

        return work

    output = tmp_path / "out"
    with pytest.raises(InputError, match=r"^shard s3://b/0\.tar is truncated$"):
        run_farm(work_items(output, 9), make, str(output), settings={}, actors=1)
    assert len(done_items(tries)) == 1
    assert not output.exists()  # nothing was done: the directory is not this run's


def test_a_worker_that_cannot_start_is_one_clear_error() -> None:
    def bad_input() -> Any:
        from gebm.cluster.errors import InputError

        raise InputError("runs/x/model has no weights.safetensors; train first")

    def broken() -> Any:
        raise RuntimeError("no such device")

    with pytest.raises(InputError, match=r"^runs/x/model has no weights"):
        run_farm(work_items("", 2), bad_input, None, settings={}, actors=1)
    with pytest.raises(FarmError, match="no worker could start: RuntimeError: no such device"):
        run_farm(work_items("", 2), broken, None, settings={}, actors=1, tries=2)


def test_more_than_the_cluster_has_is_an_input_error_and_not_a_hang() -> None:
    with pytest.raises(InputError, match="needs 64 CPUs, the cluster has 2"):
        run_farm(work_items("", 1), no_worker, None, settings={}, actors=1, cpus_per_actor=64)
    with pytest.raises(InputError, match="GPU"):
        run_farm(work_items("", 1), no_worker, None, settings={}, actors=1, gpus_per_actor=512)


def test_no_items_and_doubled_items() -> None:
    assert run_farm([], no_worker, None, settings={}, actors=2) == {}
    with pytest.raises(ValueError, match="ids"):
        run_farm([WorkItem("a", 0, {})] * 2, no_worker, None, settings={}, actors=1)


def test_an_actor_can_set_its_own_number_of_threads() -> None:
    def make() -> Any:
        import torch

        torch.set_num_threads(2)
        return lambda item, attempt: {"threads": torch.get_num_threads()}

    assert run_farm(work_items("", 1), make, None, settings={}, actors=1)["item-0"] == {"threads": 2}


DRIVER = """
import sys
from pathlib import Path
from gebm.cluster.connect import connection
from gebm.cluster.farm import run_farm
from tests.cluster.test_farm import SETTINGS, file_maker, work_items
output, log, address = sys.argv[1:]
with connection(address):
    run_farm(work_items(output), file_maker(Path(log), 1.5), output, settings=SETTINGS, actors=1)
"""


def test_a_killed_driver_leaves_a_run_that_goes_on(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    address = ray.get_runtime_context().gcs_address
    top = Path(__file__).parents[2]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(output), str(log), address],
        cwd=top,
        env={**os.environ, "PYTHONPATH": str(top)},
    )
    manifest = output / "manifest.json"
    deadline = time.monotonic() + 60
    while not manifest.exists() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    left = load_manifest(str(output))
    assert left is not None and not left.complete and 1 <= len(left.items) < 6
    records = run_farm(work_items(output), file_maker(log), str(output), settings=SETTINGS, actors=2)
    assert {name: records[name] for name in left.items} == left.items
    assert contents(output) == undisturbed(tmp_path)
