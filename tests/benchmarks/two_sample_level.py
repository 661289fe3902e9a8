"""How often two-sample tests reject when both samples are from one distribution.

`python -m tests.benchmarks.two_sample_level [--quick] [--json FILE] [--only TEXT]`: 2,000 repetitions (`--quick`: 200)
of every form at level 0.05 on Gaussian, heavy-tailed (Cauchy) and discrete data, of equal and of unequal size. An exact
null must stay within the 99.9% binomial interval of the level; where ties make it conservative (discrete data, MMDAgg),
below its upper end. Of an asymptotic null the true size is stated. Ends with status 1 if an exact null leaves its
interval.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import binom

from gebm.cluster import storage
from gebm.evaluation.two_sample import aggregated_mmd_test, mmd_interval, mmd_test, relative_mmd_test
from gebm.evaluation.two_sample.learnt import (
    ClassifierSettings,
    DeepKernelSettings,
    LocationSettings,
    learnt_feature_test,
    learnt_mmd_test,
)

LEVEL = 0.05
CONFIDENCE = 0.999
PERMUTATIONS, MANY_PERMUTATIONS = 39, 199
EQUAL, UNEQUAL, SOME, MANY = (24, 24), (24, 15), (200, 150), (1024, 1024)

Draw = Callable[[np.random.Generator, int], np.ndarray]
Test = Callable[[np.ndarray, np.ndarray, int], bool]


def gaussian(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.normal(size=(n, 2))


def cauchy(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.standard_cauchy(size=(n, 2)) + 100.0


def discrete(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.integers(0, 3, size=(n, 1)).astype(float)


DATA: dict[str, Draw] = {"gaussian": gaussian, "cauchy": cauchy, "discrete": discrete}


class Form(NamedTuple):
    """A form of a test.

    Attributes:
        rejects: `(x, y, seed)`, whether it rejects.
        exact: whether its level is exact.
        sizes: `(n, m)` that it is tried at.
        ties: whether its statistic ties even on continuous data, which makes it conservative.
    """

    rejects: Test
    exact: bool
    sizes: tuple[tuple[int, int], ...]
    ties: bool = False


def mmd(exact: bool, *sizes: tuple[int, int], **options: object) -> Form:
    """`mmd_test` with these options."""

    def rejects(x: np.ndarray, y: np.ndarray, seed: int) -> bool:
        return mmd_test(x, y, permutations=PERMUTATIONS, level=LEVEL, seed=seed, **options).reject  # type: ignore[arg-type]

    return Form(rejects, exact, sizes)


def aggregated(method: str, *sizes: tuple[int, int], **options: object) -> Form:
    """`aggregated_mmd_test` with these options. MMDAgg's statistic is a smallest rank: several labellings share it."""

    def rejects(x: np.ndarray, y: np.ndarray, seed: int) -> bool:
        settings = {"bandwidths": 4, "permutations": MANY_PERMUTATIONS, "level": LEVEL, "seed": seed} | options
        return aggregated_mmd_test(x, y, method=method, **settings).reject  # type: ignore[arg-type]

    return Form(rejects, True, sizes, ties=method == "mmdagg")


def relative_sign_flips(x: np.ndarray, y: np.ndarray, seed: int) -> bool:
    """Model and base have one law, the data another."""
    data = np.random.default_rng([seed, 9]).normal(size=x.shape)
    return relative_mmd_test(data, x, y, permutations=PERMUTATIONS, level=LEVEL, seed=seed).sign_flip_p_value <= LEVEL


def interval_misses_zero(x: np.ndarray, y: np.ndarray, seed: int) -> bool:
    return mmd_interval(x, y, groups=5, confidence=1 - LEVEL, seed=seed).low > 0.0


# Few steps, but long ones: what is learnt fits its points too well, so that testing on them would show.
DEEP = DeepKernelSettings(width=8, steps=8, learning_rate=0.03)
CLASSIFIER = ClassifierSettings(width=8, steps=15, learning_rate=0.03)
LOCATED = LocationSettings(count=2, steps=8, learning_rate=0.3)


def learnt_kernel(kernel: str, *sizes: tuple[int, int], **options: object) -> Form:
    """`learnt_mmd_test` with these options."""

    def rejects(x: np.ndarray, y: np.ndarray, seed: int) -> bool:
        settings = {"permutations": PERMUTATIONS, "level": LEVEL, "seed": seed} | options
        return learnt_mmd_test(x, y, kernel=kernel, **settings).reject  # type: ignore[arg-type]

    return Form(rejects, True, sizes)


def learnt_features(method: str, settings: object, *sizes: tuple[int, int]) -> Form:
    """`learnt_feature_test` with these settings. The statistic of C2ST-S is a count: several labellings share it."""

    def rejects(x: np.ndarray, y: np.ndarray, seed: int) -> bool:
        options = {"permutations": PERMUTATIONS, "level": LEVEL, "seed": seed}
        return learnt_feature_test(x, y, method=method, settings=settings, **options).reject  # type: ignore[arg-type]

    return Form(rejects, True, sizes, ties=method == "c2st-s")


