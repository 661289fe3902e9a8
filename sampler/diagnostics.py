"""What a run of chains says about itself, from the traces of its energy."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gebm.sampler.effective_size import effective_sample_size


def split_r_hat(trace: NDArray[np.floating]) -> float | None:
    """Split-R̂ of a scalar traced along `chains` chains; near 1 when they have forgotten where they began.

    trace: `(records, chains)`. Every chain is cut into halves and the variance between the means of the
    halves is compared with that inside them (Gelman et al., Bayesian Data Analysis, 3rd ed., section 11.4).
    None when it is not defined: fewer than four records, fewer than two chains, values that are not finite or
    do not vary.
    """
    half = trace.shape[0] // 2
    if half < 2 or trace.shape[1] < 2 or not np.isfinite(trace).all():
        return None
    halves = np.concatenate([trace[:half], trace[-half:]], axis=1).astype(np.float64)
    within = halves.var(axis=0, ddof=1).mean()
    between = halves.mean(axis=0).var(ddof=1)
    if within == 0:
        return None
    return float(math.sqrt((half - 1) / half + between / within))


def describe_chains(
    recorded_steps: Sequence[int],
    energies: NDArray[np.floating],
    acceptance: float,
    nonfinite: int,
    potential_error: float | None = None,
) -> dict[str, Any]:
    """JSON-able diagnostics of a batch of chains.

    recorded_steps: `(records,)`, how many transitions were done when the energy was recorded.
    energies: `(records, chains)`, `E(B(z))`. acceptance: mean probability. nonfinite: proposals, over all
    chains. potential_error: `max |ΔU|` in nats between the precision of the gradients and float32, None where they are
    the same. R̂ and effective sample sizes are those of the second half of the records: the first is on its way from
    the prior. `energy_change`: the last mean energy less the first.
    """
    energies = energies.astype(np.float64)
    with np.errstate(invalid="ignore"):  # an energy that is not finite is reported as null
        mean, deviation = energies.mean(axis=1), energies.std(axis=1)
        change = mean[-1:] - mean[:1]
    settled = energies[energies.shape[0] // 2 :]
    return {
        "recorded_steps": [int(step) for step in recorded_steps],
        "energy_mean": _plain(mean),
        "energy_std": _plain(deviation),
        "energy_change": _plain(change)[0],
        "energy_r_hat": split_r_hat(settled),
        "energy_ess_bulk": effective_sample_size(settled, "bulk"),
        "energy_ess_tail": effective_sample_size(settled, "tail"),
        "acceptance": float(acceptance),
        "nonfinite": int(nonfinite),
        "potential_error": None if potential_error is None else _plain(np.array([potential_error]))[0],
    }


def summarise(records: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The diagnostics of a whole run from those of its shards, weighted by their number of chains.

    records: as in the manifest, each with `count`, `diagnostics`, `seconds` and `chain_seconds`. `energy_r_hat` and
    `potential_error` are the largest of any shard, None when none has one. Effective sample sizes are sums over the
    shards that have one, whose chains are independent; `energy_ess_per_second`: bulk, a second of one actor, the first
    half of the chains and the making of images included.
    """
    records = list(records)
    counts = np.array([record["count"] for record in records], dtype=np.float64)
    shards = [record["diagnostics"] for record in records]
    share = counts / counts.sum()
    mean = np.array([_numbers(shard["energy_mean"]) for shard in shards])
    std = np.array([_numbers(shard["energy_std"]) for shard in shards])
    overall = share @ mean
    variance = share @ (std**2 + (mean - overall) ** 2)
    r_hats = _known(shards, "energy_r_hat")
    errors = _known(shards, "potential_error")
    bulk, tail = _known(shards, "energy_ess_bulk"), _known(shards, "energy_ess_tail")
    chain_seconds = sum(record["chain_seconds"] for record in records)
    return {
        "count": int(counts.sum()),
        "recorded_steps": shards[0]["recorded_steps"],
        "energy_mean": _plain(overall),
        "energy_std": _plain(np.sqrt(variance)),
        "energy_change": _plain(overall[-1:] - overall[:1])[0],
        "energy_r_hat": max(r_hats) if r_hats else None,
        "energy_ess_bulk": sum(bulk) if bulk else None,
        "energy_ess_tail": sum(tail) if tail else None,
        "energy_ess_per_second": sum(bulk) / chain_seconds if bulk else None,
        "acceptance": float(share @ np.array([shard["acceptance"] for shard in shards])),
        "nonfinite": sum(shard["nonfinite"] for shard in shards),
        "potential_error": max(errors) if errors else None,
        "actor_seconds": float(sum(record["seconds"] for record in records)),
    }


def _known(shards: Sequence[dict[str, Any]], key: str) -> list[float]:
    return [shard[key] for shard in shards if shard[key] is not None]


def _plain(values: NDArray[np.floating]) -> list[float | None]:
    """Floats as JSON has them: what is not finite becomes null."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _numbers(values: Sequence[float | None]) -> list[float]:
    return [math.nan if value is None else value for value in values]
