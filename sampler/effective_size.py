"""How many independent draws the traces of many chains are worth."""

from __future__ import annotations

from typing import Literal

import numpy as np
from arviz_stats.base import array_stats
from numpy.typing import NDArray

FEWEST_RECORDS = 10
TAILS = (0.05, 0.95)


def effective_sample_size(trace: NDArray[np.floating], kind: Literal["bulk", "tail"]) -> float | None:
    """Effective sample size of a scalar traced along `chains` chains, by ArviZ; at most one a record.

    trace: `(records, chains)`. `bulk`: of the mean of the ranks, `tail`: the smaller one of the 5% and the 95%
    quantile (Vehtari et al., 2021, https://doi.org/10.1214/20-BA1221). Chains are cut into halves that count as
    chains of their own, so for chains shorter than their own memory the number is up to twice too large; it tends to
    the number of chains, not to zero, since these are independent.
    None where it says nothing: fewer than ten records, values that are not finite or do not vary.
    """
    if len(trace) < FEWEST_RECORDS or not np.isfinite(trace).all() or np.ptp(trace) == 0:
        return None
    chains = np.ascontiguousarray(trace.T, dtype=np.float64)
    options = {"prob": TAILS} if kind == "tail" else {}
    found = float(array_stats.ess(chains, chain_axis=0, draw_axis=1, method=kind, **options))
    return min(found, float(trace.size)) if np.isfinite(found) else None
