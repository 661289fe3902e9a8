"""What a resampling null returns, and the p-value that follows."""

from math import floor, inf
from typing import NamedTuple

import torch


class NullSample(NamedTuple):
    """An observed statistic among those of relabelled samples.

    Attributes:
        observed: the statistic of the true labelling.
        resampled: `(P,)` float64, the statistics of the random labellings.
        rounding: differences below this are ties: what float32 tiles may add to equal statistics.
    """

    observed: float
    resampled: torch.Tensor
    rounding: float

    def exceedances(self) -> int:
        """How many resampled statistics are at least the observed one; ties count."""
        return int((self.resampled >= self.observed - self.rounding).sum())

    def p_value(self) -> float:
        """`(1 + #{T_perm >= T}) / (1 + P)`, valid in finite samples if the labellings are exchangeable."""
        return (1 + self.exceedances()) / (1 + len(self.resampled))

    def rejects(self, level: float) -> bool:
        """Whether `p_value <= level`, decided on whole numbers."""
        return 1 + self.exceedances() <= allowed(level, len(self.resampled))

    def threshold(self, level: float) -> float:
        """The test rejects when the statistic exceeds this value by more than rounding."""
        rank = allowed(level, len(self.resampled))
        return float(self.resampled.topk(rank).values[-1]) if rank else inf


def allowed(level: float, permutations: int) -> int:
    """`floor(level (P + 1))`: how many of all P + 1 statistics may reach the observed one if it rejects."""
    return floor(level * (permutations + 1) + 1e-9)
