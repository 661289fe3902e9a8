"""Are these samples good, and are they better than those of the generator that they came from?"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import ray

from gebm.cluster.farm import FarmProgress
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.digit_classifier import check_digit_sets
from gebm.evaluation.features import extract_feature_sets
from gebm.evaluation.frechet import FrechetStatistics, covariance_root, frechet_distance
from gebm.evaluation.jackknife import jackknife_interval, leave_groups_out, split_into_groups
from gebm.evaluation.kernel_distance import kernel_distance
from gebm.evaluation.labels import check_labelled_sets, label_agreement
from gebm.evaluation.modes import count_modes
from gebm.evaluation.neighbours import (
    DENSITY_NEIGHBOURS,
    PRECISION_NEIGHBOURS,
    density_coverage,
    neighbours_of,
    precision_recall,
)
from gebm.evaluation.set_checks import check_dimension, check_sets
from gebm.evaluation.settings import EvaluationSettings
from gebm.evaluation.two_sample import TestResult, mmd_test, relative_mmd_test

Progress = Callable[[int, int, str], None]
"""Called with (done, total, what is being done)."""

Result = dict[str, Any]

MEASURES = (
    "fid_base",
    "fid_model",
    "fid_ratio",
    "fid_ratio_interval",
    "fid_ratio_bias_corrected",
    "fid_difference",
    "fid_difference_interval",
    "kid_base",
    "kid_model",
    "precision_base",
    "precision_model",
    "recall_base",
    "recall_model",
    "density_base",
    "density_model",
    "coverage_base",
    "coverage_model",
    "mmd_base",
    "mmd_model",
    "mmd_null",
    "mmd_relative",
    "modes_base",
    "modes_model",
    "modes_real",
    "modes_classifier",
    "labels_base",
    "labels_model",
    "labels_real",
)
"""Keys of a result that are None where they were not asked for."""


def evaluate(
    *,
    samples: str,
    reference: str,
    base: str | None = None,
    digits: str | None = None,
    settings: EvaluationSettings,
    seed: int = 0,
    cache: str | None = None,
    actors: int = 1,
    gpus_per_actor: float | None = None,
    progress: Progress | None = None,
) -> Result:
    """Compare generated images with real ones, and with those of the generator alone.

    Needs a connection to Ray. Everything random follows from `seed`; features come from `cache` where they
    are.

    Args:
        samples: shard set of the model's samples.
        reference: shard set of real images.
        base: shard set of samples of the generator alone; without it there is no ratio and no relative test.
        digits: labelled training images of stacked digits, for the metrics `modes` and `labels`.
        settings: what to measure.
        seed: of groups, halves, permutations and the classifier of digits.
        cache: URL of a directory that keeps features.
        actors: processes that extract features.
        gpus_per_actor: None to share the cluster's GPUs among the actors, 0 for CPUs.
        progress: called with (done, total, detail).

    Returns:
        JSON-able. `fid_base`, `fid_model`, `fid_ratio`, `fid_ratio_interval` (95%),
        `fid_ratio_bias_corrected`, `fid_difference` (model less base), `fid_difference_interval` (95%), `kid_base`,
        `kid_model`; `precision_`, `recall_`, `density_` and `coverage_` of `base` and `model`; `mmd_base`, `mmd_model`,
        `mmd_null`, each with `statistic`, `p_value`, `n`, `m`, `permutations`; `mmd_relative` with `statistic`,
        `p_value`; `modes_base`, `modes_model`, `modes_real`, each with `covered`, `of`, `kl_to_uniform`, `n`, and
        `modes_classifier` with `accuracy` and `n`; `labels_base`, `labels_model`, `labels_real`, each with
        `share` of the `n` images that show what their label says, its `standard_error`, and `by_class`;
        `n_real`, `n_generated`, `extractor` (name, layer, input size, digest of the weights, dimension),
        `warnings`, `details`. What was not asked for, or needs a base that is not given, is None.

    Raises:
        InputError: shard sets that cannot be read or compared; unequal sizes, unless the settings allow them;
            modes or labels asked for without labelled digits.
    """
    return evaluate_several(
        samples=[samples],
        reference=reference,
        base=base,
        digits=digits,
        settings=settings,
        seed=seed,
        cache=cache,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        progress=progress,
    )[0]


def evaluate_several(
    *,
    samples: Sequence[str],
    reference: str,
    base: str | None = None,
    digits: str | None = None,
    settings: EvaluationSettings,
    seed: int = 0,
    cache: str | None = None,
    actors: int = 1,
    gpus_per_actor: float | None = None,
    progress: Progress | None = None,
) -> list[Result]:
    """For each set of `samples` what `evaluate` says of it, with the same real images, base, groups and shuffles.

    Features of all sets are extracted by one farm, each set's once, and one classifier reads all digits. Arguments and
    errors as for `evaluate`.
    """
    names = ["samples"] if len(samples) == 1 else [f"samples {number}" for number in range(1, len(samples) + 1)]
    given = {"reference": reference} | ({"base": base} if base is not None else {})
    sets = dict(zip(names, samples, strict=True)) | given
    if "modes" in settings.metrics:
        check_digit_sets(sets.values(), digits, reference)
    if "labels" in settings.metrics:
        check_labelled_sets(sets.values(), digits, reference)
    warnings = check_sets(sets, settings)
    features, description = _extract(sets, settings, cache, actors, gpus_per_actor, progress)
    warnings += check_dimension(features, settings)

    def tell(before: int, part: int, detail: str) -> None:
        if progress is not None:
            progress(before + part, 3 * len(names), detail)

    read: Result = {}
    if digits is not None and "modes" in settings.metrics:
        tell(0, 0, "modes covered")
        read["modes"] = count_modes(sets, digits, reference, seed)
    if digits is not None and "labels" in settings.metrics:
        tell(0, 0, "labels read")
        read["labels"] = label_agreement(sets, digits, reference, seed)
    sides = {"real": "reference"} | ({"base": "base"} if base is not None else {})
    results = []
    for number, name in enumerate(names):
        sides["model"] = name
        seen = {f"{metric}_{side}": found[key] for metric, found in read.items() for side, key in sides.items()}
        if "modes" in read:
            seen["modes_classifier"] = read["modes"]["classifier"]
        named = {side: features[key] for side, key in sides.items()}
        measured = _measure(named, settings, seed, list(warnings), partial(tell, 3 * number))
        results.append(measured | seen | {"extractor": description})
    tell(3 * len(names), 0, "done")
    return results


def _measure(
    features: dict[str, np.ndarray],
    settings: EvaluationSettings,
    seed: int,
    warnings: list[str],
    tell: Callable[[int, str], None],
) -> Result:
    """Distances and tests of the features of `model`, `real` and, if there is one, `base`, told in three parts."""
    real, model, base = features["real"], features["model"], features.get("base")
    details: dict[str, Any] = {}
    result: Result = dict.fromkeys(MEASURES)
    if "fid" in settings.metrics:
        tell(0, "Fréchet distances")
        found, detail = _frechet(real, model, base, settings.groups, seed)
        result |= found
        details |= detail
    if "kid" in settings.metrics:
        tell(1, "kernel distances")
        for name, generated in (("model", model), ("base", base)):
            if generated is not None:
                distance = kernel_distance(generated, real)
                result[f"kid_{name}"] = distance.mean
                details[f"kid_{name}"] = distance._asdict()
    result |= _neighbours(real, {"model": model, "base": base}, settings, tell)
    tell(2, "two-sample tests")
    found, detail = _tests(real, model, base, settings, seed, warnings)
    result |= found
    details |= detail
    return result | {
        "n_real": len(real),
        "n_generated": len(model),
        "warnings": warnings,
        "details": details,
    }


def _extract(
    sets: dict[str, str],
    settings: EvaluationSettings,
    cache: str | None,
    actors: int,
    gpus_per_actor: float | None,
    progress: Progress | None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    if gpus_per_actor is None:
        gpus = ray.cluster_resources().get("GPU", 0)
        gpus_per_actor = min(1.0, gpus / actors)

    def tell(farm: FarmProgress) -> None:
        if progress is not None:
            progress(farm.done, farm.total, f"features  {farm.rate:,.0f} samples a second")

    found = extract_feature_sets(
        list(sets.values()),
        settings.extractor,
        cache=cache,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        progress=tell,
    )
    return dict(zip(sets, found.features, strict=True)), found.extractor


def _frechet(
    real: np.ndarray, model: np.ndarray, base: np.ndarray | None, groups: int, seed: int
) -> tuple[Result, dict[str, Any]]:
    """FID of both against the real images, and their ratio with its paired jackknife interval."""

    def distances(
        of_real: FrechetStatistics, of_model: FrechetStatistics, of_base: FrechetStatistics
    ) -> tuple[float, float]:
        root = covariance_root(of_real)
        return (
            frechet_distance(of_model, of_real, root_of_b=root),
            frechet_distance(of_base, of_real, root_of_b=root),
        )

    if base is None:
        return {"fid_model": frechet_distance(FrechetStatistics.of(model), FrechetStatistics.of(real))}, {}
    fid_model, fid_base = distances(*(FrechetStatistics.of(side) for side in (real, model, base)))
    found: Result = {"fid_model": fid_model, "fid_base": fid_base}
    if fid_base == 0.0:
        return found, {}  # a base that is the data itself: there is no ratio to it

    whole, left_out = leave_groups_out(
        distances, *(split_into_groups(side, groups, seed) for side in (real, model, base))
    )
    ratio = jackknife_interval(whole[0] / whole[1], [of_model / of_base for of_model, of_base in left_out])
    difference = jackknife_interval(whole[0] - whole[1], [of_model - of_base for of_model, of_base in left_out])
    found |= {
        "fid_ratio": ratio.estimate,
        "fid_ratio_interval": [ratio.low, ratio.high],
        "fid_ratio_bias_corrected": ratio.bias_corrected,
        "fid_difference": difference.estimate,
        "fid_difference_interval": [difference.low, difference.high],
    }
    return found, {"fid_ratio": ratio._asdict(), "fid_difference": difference._asdict()}


def _neighbours(
    real: np.ndarray,
    sides: dict[str, np.ndarray | None],
    settings: EvaluationSettings,
    tell: Callable[[int, str], None],
) -> Result:
    """What the settings ask for of precision and recall, density and coverage, of each side that there is."""
    wanted = {
        metric: k
        for metric, k in (("precision_recall", PRECISION_NEIGHBOURS), ("density_coverage", DENSITY_NEIGHBOURS))
        if metric in settings.metrics
    }
    if not wanted:
        return {}
    tell(1, "neighbours")
    nearest = neighbours_of(real, max(wanted.values()))
    result: Result = {}
    for name, generated in sides.items():
        found: dict[str, float] = {}
        if generated is not None and "precision_recall" in wanted:
            found |= precision_recall(real, generated, nearest=nearest)._asdict()
        if generated is not None and "density_coverage" in wanted:
            found |= density_coverage(real, generated, nearest=nearest)._asdict()
        result |= {f"{measure}_{name}": value for measure, value in found.items()}
    return result


def _tests(
    real: np.ndarray,
    model: np.ndarray,
    base: np.ndarray | None,
    settings: EvaluationSettings,
    seed: int,
    warnings: list[str],
) -> tuple[Result, dict[str, Any]]:
    """The tests asked for; appends to `warnings` what had to be left out."""
    found: Result = {}
    details: dict[str, Any] = {}
    if "mmd" in settings.tests:
        order = np.random.default_rng(derive_seed(seed, "evaluate", "halves")).permutation(len(real))
        half = len(real) // 2
        pairs = {"mmd_model": (real, model), "mmd_null": (real[order[:half]], real[order[half : 2 * half]])}
        if base is not None:
            pairs["mmd_base"] = (real, base)
        for name, (x, y) in pairs.items():
            if min(len(x), len(y)) < 2:
                warnings.append(f"{name} was left out: a test needs at least two samples a side.")
                continue
            outcome = _mmd(x, y, settings, derive_seed(seed, "evaluate", name))
            found[name] = {key: getattr(outcome, key) for key in ("statistic", "p_value", "n", "m", "permutations")}
            details[name] = asdict(outcome)
    if "relative" in settings.tests and base is not None:
        n = min(len(real), len(model), len(base))
        if n < max(len(real), len(model), len(base)):
            warnings.append(f"The relative test takes equally many samples: the first {n} of each set were used.")
        relative = relative_mmd_test(
            real[:n],
            model[:n],
            base[:n],
            kernel=settings.kernel,
            bandwidth=settings.bandwidth,
            permutations=settings.permutations,
            level=settings.level,
            seed=derive_seed(seed, "evaluate", "mmd_relative"),
        )
        found["mmd_relative"] = {"statistic": relative.statistic, "p_value": relative.p_value}
        details["mmd_relative"] = asdict(relative)
    return found, details


def _mmd(
    x: np.ndarray, y: np.ndarray, settings: EvaluationSettings, seed: int, null: str = "permutation"
) -> TestResult:
    return mmd_test(
        x,
        y,
        kernel=settings.kernel,
        bandwidth=settings.bandwidth,
        null=null,
        permutations=settings.permutations,
        level=settings.level,
        seed=seed,
    )
