"""The scores of what tuning tried: FIDs with their uncertainty, energy gaps, and which candidate is best.

A chain whose step is too large for its energy flies away, and its samples are no numbers any more. Such a candidate
has no score: it loses, and its row says why.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gebm.cluster.errors import InputError
from gebm.launch.sampler_words import sampler_words
from gebm.sampler.settings import SamplerSettings

BASE = "base"
NAMED = 3
"""Failed candidates that an error names."""
NO_SCORE: dict[str, Any] = {"fid": None, "fid_ratio": None, "fid_ratio_interval": None, "improves": False}


def score(
    records: dict[str, dict[str, Any]],
    features: dict[str, np.ndarray],
    real: np.ndarray,
    groups: int,
    seed: int,
) -> dict[str, Any]:
    """FIDs against the features `real` `(n, d)`, and their ratios to the base's with jackknife intervals.

    records: of the candidates and the base. features: for each `(lengths, count, d)`.
    Base and candidates are split into the same groups, so that what they share cancels in the ratio. A candidate
    whose samples are not all finite has a `failure` and no score.
    Raises `InputError` when there is nothing to compare with, or nothing that could be scored.
    """
    from gebm.evaluation.frechet import covariance_root, frechet_distance, merge_all
    from gebm.evaluation.jackknife import split_into_groups

    parts = split_into_groups(real, groups, seed)
    whole = merge_all(parts)
    references = [(each, covariance_root(each)) for each in (whole, *(whole.subtract(part) for part in parts))]

    def distances(sample: np.ndarray) -> list[float]:
        """FID on everything, then without each group."""
        parts = split_into_groups(sample, groups, seed)
        whole = merge_all(parts)
        sides = (whole, *(whole.subtract(part) for part in parts))
        return [
            frechet_distance(side, reference, root_of_b=root)
            for side, (reference, root) in zip(sides, references, strict=True)
        ]

    base_record = records[BASE]
    if trouble := failure(features[BASE][0], base_record["energies"][0]):
        raise InputError(
            f"the generator alone: {trouble}, so there is nothing to compare the candidates of tune.grids with; train "
            "again with lower learning rates, or with trainer.clip_norm"
        )
    base = distances(features[BASE][0])
    energy_validation = base_record["energy_validation"]
    tried = []
    for name, record in records.items():
        if name == BASE:
            continue
        for number, length in enumerate(record["lengths"]):
            sample, energy = features[name][number], record["energies"][number]
            row = {
                "sampler": {**record["sampler"], "steps": length},
                "energy": energy,
                "energy_gap": energy_gap(energy, energy_validation),
                "acceptance": record["acceptance"][number],
                "nonfinite": record["nonfinite"][number],
                "seconds": record["seconds"],
            }
            trouble = failure(sample, energy)
            tried.append(row | (NO_SCORE | {"failure": trouble} if trouble else against_base(distances(sample), base)))
    refuse_if_all_failed(tried)
    return {
        "tried": tried,
        "fid_base": base[0],
        "energy_base": base_record["energies"][0],
        "energy_validation": energy_validation,
    }


def against_base(fids: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """FID and its ratio over the base's, from the FIDs on everything and without each group."""
    from gebm.evaluation.jackknife import jackknife_interval

    ratios = [ours / theirs for ours, theirs in zip(fids, base, strict=True)]
    interval = jackknife_interval(ratios[0], ratios[1:])
    return {
        "fid": fids[0],
        "fid_ratio": interval.estimate,
        "fid_ratio_interval": [interval.low, interval.high],
        "improves": interval.high < 1,
        "failure": None,
    }


def failure(features: np.ndarray, energy: float | None) -> str | None:
    """Why samples of these features `(n, d)` and mean energy (None: not finite) have no score; None where they have."""
    beyond = int((~np.isfinite(features).all(1)).sum())
    if beyond:
        return f"{beyond:,} of {len(features):,} samples are not finite"
    return "the mean energy of its samples is not finite" if energy is None else None


def refuse_if_all_failed(tried: Sequence[dict[str, Any]]) -> None:
    """Raise `InputError` that names the candidates and what to do, unless one of them has a score."""
    if any(row["failure"] is None for row in tried):
        return
    named = passed_over(tried[:NAMED])
    more = [f"{len(tried) - NAMED} more likewise"] if len(tried) > NAMED else []
    raise InputError(
        f"no candidate of tune.grids can be scored ({'; '.join(named + more)}): their chains have flown away; give "
        "smaller step_sizes or inverse_temperatures in tune.grids, or fewer steps"
    )


def passed_over(tried: Sequence[dict[str, Any]]) -> list[str]:
    """`ula, β 2, step 5, 100 steps: 3 of 500 samples are not finite`, for each row without a score."""
    return [
        f"{sampler_words(SamplerSettings.model_validate(row['sampler']))}: {row['failure']}"
        for row in tried
        if row["failure"] is not None
    ]


def energy_gap(energy: float | None, energy_validation: float) -> float | None:
    """`E(samples) - E(validation)`, None when the chains have flown away."""
    return None if energy is None else energy - energy_validation


def choose(tried: Sequence[dict[str, Any]], criterion: str) -> dict[str, Any]:
    """The best row's settings, as `chosen`, and whether it `improves` on the base.

    Rows whose jackknife interval of `FID / FID of the base` is not wholly below 1 are passed over as long as
    there are others; when there are none, the best of them is chosen all the same and `improves` is false. A row with
    a `failure` is never chosen; at least one must have none.
    """
    scored = [row for row in tried if row["failure"] is None]
    improving = [row for row in scored if row["improves"]]

    def badness(row: dict[str, Any]) -> float:
        return row["fid"] if criterion == "fid" else abs(row["energy_gap"])

    best = min(improving or scored, key=badness)
    return {"chosen": best["sampler"], "improves": best["improves"], "criterion": criterion}