FORMS: dict[str, Form] = {
    "permutation, unbiased": mmd(True, EQUAL, UNEQUAL, null="permutation"),
    "permutation, biased": mmd(True, EQUAL, UNEQUAL, null="permutation", statistic="biased"),
    "permutation, sum of kernels": mmd(True, EQUAL, UNEQUAL, kernel="laplace+energy+polynomial"),
    "sign flips, paired": mmd(True, EQUAL, null="sign_flip"),
    "sign flips, blocks": mmd(True, EQUAL, null="sign_flip", statistic="block", block=6),
    "sign flips, incomplete": mmd(True, EQUAL, null="sign_flip", statistic="incomplete", block=3, reach=2),
    "sign flips, linear time": mmd(True, EQUAL, null="sign_flip", statistic="linear_time"),
    "bins of one": mmd(True, EQUAL, UNEQUAL, null="bins"),
    "bins of three, biased": mmd(True, EQUAL, UNEQUAL, null="bins", statistic="biased", bins=13),
    "MMDAgg, permutation": aggregated("mmdagg", EQUAL, UNEQUAL, null="permutation"),
    "MMDAgg, bins": aggregated("mmdagg", EQUAL, UNEQUAL, null="bins", bins=13),
    "FUSE, permutation": aggregated("fuse", EQUAL, UNEQUAL, null="permutation"),
    "FUSE, bins": aggregated("fuse", EQUAL, UNEQUAL, null="bins", bins=13),
    "relative, sign flips": Form(relative_sign_flips, True, (EQUAL,)),
    "MMD-O": learnt_kernel("mmd-o", EQUAL, statistic="unbiased"),
    "MMD-O with training half": learnt_kernel("mmd-o", EQUAL, UNEQUAL),
    "MMD-D": learnt_kernel("mmd-d", EQUAL, statistic="unbiased", settings=DEEP),
    "MMD-D with training half": learnt_kernel("mmd-d", EQUAL, UNEQUAL, settings=DEEP),
    "MMD-D, sign flips": learnt_kernel("mmd-d", EQUAL, settings=DEEP, null="sign_flip"),
    "C2ST-S": learnt_features("c2st-s", CLASSIFIER, EQUAL),
    "C2ST-L": learnt_features("c2st-l", CLASSIFIER, EQUAL, UNEQUAL),
    "ME": learnt_features("me", LOCATED, EQUAL, UNEQUAL),
    "SCF": learnt_features("scf", LOCATED, EQUAL),
    "spectrum, unbiased": mmd(False, EQUAL, UNEQUAL, SOME, null="spectrum"),
    "spectrum, biased": mmd(False, EQUAL, UNEQUAL, SOME, null="spectrum", statistic="biased"),
    "spectrum, paired": mmd(False, EQUAL, null="spectrum", statistic="paired"),
    "normal, linear time": mmd(False, EQUAL, MANY, null="normal", statistic="linear_time"),
    "normal, blocks of 16": mmd(False, MANY, null="normal", statistic="block", block=16),
    "normal, blocks of 128": mmd(False, MANY, null="normal", statistic="block", block=128),
    "jackknife interval misses 0": Form(interval_misses_zero, False, (EQUAL, UNEQUAL)),
}


@dataclass(frozen=True)
class Size:
    """How often a form rejected; `low` and `high` bound what an exact one may, None where there is no bound."""

    form: str
    data: str
    n: int
    m: int
    exact: bool
    repetitions: int
    rejections: int
    low: int | None
    high: int | None

    @property
    def holds(self) -> bool:
        above = self.low is None or self.rejections >= self.low
        return above and (self.high is None or self.rejections <= self.high)


def measure(form_name: str, data: str, n: int, m: int, repetitions: int) -> Size:
    """Rejections of a form in `repetitions` pairs of samples of one distribution."""
    form, draw = FORMS[form_name], DATA[data]
    rejections = 0
    for repetition in range(repetitions):
        rng = np.random.default_rng([repetition, n, m, list(DATA).index(data)])
        rejections += form.rejects(draw(rng, n), draw(rng, m), repetition)
    low, high = (int(bound) for bound in binom.ppf([(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], repetitions, LEVEL))
    ties = form.ties or data == "discrete"
    return Size(
        form_name,
        data,
        n,
        m,
        form.exact,
        repetitions,
        rejections,
        low if form.exact and not ties else None,
        high if form.exact else None,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 repetitions")
    parser.add_argument("--json", metavar="FILE", help="file that gets the table")
    parser.add_argument(
        "--only", metavar="TEXT", default="", help="cells whose name, as in `bins of one, gaussian, 24, 15`, holds this"
    )
    options = parser.parse_args(arguments)
    repetitions = 200 if options.quick else 2000
    begun = time.perf_counter()
    cells = [(name, data, n, m) for name, form in FORMS.items() for n, m in form.sizes for data in DATA]
    chosen = [cell for cell in cells if options.only in ", ".join(str(part) for part in cell)]
    sizes = [measure(*cell, repetitions) for cell in chosen]
    table = Table(
        "form", "data", "n", "m", "size", "allowed", title=f"Size at level {LEVEL}, {repetitions} repetitions"
    )
    for size in sizes:
        allowed = (
            "asymptotic"
            if not size.exact
            else f"{(size.low or 0) / repetitions:.4f} to {(size.high or 0) / repetitions:.4f}"
        )
        mark = "" if size.holds else "  outside"
        rate = f"{size.rejections / repetitions:.4f}{mark}"
        table.add_row(size.form, size.data, str(size.n), str(size.m), rate, allowed)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"{time.perf_counter() - begun:.0f} s")
    if options.json:
        storage.write_json_atomic(storage.absolute(options.json), [asdict(size) for size in sizes])
    return 0 if all(size.holds for size in sizes) else 1


if __name__ == "__main__":
    sys.exit(main())
