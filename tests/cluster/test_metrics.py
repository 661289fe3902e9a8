"""A farm counts what it does, and whoever asks a node's Prometheus endpoint is told."""

from __future__ import annotations

import importlib.util
import time
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import ray

from gebm.cluster import metrics
from gebm.cluster.farm import FarmProgress, run_farm
from gebm.cluster.metrics import FarmMetrics
from tests.cluster.farm_work import SETTINGS, work_items

PATIENCE = 40.0  # a worker reports every few seconds, and the endpoint passes on what it has


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[str, float]]]:
    """What was done to each metric, in place of Ray's."""
    calls: dict[str, list[tuple[str, float]]] = defaultdict(list)

    class Metric:
        def __init__(self, name: str, words: str, *_: Any, tag_keys: tuple[str, ...]):
            assert words and tag_keys == ("stage",)
            self.name = name

        def set_default_tags(self, tags: dict[str, str]) -> Metric:
            assert tags == {"stage": "sample"}
            return self

        def __getattr__(self, what: str) -> Any:
            return lambda value: calls[self.name].append((what, value))

    for kind in ("Counter", "Gauge", "Histogram"):
        monkeypatch.setattr(metrics, kind, Metric)
    return calls


def test_what_earlier_runs_did_is_not_counted_again(counted: dict[str, list[tuple[str, float]]]) -> None:
    of_run = FarmMetrics("sample")
    for progress in (
        FarmProgress(2, 9, 20, 0.0, 0.0, [], retried=0),
        FarmProgress(2, 9, 20, 1.0, 0.0, [5, 6]),
        FarmProgress(5, 9, 50, 2.0, 15.0, [5, 6], retried=1),
        FarmProgress(9, 9, 90, 4.0, 17.5, [5], retried=2, failed=1),
    ):
        of_run.tell(progress)
    of_run.item({"seconds": 2.5})
    of_run.item({"rows": 3})
    assert counted["gebm_farm_units"] == [("inc", 30), ("inc", 40)]
    assert counted["gebm_farm_items"] == [("inc", 3), ("inc", 4)]
    assert counted["gebm_farm_failures"] == [("inc", 1), ("inc", 2)]
    assert counted["gebm_farm_rate"][-1] == ("set", 17.5)
    assert counted["gebm_farm_actors"] == [("set", 0), ("set", 2), ("set", 2), ("set", 1)]
    assert counted["gebm_farm_items_left"][-2:] == [("set", 4), ("set", 0)]
    assert counted["gebm_farm_item_seconds"] == [("observe", 2.5)]


def endpoint() -> str:
    """The node's metrics, as Prometheus reads them."""
    node = ray.nodes()[0]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text: str = answer.read().decode()
    return text


def values(text: str, stage: str) -> dict[str, float]:
    """Name to value, of the lines of a stage."""
    lines = [line for line in text.splitlines() if f'stage="{stage}"' in line]
    return {line.partition("{")[0]: float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.skipif(
    importlib.util.find_spec("prometheus_client") is None, reason="only ray[default] has an endpoint: gebm[metrics]"
)
def test_the_nodes_endpoint_tells_of_a_farm(ray_cluster: None, tmp_path: Path) -> None:
    stage, begun = f"test {tmp_path.name}", time.monotonic()

    def make() -> Any:
        return lambda item, attempt: {"count": 10, "seconds": 2.0}

    run_farm(work_items(tmp_path, 6), make, None, settings=SETTINGS, actors=1, stage=stage)
    found: dict[str, float] = {}
    while found.get("ray_gebm_farm_items_total") != 6 and time.monotonic() - begun < PATIENCE:
        time.sleep(0.5)
        found = values(endpoint(), stage)
    assert found["ray_gebm_farm_items_total"] == 6 and found["ray_gebm_farm_units_total"] == 60
    assert found["ray_gebm_farm_item_seconds_count"] == 6 and found["ray_gebm_farm_item_seconds_sum"] == 12
    assert found["ray_gebm_farm_items_left"] == 0 and found["ray_gebm_farm_rate"] > 0
