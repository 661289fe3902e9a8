"""The parts of other stages' JSON files that a report reads. Whatever else they hold is passed over."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.sampler.settings import SamplerSettings


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Test(_Part):
    """The outcome of one test."""

    statistic: float
    p_value: float
    n: int | None = None
    m: int | None = None
    permutations: int | None = None


class Modes(_Part):
    """Modes of stacked digits in a sample."""

    covered: int
    of: int
    kl_to_uniform: float
    n: int


class DigitAccuracy(_Part):
    """Of the classifier that modes are counted with, on `n` single test digits."""

    accuracy: float
    n: int


class Agreement(_Part):
    """Images of digits that show what their label says: the share of them, in all and by digit."""

    share: float
    standard_error: float
    n: int
    by_class: tuple[float | None, ...] | None = None


class Evaluation(_Part):
    """`evaluation/main.json`, what `gebm evaluate` found; None for what was not asked for."""

    fid_base: float | None = None
    fid_model: float | None = None
    fid_ratio: float | None = None
    fid_ratio_interval: tuple[float, float] | None = None
    fid_ratio_bias_corrected: float | None = None
    fid_difference: float | None = None
    fid_difference_interval: tuple[float, float] | None = None
    kid_base: float | None = None
    kid_model: float | None = None
    precision_base: float | None = None
    precision_model: float | None = None
    recall_base: float | None = None
    recall_model: float | None = None
    density_base: float | None = None
    density_model: float | None = None
    coverage_base: float | None = None
    coverage_model: float | None = None
    mmd_base: Test | None = None
    mmd_model: Test | None = None
    mmd_null: Test | None = None
    mmd_relative: Test | None = None
    modes_base: Modes | None = None
    modes_model: Modes | None = None
    modes_real: Modes | None = None
    modes_classifier: DigitAccuracy | None = None
    labels_base: Agreement | None = None
    labels_model: Agreement | None = None
    labels_real: Agreement | None = None
    n_real: int | None = None
    n_generated: int | None = None
    extractor: dict[str, Any] | None = None
    warnings: tuple[str, ...] = ()
    details: dict[str, Any] = {}


class LogPartition(_Part):
    """`c` of the likelihood, as it was estimated."""

    value: float
    standard_error: float
    draws: int
    effective_draws: float


class Likelihood(_Part):
    """`evaluation/likelihood.json`: negative log-likelihood of held-out points in nats a point."""

    base: float
    base_error: float
    model: float
    model_error: float
    difference: float
    difference_error: float
    difference_upper: float
    better: bool
    level: float
    points: int
    log_partition: LogPartition


class Tried(_Part):
    """One row of tuning: a chain scored at one length, or the reason why it has no score."""

    sampler: SamplerSettings
    fid: float | None
    fid_ratio: float | None
    fid_ratio_interval: tuple[float, float] | None
    energy_gap: float | None
    improves: bool
    failure: str | None = None


class Tuning(_Part):
    """`tune.json`, what `gebm tune` tried and chose."""

    tried: tuple[Tried, ...]
    chosen: SamplerSettings
    improves: bool
    criterion: str
    fid_base: float
    n_generated: int
    n_validation: int


class Seconds(RootModel[dict[str, float]]):
    """`timings.json`: seconds by stage, in the order in which the stages first ran."""


Format = TypeVar("Format", bound=BaseModel)


def read_format(url: str, kind: type[Format]) -> Format | None:
    """The content of a JSON file, None when there is no such file.

    Raises `InputError` that names the file and the field when it cannot be understood.
    """
    if not storage.exists(url):
        return None
    try:
        return kind.model_validate(storage.read_json(url))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{url}: not readable as JSON ({error}); remove it and run its stage again") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InputError(
            f"{url}: {field} is not as expected ({first['msg']}); remove it and run its stage again"
        ) from error
