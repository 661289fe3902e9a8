"""The pipeline benchmark adds up, and its peer really works without Ray."""

from __future__ import annotations

from gebm.cluster.manifest import WorkItem, load_manifest
from gebm.trainer.model import load_model
from tests.benchmarks.pipeline import farm_alone, one_process, records
from tests.trainer.tiny_runs import tiny_job, write_points


def test_the_total_counts_starting_ray_for_ours_and_not_for_the_peer():
    ours = [{"ray": 4.0, "train": seconds} for seconds in (9.0, 10.0, 50.0)]
    lines = {line.case: line for line in records(ours, [{"ray": 0.5, "train": 6.0}] * 3)}
    assert list(lines) == ["ray", "train", "total"]
    assert (lines["ray"].peer, lines["train"].ours_seconds, lines["train"].ratio) == (None, 10.0, 0.6)
    assert (lines["total"].ours_seconds, lines["total"].peer_seconds) == (14.0, 6.0)


def test_the_peer_replaces_the_farm_where_it_is_called(tmp_path):
    from gebm.evaluation import features
    from gebm.launch import tune
    from gebm.sampler import work

    with one_process():
        assert work.run_farm is features.run_farm is tune.run_farm is farm_alone
        items = [WorkItem(name, 0, {}) for name in "ab"]
        found = work.run_farm(
            items, lambda: lambda item, attempt: {"id": item.id}, str(tmp_path), settings={}, actors=9
        )
    assert found == {"a": {"id": "a"}, "b": {"id": "b"}}
    assert load_manifest(str(tmp_path)).complete
    assert work.run_farm is not farm_alone


def test_the_peer_trains_the_same_job_where_the_driver_is_called(tmp_path):
    from gebm.launch import stages

    job = tiny_job(tmp_path / "run", write_points(tmp_path / "data"))
    with one_process():
        stages.train(
            run=job.run, data=job.data, validation=None, model=job.model, settings=job.settings, seed=0, workers=2
        )
    assert load_model(job.run).image_shape == (2,)
