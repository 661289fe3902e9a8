"""The power of all two-sample tests on Blob and HDGM, by the protocol of the deep-kernel paper.

`python -m tests.benchmarks.two_sample_power RESULTS [--problem blob|hdgm] [--sizes 10,20] [--methods mmd-d,mmd-o]
[--kernels 10] [--tests 100] [--seconds 280]`

For every size, 10 times: a training pair, on which a method learns, and 100 fresh test pairs of the same size. A method
that learns nothing gets training and test points together, twice as many. What is finished is kept in RESULTS, one
JSON file for each training pair: a second run goes on where the first one stopped, and `--seconds` starts nothing new
after so long. Every run writes RESULTS/power.md and RESULTS/power.png from all that is there.

Sizes: Blob, points per blob, 9 times as many a sample; HDGM, `N` points of both samples together, or `N:d`, N/4 points
in each of the four clusters, d = 10 where left out.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from gebm.cluster import storage
from gebm.cluster.randomness import derive_seed
from tests.benchmarks.two_sample_power_methods import FAMILIES, Training
from tests.benchmarks.two_sample_power_table import draw, read, table
from tests.benchmarks.two_sample_problems import Pair, blob, hdgm

SIZES = {
    "blob": ["10", "20", "40", "50", "70", "80", "90", "100"],
    "hdgm": ["4000", "6000", "8000", "10000", "4000:5", "4000:15", "4000:20", "4000:30"],
}


def sample(problem: str, size: str, seed: int, item: str, times: int = 1) -> Pair:
    """A pair of samples, or one of `times` the size."""
    rng = np.random.default_rng(derive_seed(seed, f"{problem} {size}", item))
    if problem == "blob":
        return blob(rng, times * int(size))
    count, _, dimension = size.partition(":")
    return hdgm(rng, times * int(count) // 4, int(dimension or 10))


def measure(problem: str, size: str, family_name: str, kernel: int, tests: int) -> dict:
    """What a family's tests say of `tests` fresh pairs after learning on training pair number `kernel`."""
    family = FAMILIES[family_name]
    begun = time.perf_counter()
    x, y = sample(problem, size, 0, f"train {kernel}")
    testers = family.learn(Training(x, y, problem, kernel))
    learnt = time.perf_counter()
    exceedances: dict[str, list[int]] = {name: [] for name in testers}
    for test in range(tests):
        pair = sample(problem, size, 0, f"test {kernel} {test}", times=2 if family.takes_all else 1)
        for name, tester in testers.items():
            exceedances[name].append(tester(*pair, 1000 * kernel + test))
    return {
        "problem": problem,
        "size": size,
        "family": family_name,
        "kernel": kernel,
        "tests": tests,
        "exceedances": exceedances,
        "learning_seconds": learnt - begun,
        "testing_seconds": time.perf_counter() - learnt,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", metavar="RESULTS", help="folder of results")
    parser.add_argument("--problem", choices=list(SIZES), action="append", help="all by default")
    parser.add_argument("--sizes", help="by commas; the paper's by default")
    parser.add_argument("--methods", default=",".join(FAMILIES), help="by commas: " + ", ".join(FAMILIES))
    parser.add_argument("--kernels", type=int, default=10, help="training pairs for each size")
    parser.add_argument("--tests", type=int, default=100, help="test pairs for each training pair")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="start nothing new after so many")
    options = parser.parse_args(arguments)
    folder, begun = Path(options.results), time.perf_counter()
    left = 0
    for problem in options.problem or SIZES:
        for size in options.sizes.split(",") if options.sizes else SIZES[problem]:
            for family in options.methods.split(","):
                for kernel in range(options.kernels):
                    path = folder / f"{problem}-{size.replace(':', 'd')}-{family}-{kernel}.json"
                    if path.exists() and json.loads(path.read_text())["tests"] >= options.tests:
                        continue
                    if time.perf_counter() - begun > options.seconds:
                        left += 1
                        continue
                    found = measure(problem, size, family, kernel, options.tests)
                    storage.write_json_atomic(storage.absolute(str(path)), found)
                    powers = {name: float(np.mean(np.array(v) <= 9)) for name, v in found["exceedances"].items()}
                    print(path.name, powers, f"{found['learning_seconds']:.0f} s", flush=True)
    results = read(folder)
    (folder / "power.md").write_text(table(results))
    draw(results, folder / "power.png")
    print(table(results))
    if left:
        print(f"{left} training pairs are left: run this again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
