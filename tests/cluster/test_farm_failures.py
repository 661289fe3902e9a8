"""The farm when work fails: what is tried again, what is given up, and what each says."""

import os
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster.errors import FarmError, InputError
from gebm.cluster.farm import FarmProgress, FarmSummary, WorkItem, run_farm
from gebm.cluster.manifest import load_manifest
from gebm.cluster.scheduler import Policy
from tests.cluster.farm_work import SETTINGS, done_items, no_worker, work_items

pytestmark = pytest.mark.usefixtures("ray_cluster")


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
    # Once more where it was first tried by an actor that had done nothing yet.
    assert done_items(tries).count("item-1") in (3, 4) and len(set(done_items(tries))) == 4
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


def test_an_actor_that_hangs_is_overtaken_ended_and_leaves_nothing_behind(tmp_path: Path) -> None:
    hung = tmp_path / "hung"

    def make() -> Any:
        import hashlib
        import os
        import time
        from pathlib import Path

        def work(item: Any, attempt: str) -> dict[str, Any]:
            folder, data = Path(item.description["output"]), item.id.encode() * 9
            folder.mkdir(exist_ok=True)
            name = f"{item.id}-{attempt}.bin"
            if item.id == "item-0" and not hung.exists():
                hung.write_text(str(os.getpid()))
                (folder / f".{name}.0a.part").write_bytes(data[:5])
                time.sleep(600)
            time.sleep(0.1)
            (folder / name).write_bytes(data)
            return {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}

        return work

    output, summaries, told = tmp_path / "out", list[FarmSummary](), list[FarmProgress]()
    records = run_farm(
        work_items(output, 4),
        make,
        str(output),
        settings=SETTINGS,
        actors=2,
        progress=told.append,
        summary=summaries.append,
        policy=Policy(straggler_least=1.0),
    )
    assert summaries[0].reissued == told[-1].reissued == 1 and summaries[0].done == 4
    assert sorted(path.name for path in output.iterdir()) == sorted(
        ["manifest.json", *(record["name"] for record in records.values())]
    )
    pid = int(hung.read_text())
    (lost,) = (each for each in summaries[0].actors.values() if each["pid"] == pid)
    assert sum(each["items"] for each in summaries[0].actors.values()) == 4
    assert lost["busy_seconds"] < 1.0  # what came to nothing is not counted


def test_an_item_that_kills_its_actors_is_given_up_and_named() -> None:
    def make() -> Any:
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
