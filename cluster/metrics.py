"""A farm in numbers for who watches a cluster: Ray metrics, at the Prometheus endpoint of the driver's node.

Ray serves them at `http://<node>:<MetricsExportPort>/metrics` (`ray.nodes()`) where it is installed as `ray[default]`,
as it is in Ray's own images; elsewhere they are counted and nobody sees them. All have the tag `stage`:

    gebm_farm_units_total         samples, images or rows that this run has made
    gebm_farm_items_total         work items that it has done
    gebm_farm_failures_total      tries that came to nothing: the item failed, or its actor died
    gebm_farm_rate                units a second, of the run so far
    gebm_farm_actors              actors that live
    gebm_farm_items_left          items that are not done yet
    gebm_farm_item_seconds        how long an item took, a histogram
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray.util.metrics import Counter, Gauge, Histogram

if TYPE_CHECKING:
    from gebm.cluster.farm import FarmProgress

SECONDS = [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000]
"""Bounds of the histogram's buckets."""


class FarmMetrics:
    """The metrics of one run of a farm; Ray must be connected."""

    def __init__(self, stage: str):
        def made(kind: Any, name: str, words: str, *more: Any) -> Any:
            return kind(f"gebm_farm_{name}", words, *more, tag_keys=("stage",)).set_default_tags({"stage": stage})

        self._units = made(Counter, "units", "Samples, images or rows made")
        self._items = made(Counter, "items", "Work items done")
        self._failures = made(Counter, "failures", "Tries that came to nothing")
        self._rate = made(Gauge, "rate", "Units a second")
        self._actors = made(Gauge, "actors", "Living actors")
        self._left = made(Gauge, "items_left", "Work items that are not done")
        self._seconds = made(Histogram, "item_seconds", "Seconds of a work item", SECONDS)
        self._counted = {self._units: 0, self._items: 0, self._failures: 0}
        self._begun = False

    def item(self, record: dict[str, Any]) -> None:
        """Take note of an item that was done. Its record may say how many `seconds` it took."""
        if "seconds" in record:
            self._seconds.observe(record["seconds"])

    def tell(self, progress: FarmProgress) -> None:
        """Take note of where the farm stands. What stood at the first call was done by earlier runs."""
        failures = progress.retried + progress.failed
        now = {self._units: progress.units_done, self._items: progress.done, self._failures: failures}
        if not self._begun:
            self._begun, self._counted = True, now
        for counter, number in now.items():
            if number > self._counted[counter]:
                counter.inc(number - self._counted[counter])
        self._counted = now
        self._rate.set(progress.rate)
        self._actors.set(len(progress.actor_pids))
        self._left.set(progress.total - progress.done)
