"""What a resampling null returns, and the p-value that follows."""

from math import floor, inf
from typing import NamedTuple, Protocol, TypedDict

import torch


class Null(Protocol):
    """An observed statistic under its null: resampled, or a limit."""

    @property
    def observed(self) -> float: ...

    def p_value(self) -> float: ...

    def rejects(self, level: float) -> bool: ...

    def threshold(self, level: float) -> float: ...


class Verdict(TypedDict):
    """The fields that every test's result takes from its null."""

    statistic: float
    p_value: float
    reject: bool
    threshold: float


def verdict(null: Null, level: float) -> Verdict:
    """What a null says at a level."""
    return {
        "statistic": null.observed,
        "p_value": null.p_value(),
        "reject": null.rejects(level),
        "threshold": null.threshold(level),
    }


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

    @staticmethod
    def around(values: torch.Tensor, position: int, rounding: float) -> "NullSample":
        """From the statistics `(P + 1,)` of all labellings, the true one at `position`."""
        values = values.cpu()
        return NullSample(float(values[position]), torch.cat([values[:position], values[position + 1 :]]), rounding)

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


def rounding_of_mean(mean_magnitude: float, count: int, dtype: torch.dtype) -> float:
    """Rounding error to expect in a mean over `count²` kernel values that were added in rows of `count`.

    Each row's sum has a relative error of some units in the last place; over rows they average out. It is far
    below the spread of any null (by `sqrt(count)` units in the last place), so treating such differences as
    ties costs no power, and counting ties keeps the level.
    """
    return 16.0 * torch.finfo(dtype).eps * mean_magnitude / count**0.5
