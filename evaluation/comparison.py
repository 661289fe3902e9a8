"""Are two sets of samples from one distribution, or which of two is closer to a third: tests in pieces, on the farm."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from math import isqrt
from typing import Any, Literal

from pydantic import field_validator

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.cluster.index import load_index
from gebm.cluster.reader import iterate_batches
from gebm.cluster.settings import StrictModel
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.feature_files import feature_tables, is_array
from gebm.evaluation.features import FeatureType

STREAM_BATCH = 250  # samples that a stream decodes together

Progress = Callable[[str, FarmProgress], None]
"""Called with which farm it is, `features` or `tiles`, and where it stands."""


class ComparisonSettings(StrictModel):
    """What is compared and how; see `mmd_test` for the form of a test."""

    extractor: ExtractorSettings | None = None
    """Features that samples are compared by; None for the default one, or the values of `.npy` files."""
    feature_type: FeatureType = "float32"
    """Of the files that keep features."""
    test: Literal["mmd", "relative"] = "mmd"
    """`mmd`: are x and y from one distribution? `relative`: is y closer to x than a base is?"""
    kernel: str = "gaussian"
    bandwidth: float | Literal["median"] = "median"
    statistic: str | None = None
    null: str = "permutation"
    permutations: int = 999
    level: float = 0.05
    block: int | None = None
    reach: int = 1
    bins: int | None = None
    precision: Literal["float32", "bf16"] = "float32"
    """Of tiles."""
    seed: int = 0

    @field_validator("bandwidth", mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        if isinstance(value, str) and value != "median":
            try:
                return float(value)
            except ValueError as error:
                raise ValueError("must be a positive number, or 'median'") from error
        return value


def compare_sets(
    x: str,
    y: str,
    settings: ComparisonSettings,
    *,
    base: str | None = None,
    output: str | None = None,
    cache: str | None = None,
    actors: int | None = None,
    gpus_per_actor: float = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """The two-sample test of two sets, or the relative test of three, by actors of the farm; Ray must be connected.

    The result is the same, to the last bit, for any number of actors and any deaths among them; but it is that of its
    kind of device. An interrupted call with an `output` goes on where it was.

    Args:
        x: a shard set, or a `.npy` file of vectors.
        y: another one; for the relative test the model's samples.
        settings: the features and the test.
        base: for the relative test, the samples of the generator alone.
        output: URL of a directory that keeps what is finished, and gets `result.json`.
        cache: URL of a directory that keeps features; None for one in `output`, or for as long as this takes.
        actors: processes; None for as many as the cluster has room for.
        gpus_per_actor: 0 for CPUs.
        progress: called as the farms get on.

    Returns:
        JSON-able: the fields of `TestResult` or `RelativeResult`, and `extractor`.

    Raises:
        InputError: sets that cannot be read or compared, settings that do not fit together, an `output` of another
            comparison.
        FarmError: items that kept failing.
    """
    from gebm.evaluation.two_sample.distributed import distributed_mmd_test, distributed_relative_test, on_farm

    samples = named_samples(x, y, base, settings)
    check_settings_of(settings, count_samples(samples))

    def tell(farm: str) -> Callable[[FarmProgress], None] | None:
        return None if progress is None else partial(progress, farm)

    with _features_at(cache, output) as folder:
        extractor = settings.extractor or ExtractorSettings()
        tables, description = feature_tables(
            samples,
            extractor,
            cache=folder,
            dtype=settings.feature_type,
            actors=actors or 1,
            gpus_per_actor=gpus_per_actor,
            progress=tell("features"),
        )
        execute = partial(
            on_farm,
            output=None if output is None else storage.join(output, "tiles"),
            actors=actors,
            gpus_per_actor=gpus_per_actor,
            progress=tell("tiles"),
        )
        shared: dict[str, Any] = {
            "kernel": settings.kernel,
            "bandwidth": settings.bandwidth,
            "permutations": settings.permutations,
            "level": settings.level,
            "seed": settings.seed,
            "precision": settings.precision,
            "on_gpu": gpus_per_actor > 0,
            "execute": execute,
        }
        if settings.test == "relative":
            first, second, third = tables
            found = asdict(distributed_relative_test(first, second, third, **shared))
        else:
            form = {name: getattr(settings, name) for name in ("statistic", "null", "block", "reach", "bins")}
            first, second = tables
            found = asdict(distributed_mmd_test(first, second, **form, **shared))
    result = {**found, "extractor": description, "precision": settings.precision}
    if output is not None:
        storage.write_json_atomic(storage.join(output, "result.json"), result)
    return result


def named_samples(x: str, y: str, base: str | None, settings: ComparisonSettings) -> dict[str, str]:
    """The sets by the names that the test has for them.

    Raises:
        InputError: a base without the relative test, or that test without a base; an extractor of images for `.npy`.
    """
    if settings.test == "relative":
        if base is None:
            raise InputError(
                "base: the relative test asks which of two is closer; give --base, the generator's samples"
            )
        if settings.null != "permutation" or settings.statistic is not None:
            raise InputError("null: the relative test has its own statistic and null; leave out --null and --statistic")
        samples = {"x": x, "model": y, "base": base}
    elif base is not None:
        raise InputError("base: the test mmd compares two sets; leave the base out, or take --test relative")
    else:
        samples = {"x": x, "y": y}
    for url in samples.values():
        if is_array(url) and settings.extractor is not None and settings.extractor.name != "raw":
            raise InputError(
                f"extractor.name: {url} holds vectors, which {settings.extractor.name} does not read; take raw, the "
                f"values as they are"
            )
    return samples


def count_samples(samples: dict[str, str]) -> list[int]:
    """How many samples each set has, from its index or the head of its file."""
    from gebm.evaluation.two_sample.distributed import table_of_file

    return [len(table_of_file(url, name)) if is_array(url) else load_index(url).total for name, url in samples.items()]


def check_settings_of(settings: ComparisonSettings, counts: list[int]) -> None:
    """Refuse settings that do not fit together or the sizes of the samples, before anything long begins.

    Raises:
        InputError: names the setting, and says what to do.
    """
    from gebm.evaluation.two_sample.compositions import check_sizes, compose
    from gebm.evaluation.two_sample.mmd import check_permutations, check_settings, design_of
    from gebm.evaluation.two_sample.nulls.bins import check_bins, points_per_bin

    check_settings(settings.kernel, settings.bandwidth, settings.level)
    check_permutations(settings.permutations, settings.level)
    if settings.test == "relative":
        return
    if settings.null == "auto":
        raise InputError("null: 'auto' chooses for one process; name the null of a distributed test")
    statistic, null = compose(settings.statistic, settings.null)
    n, m = counts
    check_sizes(statistic, null, n, m)
    if null == "bins":
        check_bins(n, m, points_per_bin(n, m, settings.bins), settings.level)
    design_of(statistic, n, settings.block, settings.reach)


def stream_sets(x: str, y: str, settings: ComparisonSettings) -> dict[str, Any]:
    """The block test of two sets in one pass over both, in this process and in memory for a few blocks; no Ray.

    Blocks are consecutive pairs of samples as they are stored, so samples must not be sorted. Returns what
    `compare_sets` does.

    Raises:
        InputError: sets that cannot be read or compared; another test than that of blocks.
    """
    from gebm.evaluation.extractors.extractor import make_extractor
    from gebm.evaluation.two_sample.distributed.stream import pieces_of_file, stream_block_test

    samples = named_samples(x, y, None, settings)
    n, _ = counts = count_samples(samples)
    check_settings_of(settings, counts)
    statistic = settings.statistic or "block"
    if settings.test != "mmd" or settings.null not in ("normal", "sign_flip"):
        raise InputError("stream: one pass is for the block test; take --null normal, or sign_flip, which is exact")
    if statistic not in ("block", "linear_time") or settings.precision != "float32":
        raise InputError("stream: one pass is for the statistics block and linear_time in float32")
    description: dict[str, Any] = {"name": "raw"}
    sides: list[Iterator[Any]] = []
    for url in samples.values():
        if is_array(url):
            sides.append(pieces_of_file(url))
            continue
        extractor = make_extractor(settings.extractor or ExtractorSettings(), image_shape=load_index(url).image_shape)
        description = extractor.description
        sides.append(_extracted(url, extractor))
    block = 2 if statistic == "linear_time" else settings.block or max(2, isqrt(n))
    null: Literal["normal", "sign_flip"] = "normal" if settings.null == "normal" else "sign_flip"
    form = {name: getattr(settings, name) for name in ("kernel", "bandwidth", "permutations", "level", "seed")}
    found = stream_block_test(sides[0], sides[1], block=block, null=null, **form)
    return {**asdict(found), "extractor": description, "precision": settings.precision}


def _extracted(url: str, extractor: Callable[[Any], Any]) -> Iterator[Any]:
    import torch

    for batch in iterate_batches(url, STREAM_BATCH):
        yield extractor(torch.from_numpy(batch.images))


def estimate_comparison(samples: dict[str, str], settings: ComparisonSettings, workers: int) -> dict[str, Any]:
    """How long the tiles of a permutation test would take `workers` processes with one CPU each of this machine's kind;
    features are not counted. JSON-able: `seconds`, what they go to, `items`, `operations`, and the `rates` measured.

    Raises:
        InputError: another test, whose cost is not modelled.
    """
    from gebm.evaluation.extractors.extractor import make_extractor
    from gebm.evaluation.two_sample.distributed.cost import calibrate, estimate
    from gebm.evaluation.two_sample.distributed.table import shape_of_file

    if settings.test != "mmd" or settings.null != "permutation":
        raise InputError("estimate: the cost model is of the permutation test; leave out --test and --null")
    url = samples["x"]
    if is_array(url):
        dimension = shape_of_file(url, "x")[1]
    else:
        extractor = settings.extractor or ExtractorSettings()
        dimension = make_extractor(extractor, image_shape=load_index(url).image_shape).dimension
    n, m = count_samples(samples)
    rates = calibrate(dimension, settings.permutations, workers)
    found = estimate(n, m, dimension, settings.permutations, workers, rates, on_gpu=False)
    return {**found._asdict(), "workers": workers, "dimension": dimension, "rates": rates._asdict()}


@contextmanager
def _features_at(cache: str | None, output: str | None) -> Iterator[str]:
    """The folder that keeps features."""
    if cache is not None or output is not None:
        yield storage.absolute(cache) if cache is not None else storage.join(str(output), "features")
        return
    with tempfile.TemporaryDirectory(prefix="gebm-compare-") as folder:
        yield folder
