"""Two-sample tests by maximum mean discrepancy."""

from gebm.evaluation.two_sample.aggregated import AggregatedResult, aggregated_mmd_test
from gebm.evaluation.two_sample.interval import MMDInterval, mmd_interval
from gebm.evaluation.two_sample.mmd import TestResult, mmd_test
from gebm.evaluation.two_sample.relative import RelativeResult, relative_mmd_test
from gebm.evaluation.two_sample.witness import Witness, witness, witness_of_samples

__all__ = [
    "AggregatedResult",
    "MMDInterval",
    "RelativeResult",
    "TestResult",
    "Witness",
    "aggregated_mmd_test",
    "mmd_interval",
    "mmd_test",
    "relative_mmd_test",
    "witness",
    "witness_of_samples",
]
