"""What a sampling run says of its actors adds up to what they did."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmSummary
from gebm.launch.sampling_table import print_summary
from gebm.sampler import SamplerSettings
from gebm.sampler.run_summary import RunSummary, read_summary, run_summary
from gebm.sampler.work import sample
from tests.sampler.small_models import save_small_model


def farm() -> FarmSummary:
    """Two actors, of which one lived twice as long."""
    numbers = {"node_id": "x", "items": 2, "units": 40, "busy_seconds": 9.0}
    actors = {
        "a": {**numbers, "host": "north", "pid": 7, "lived_seconds": 10.0},
        "b": {**numbers, "host": "south", "pid": 7, "lived_seconds": 20.0},
    }
    return FarmSummary(seconds=25.0, done=4, failed=0, retried=1, reissued=0, deaths=1, actors=actors)


def record(host: str, chains: float, taken_over: float = 0.0) -> dict:
    return {"host": host, "pid": 7, "chain_seconds": chains, "seconds_taken_over": taken_over}


def test_chains_are_those_that_the_actor_ran_itself() -> None:
    records = [record("north", 4), record("north", 4), record("south", 5), record("south", 9, taken_over=6)]
    found = run_summary(farm(), [*records, record("of an earlier run", 99)])
    north, south = found.actors
    assert (north.chain_share, south.chain_share) == (0.8, 0.4)
    assert (north.rate, south.rate, found.rate) == (4.0, 2.0, 80 / 25)
    assert found.chain_share == pytest.approx(16 / 30)
    assert (found.samples, found.retried, found.deaths) == (80, 1, 1)


def test_the_table_has_a_line_for_each_actor_and_one_for_all() -> None:
    shown = io.StringIO()
    print_summary(run_summary(farm(), [record("north", 8)]), Console(file=shown, width=120))
    lines = [" ".join(line.split()) for line in shown.getvalue().splitlines()]
    assert lines == [
        "actor shards samples a second in chains busy",
        "north 7 2 40 4.0 80.0% 90.0%",
        "south 7 2 40 2.0 0.0% 45.0%",
        "80 samples in 25.0 s: 3.2 a second, 26.7% of the actors' time in chains, shards tried again: 1, "
        "actors that died: 1",
    ]


def test_a_run_leaves_its_summary_beside_the_shards_and_one_that_does_nothing_leaves_it(
    ray_cluster: None, tmp_path: Path
) -> None:
    settings = SamplerSettings(name="ula", steps=300, chains=10, shard_size=10)
    url, out = save_small_model(str(tmp_path / "model")), str(tmp_path / "out")
    told: list[RunSummary] = []
    request = {"model_url": url, "output": out, "settings": settings, "count": 25, "seed": 0, "summary": told.append}
    sample(**request, actors=1)
    assert told == [read_summary(out)]
    (actor,) = told[0].actors
    assert (actor.shards, actor.samples) == (3, 25)
    assert 0 < actor.chain_seconds < actor.busy_seconds < actor.lived_seconds < told[0].seconds
    sample(**request, actors=1)
    assert told == [read_summary(out)]


def test_a_summary_that_is_none_is_refused(tmp_path: Path) -> None:
    assert read_summary(str(tmp_path)) is None
    (tmp_path / "summary.json").write_text('{"seconds": 3}')
    with pytest.raises(InputError, match=r"summary\.json is not the summary of a sampling run"):
        read_summary(str(tmp_path))
