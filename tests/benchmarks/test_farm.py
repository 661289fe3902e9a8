"""The farm's benchmark compares like with like, and adds up."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gebm.cluster.randomness import derive_seed
from gebm.sampler.work import make_shard_worker, shard_items
from tests.benchmarks.farm import QUICK, Course, check_bytes, job_of, records
from tests.benchmarks.farm_peers import ShardMade, load, make_shard, window


def test_a_peer_makes_the_shard_of_the_farm_and_times_its_chains(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    job = job_of(QUICK, 2, str(tmp_path))
    made = make_shard(load(job), job, 1, str(tmp_path / "peer"))
    work = make_shard_worker(
        job.model_url, str(tmp_path / "farm"), job.settings, derive_seed(job.seed, "sample", "pilot"), "cpu"
    )()
    record = work(shard_items(job.settings, job.count, job.seed)[1], "here")
    torch.set_num_threads(threads)
    assert made.sha256 == record["sha256"]
    assert 0 < made.chain <= made.ended - made.begun


def test_a_side_that_writes_other_shards_is_found_out() -> None:
    check_bytes({"farm": ["a", "b"], "pool": ["a", "b"]})
    with pytest.raises(AssertionError, match="pool wrote other shards"):
        check_bytes({"farm": ["a", "b"], "pool": ["a", "c"]})


def test_ours_is_beside_each_peer_with_and_without_the_start_of_workers(tmp_path: Path) -> None:
    courses = {
        "farm": [Course(wall, 10.0, 19.0) for wall in (14.0, 12.0, 13.0)],
        "pool": [Course(26.0, 5.0, 9.0)],
        "Ray Data": [Course(6.5, 20.0, 9.0)],
    }
    lines = records(courses, job_of(QUICK, 2, str(tmp_path)))
    assert [(line.peer, line.ratio) for line in lines] == [
        ("pool", 0.5), ("Ray Data", 2.0), ("pool", 2.0), ("Ray Data", 0.5)
    ]  # fmt: skip
    assert lines[0].machine["actors"] == 2


def test_the_time_of_a_side_begins_with_its_first_shard_and_ends_with_its_last() -> None:
    assert window([ShardMade(5.0, 9.0, 1.0, ""), ShardMade(3.0, 4.0, 1.0, "")]) == 6.0
