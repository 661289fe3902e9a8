"""What an evaluation measures and how."""

from typing import Literal

from pydantic import Field, field_validator

from gebm.cluster.settings import StrictModel
from gebm.evaluation.extractors.settings import ExtractorSettings

Metric = Literal["fid", "kid", "precision_recall", "density_coverage", "modes", "labels"]
Test = Literal["mmd", "relative"]
KernelName = Literal["gaussian", "laplace", "imq", "rational_quadratic", "energy", "polynomial", "linear"]


class EvaluationSettings(StrictModel):
    """Settings of `evaluate` and `compare`."""

    extractor: ExtractorSettings = ExtractorSettings()
    """Features that images are compared by."""
    metrics: tuple[Metric, ...] = ("fid", "kid")
    """Which distances; with a base also their ratio and difference, for FID. `precision_recall`, `density_coverage`:
    whether samples lie among real ones, and reach all of them, see `neighbours.py`. `modes`: how many modes of stacked
    digits are covered, by a classifier that is trained on labelled training images. `labels`: how many images of a
    conditional model of digits show what their label says, by the same classifier."""
    tests: tuple[Test, ...] = ("mmd", "relative")
    """`mmd`: each side against the data, and data against data. `relative`: is the model closer than its
    base?"""
    groups: int = Field(default=20, ge=2)
    """Groups of the delete-group jackknife."""
    permutations: int = Field(default=999, ge=19)
    """Random labellings of each exact test."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """False-alarm rate of the tests."""
    kernel: KernelName = "gaussian"
    """Kernel of the tests."""
    bandwidth: float | Literal["median"] = "median"
    """The kernel's scale, in units of feature distance."""
    allow_unequal_sizes: bool = False
    """FID depends on the number of images, so sides of different size are refused unless this is set."""

    @field_validator("bandwidth")
    @classmethod
    def _positive(cls, value: float | str) -> float | str:
        if value != "median" and not float(value) > 0:
            raise ValueError("must be positive, or 'median'")
        return value
