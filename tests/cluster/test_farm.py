"""The farm: every item exactly once, whatever dies, stops or is damaged on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import ray

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, FarmSummary, WorkItem, run_farm
from gebm.cluster.manifest import load_manifest
from tests.cluster.farm_work import SETTINGS, contents, done_items, file_maker, undisturbed, work_items

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def test_records_come_in_item_order_and_the_manifest_names_them(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    items = work_items(output)
    told: list[FarmProgress] = []
    started: list[dict[str, Any]] = []
    summaries: list[FarmSummary] = []
    records = run_farm(
        items,
        file_maker(log),
        str(output),
        settings=SETTINGS,
        actors=2,
        progress=told.append,
        on_actor_start=started.append,
        summary=summaries.append,
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
    # An actor that is slow to start may do so after the last progress.
    assert pids and pids <= {info["pid"] for info in started} and len(started) <= 2
    assert os.getpid() not in pids
    assert told[0].seconds_left is None and told[0].waiting == 6 and told[0].running == 0
    assert all(each.done + each.waiting + each.running == 6 for each in told)
    assert told[-1].seconds_left == 0.0 and (told[-1].failed, told[-1].retried, told[-1].reissued) == (0, 0, 0)
    (summary,) = summaries
    assert summary.done == 6 and summary.deaths == 0 and {a["pid"] for a in summary.actors.values()} >= pids
    assert sum(a["items"] for a in summary.actors.values()) == 6
    assert sum(a["units"] for a in summary.actors.values()) == 60
    for actor in summary.actors.values():
        assert 0.05 * actor["items"] <= actor["busy_seconds"] <= actor["lived_seconds"] <= summary.seconds
        assert {"host", "pid", "node_id"} < set(actor)


def test_a_record_is_told_when_it_comes_and_what_is_kept_of_it_is_returned(tmp_path: Path, log: Path) -> None:
    told: dict[str, dict[str, Any]] = {}

    def keep(item: WorkItem, record: dict[str, Any]) -> dict[str, Any]:
        told[item.id] = record
        return {"count": record["count"]}

    items = work_items(tmp_path)
    found = run_farm(items, file_maker(log), None, settings={}, actors=2, keep=keep)
    assert list(found) == [item.id for item in items]
    assert all(record == {"count": 10} for record in found.values())
    assert all(told[item.id]["bytes"] == 1000 for item in items)
    with pytest.raises(ValueError, match="without an output"):
        run_farm(items, file_maker(log), str(tmp_path / "out"), settings={}, actors=2, keep=keep)


def test_an_actor_that_has_come_up_is_not_passed_over_for_one_that_is_quick(tmp_path: Path, log: Path) -> None:
    """A driver so slow that both have answered: the second one's turn comes before the first has done all."""
    pids: set[int] = set()

    def look(progress: FarmProgress) -> None:
        pids.update(progress.actor_pids)
        if len(pids) == 1:
            time.sleep(5)  # by then the other one has come up too

    output = tmp_path / "out"
    summaries: list[FarmSummary] = []
    run_farm(
        work_items(output),
        file_maker(log, 0),
        str(output),
        settings=SETTINGS,
        actors=2,
        progress=look,
        summary=summaries.append,
    )
    assert len(pids) == 2 and min(actor["items"] for actor in summaries[0].actors.values()) >= 1


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


DRIVER = """
import sys
from pathlib import Path
from gebm.cluster.connect import connection
from gebm.cluster.farm import run_farm
from tests.cluster.farm_work import SETTINGS, file_maker, work_items
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
