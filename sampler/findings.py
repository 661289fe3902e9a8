"""What chains find out by themselves, for the manifest and the report."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gebm.sampler.sir import Resampled
from gebm.sampler.tempering import TemperingState, swap_acceptance
from gebm.sampler.warmup import Start

Findings = dict[str, tuple[float, ...]]
"""Numbers by name, the same ones from every batch of a run, so that they can be averaged over batches."""


def findings_of_chains(start: Start, state: Any) -> Findings:
    """Of chains that began at `start` and are at `state`.

    step_size: that warm-up chose, of every rung. scale: the smallest and the largest that it measured.
    swap_acceptance: how likely each pair of neighbouring rungs was exchanged when its turn came.
    """
    found: Findings = {}
    if start.step_size is not None:
        found["step_size"] = tuple(start.step_size.flatten().tolist())
    if start.scale is not None:
        found["scale"] = (float(start.scale.min()), float(start.scale.max()))
    while not isinstance(state, TemperingState) and hasattr(state, "chains"):
        state = state.chains  # inside a schedule or inside rescaled coordinates
    if isinstance(state, TemperingState):
        found["swap_acceptance"] = tuple(swap_acceptance(state).tolist())
    return found


def findings_of_draws(resampled: Resampled) -> Findings:
    """Of sampling-importance-resampling: the effective share of the prior draws, and the largest weight of any."""
    return {"effective_share": (resampled.effective,), "largest_weight": (resampled.largest,)}


def mean_findings(batches: Iterable[Findings], sizes: Sequence[float]) -> dict[str, list[float]]:
    """Means over batches, weighted by their `sizes`, as JSON has them."""
    batches = list(batches)
    return {name: np.average([batch[name] for batch in batches], axis=0, weights=sizes).tolist() for name in batches[0]}


def findings_of_run(records: Iterable[dict[str, Any]]) -> dict[str, list[float]]:
    """Means over the shards of a manifest, each with `count` and `diagnostics`; empty for one of an older version."""
    records = list(records)
    found = [record["diagnostics"].get("found", {}) for record in records]
    return mean_findings(found, [record["count"] for record in records])
