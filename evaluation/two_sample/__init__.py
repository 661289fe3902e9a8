"""Two-sample tests by maximum mean discrepancy."""

from gebm.evaluation.two_sample.mmd import TestResult, mmd_test
from gebm.evaluation.two_sample.relative import RelativeResult, relative_mmd_test

__all__ = ["RelativeResult", "TestResult", "mmd_test", "relative_mmd_test"]
