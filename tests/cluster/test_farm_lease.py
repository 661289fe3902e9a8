"""Two commands on one output: one works, the other is told who does; a run that lost its output publishes no more."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gebm.cluster import lease
from gebm.cluster.actors import Record
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress, run_farm
from gebm.cluster.manifest import load_manifest
from tests.cluster.farm_work import SETTINGS, done_items, file_maker, work_items

pytestmark = pytest.mark.usefixtures("ray_cluster")

OTHER = """
import sys, time
from gebm.cluster.lease import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "log"
    folder.mkdir()
    return folder


def test_a_second_command_is_refused_and_told_who_works_there_and_follows_a_dead_one_at_once(
    tmp_path: Path, log: Path
) -> None:
    output = tmp_path / "out"

    def run() -> None:
        run_farm(work_items(output, 2), file_maker(log), str(output), settings=SETTINGS, actors=1)

    other = subprocess.Popen([sys.executable, "-c", OTHER, str(output)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"{output} is in use: .*process {other.pid} "):
            run()
        assert not done_items(log)
    finally:
        other.kill()
        other.wait()
    begun = time.monotonic()
    run()
    assert time.monotonic() - begun < lease.EXPIRY_SECONDS / 2
    assert len(done_items(log)) == 2 and not (output / lease.LEASE_NAME).exists()


def test_what_is_written_last_is_written_while_the_output_is_still_ones_own(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    told: list[list[str]] = []

    def finish(records: dict[str, Record]) -> None:
        assert (output / lease.LEASE_NAME).exists()
        told.append(list(records))

    run_farm(work_items(output, 2), file_maker(log), str(output), settings=SETTINGS, actors=1, finish=finish)
    assert told == [["item-0", "item-1"]] and not (output / lease.LEASE_NAME).exists()


def test_a_run_whose_lease_is_anothers_by_now_publishes_nothing_more(tmp_path: Path, log: Path) -> None:
    output = tmp_path / "out"
    published: list[int] = []

    def steal(progress: FarmProgress) -> None:
        manifest = load_manifest(str(output))
        if manifest is not None and not published:
            published.append(len(manifest.items))
            mine = json.loads((output / lease.LEASE_NAME).read_text())
            (output / lease.LEASE_NAME).write_text(json.dumps({**mine, "token": "another"}))

    with pytest.raises(InputError, match="no longer this process's"):
        run_farm(work_items(output, 12), file_maker(log, 0.4), str(output), settings=SETTINGS, actors=1, progress=steal)
    manifest = load_manifest(str(output))
    assert manifest is not None and published == [len(manifest.items)] and published[0] < 12
    assert json.loads((output / lease.LEASE_NAME).read_text())["token"] == "another"
