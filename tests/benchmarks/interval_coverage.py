"""How often intervals of FID hold what they should, and how often the relative test is wrong and right.

`python -m tests.benchmarks.interval_coverage [--quick] [--only intervals|relative]`, one thread, a minute or two.

Intervals at 95%, of the ratio and the difference of FIDs (model, base) and of the model's FID alone, on Gaussian
features of d = 16 whose FID is known, n/d = 1, 2 and 6: the paired delete-group jackknife of `gebm evaluate`, and
beside it the percentile bootstrap. FID is biased at finite n, so there are two things to hold: the value of infinitely
many samples, and the mean of estimates at this n. Over 500 repetitions a rate near 0.95 has a standard error of 0.01.

The relative test at level 0.05, n = 100: base and model of one law (its level), and a model that is closer (its power).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from gebm.cluster.randomness import derive_seed
from gebm.evaluation.frechet import FrechetStatistics, covariance_root, frechet_distance
from gebm.evaluation.jackknife import JackknifeInterval, jackknife_interval, leave_groups_out, split_into_groups
from gebm.evaluation.two_sample import relative_mmd_test

DIMENSION, GROUPS, RESAMPLES, CONFIDENCE = 16, 20, 100, 0.95
REPETITIONS, AT_N_REPETITIONS = 500, 2000
RELATIVE_N, RELATIVE_REPETITIONS = 100, 1000
MODEL, BASE = (0.3, 1.3**0.5), (0.5, 1.6**0.5)  # offset of every coordinate, and its standard deviation
QUANTITIES = ("ratio", "difference", "model's FID")

Samples = list[np.ndarray]


def draw(rng: np.random.Generator, n: int) -> Samples:
    """Real samples, those of the model and those of the base, `(n, d)` each."""
    laws = ((0.0, 1.0), MODEL, BASE)
    return [offset + spread * rng.normal(size=(n, DIMENSION)) for offset, spread in laws]


def distances(real: FrechetStatistics, model: FrechetStatistics, base: FrechetStatistics) -> np.ndarray:
    """The QUANTITIES of three samples."""
    root = covariance_root(real)
    of_model, of_base = (frechet_distance(side, real, root_of_b=root) for side in (model, base))
    return np.array([of_model / of_base, of_model - of_base, of_model])


def at_infinity() -> np.ndarray:
    """The QUANTITIES of the laws: `d (offset² + (spread - 1)²)` is a law's FID."""
    of_model, of_base = (DIMENSION * (offset**2 + (spread - 1) ** 2) for offset, spread in (MODEL, BASE))
    return np.array([of_model / of_base, of_model - of_base, of_model])


def jackknives(sides: Samples, seed: int) -> list[JackknifeInterval]:
    """The intervals of `gebm evaluate`, one for each quantity."""
    groups = min(GROUPS, len(sides[0]) // 2)
    whole, left_out = leave_groups_out(distances, *(split_into_groups(side, groups, seed) for side in sides))
    return [jackknife_interval(whole[k], [float(each[k]) for each in left_out]) for k in range(len(QUANTITIES))]


def bootstraps(sides: Samples, rng: np.random.Generator) -> np.ndarray:
    """Low and high ends of percentile intervals, `(2, quantities)`: each side resampled with replacement."""
    n = len(sides[0])
    found = [
        distances(*(FrechetStatistics.of(side[rng.integers(n, size=n)]) for side in sides)) for _ in range(RESAMPLES)
    ]
    return np.quantile(found, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], axis=0)


def coverage(ratio: int, repetitions: int, at_n_repetitions: int) -> list[str]:
    """Rows of the table for n = ratio * d."""
    n = ratio * DIMENSION
    rng = np.random.default_rng(derive_seed(0, "coverage", n))
    at_n = np.mean([distances(*map(FrechetStatistics.of, draw(rng, n))) for _ in range(at_n_repetitions)], axis=0)
    limit, held = at_infinity(), np.zeros((5, len(QUANTITIES)))
    for repetition in range(repetitions):
        sides = draw(rng, n)
        intervals = jackknives(sides, repetition)
        low, high = np.array([(each.low, each.high) for each in intervals]).T
        estimate = np.array([each.estimate for each in intervals])
        boot_low, boot_high = bootstraps(sides, rng)
        held += [
            (low <= at_n) & (at_n <= high),
            (low <= limit) & (limit <= high),
            (boot_low <= at_n) & (at_n <= boot_high),
            (boot_low <= limit) & (limit <= boot_high),
            (boot_low <= estimate) & (estimate <= boot_high),
        ]
    return [
        f"| {ratio} | {name} | {at_n[k]:.3f} | {limit[k]:.3f} | "
        + " | ".join(f"{rate:.3f}" for rate in held[:, k] / repetitions)
        + " |"
        for k, name in enumerate(QUANTITIES)
    ]


def relative(closer: bool, repetitions: int) -> str:
    """Row of the table of the relative test: rejections by its normal null, and by sign flips."""
    normal = flips = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng(derive_seed(0, "relative", repetition))
        real, model, base = draw(rng, RELATIVE_N)
        if not closer:
            model = BASE[0] + BASE[1] * rng.normal(size=base.shape)
        found = relative_mmd_test(real, model, base, permutations=199, seed=repetition)
        normal += found.reject
        flips += found.sign_flip_p_value <= found.level
    law = "model closer" if closer else "one law"
    return f"| {law} | {normal / repetitions:.3f} | {flips / repetitions:.3f} |"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--only", choices=("intervals", "relative"))
    options = parser.parse_args(arguments)
    if options.only != "relative":
        print(
            "| n/d | of | mean at n | at infinity | jackknife holds: at n | at infinity | bootstrap holds: at n ",
            end="",
        )
        print("| at infinity | its own estimate |\n|---|---|---|---|---|---|---|---|---|")
        for ratio in (1, 2, 6):
            rows = coverage(ratio, *((10, 50) if options.quick else (REPETITIONS, AT_N_REPETITIONS)))
            print("\n".join(rows), flush=True)
    if options.only != "intervals":
        print(f"\n| base and model, n = {RELATIVE_N} | relative test rejects | its exact companion |\n|---|---|---|")
        for closer in (False, True):
            print(relative(closer, 20 if options.quick else RELATIVE_REPETITIONS), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
