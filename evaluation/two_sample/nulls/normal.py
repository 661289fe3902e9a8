"""The normal null of a block statistic (Zaremba, Gretton, Blaschko 2013). Asymptotic: its level is not exact.

The mean of independent block values is normal by the central limit theorem, but the values are skewed to the right
under P = Q: few large blocks make the test conservative. Sign flips within blocks cost the same and are exact.
"""

from typing import NamedTuple

from scipy.stats import norm

from gebm.evaluation.two_sample.designs import Design, block_values
from gebm.evaluation.two_sample.nulls.null_sample import rounding_of_mean
from gebm.evaluation.two_sample.shuffles import Pairs


class NormalNull(NamedTuple):
    """An observed statistic and the standard deviation of its normal null of mean 0.

    Attributes:
        observed: the statistic.
        standard_error: of the statistic, from the spread of the block values.
        rounding: a statistic below this is no evidence, whatever its error.
    """

    observed: float
    standard_error: float
    rounding: float

    def p_value(self) -> float:
        """One-sided."""
        if abs(self.observed) <= self.rounding:
            return 0.5 if self.standard_error > self.rounding else 1.0
        if self.standard_error == 0.0:
            return 0.0 if self.observed > 0 else 1.0
        return float(norm.sf(self.observed / self.standard_error))

    def rejects(self, level: float) -> bool:
        return self.p_value() <= level

    def threshold(self, level: float) -> float:
        """The test rejects when the statistic exceeds this value by more than rounding."""
        return float(norm.isf(level)) * self.standard_error


def normal_null(pairs: Pairs, design: Design) -> NormalNull:
    """The mean of the paired form over disjoint blocks, and its standard error over blocks."""
    values, magnitude = block_values(pairs.first, pairs.second, pairs.kernel, design, pairs.signs)
    rounding = rounding_of_mean(magnitude / design.entries, design.pairs, pairs.first.precision)
    error = float(values.std(correction=1)) / design.blocks**0.5
    return NormalNull(float(values.mean()), error, rounding)
