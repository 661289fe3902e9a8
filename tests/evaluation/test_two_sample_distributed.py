"""A test done in pieces is the test in one process: the same p-value, and the statistic to rounding."""

from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_test, relative_mmd_test
from gebm.evaluation.two_sample.distributed import (
    FeatureTable,
    Tiling,
    distributed_mmd_test,
    distributed_relative_test,
    table_of_file,
)
from gebm.evaluation.two_sample.distributed.table import Part, Points, table_of_parts

MakeTable = Callable[[np.ndarray, str], FeatureTable]
SMALL = Tiling(32, 64)  # four or more groups of two blocks, the last ones not full


@pytest.fixture
def make_table(tmp_path: Path) -> MakeTable:
    def make(values: np.ndarray, name: str) -> FeatureTable:
        np.save(tmp_path / f"{name}.npy", values)
        return table_of_file(str(tmp_path / f"{name}.npy"), name)

    return make


def draws(n: int, m: int, dimension: int = 5, dtype: type = np.float64) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n * m)
    x = rng.normal(size=(n, dimension)) + 40.0
    return x.astype(dtype), (1.15 * rng.normal(size=(m, dimension)) + 40.0).astype(dtype)


@pytest.mark.parametrize(
    ("null", "options"),
    [
        ("permutation", {}),
        ("permutation", {"statistic": "biased", "kernel": "polynomial"}),
        ("permutation", {"kernel": "gaussian+laplace+energy"}),
        ("permutation", {"bandwidth": [1.0, 2.0, 4.0]}),
        ("bins", {"bins": 40}),
        ("bins", {"bins": 9, "level": 0.2, "permutations": 19}),  # a bin is larger than a tile
        ("bins", {"statistic": "biased", "kernel": "linear"}),
        ("spectrum", {}),
        ("spectrum", {"statistic": "biased"}),
    ],
)
def test_a_test_of_unequal_samples_in_pieces_is_that_in_one_process(
    null: str, options: dict, make_table: MakeTable
) -> None:
    x, y = draws(190, 130)
    settings = {"permutations": 199, "seed": 3} | options | {"null": null}
    assert_same(mmd_test(x, y, **settings), in_pieces(x, y, make_table, settings))


@pytest.mark.parametrize(
    ("null", "options"),
    [
        ("sign_flip", {}),
        ("sign_flip", {"statistic": "unbiased", "kernel": "imq"}),
        ("sign_flip", {"statistic": "biased", "kernel": "polynomial"}),
        ("sign_flip", {"statistic": "block", "block": 7}),
        ("sign_flip", {"statistic": "linear_time"}),
        ("sign_flip", {"statistic": "incomplete", "block": 10, "reach": 6}),
        ("wild_bootstrap", {}),
        ("normal", {"block": 7}),
        ("normal", {"statistic": "linear_time"}),
        ("spectrum", {"statistic": "paired"}),
    ],
)
def test_a_test_of_pairs_in_pieces_is_that_in_one_process(null: str, options: dict, make_table: MakeTable) -> None:
    x, y = draws(210, 210)
    settings = {"permutations": 199, "seed": 4} | options | {"null": null}
    assert_same(mmd_test(x, y, **settings), in_pieces(x, y, make_table, settings))


@pytest.mark.parametrize("null", ["permutation", "sign_flip", "bins"])
def test_a_test_in_float32_in_pieces_has_the_p_value_of_that_in_one_process(null: str, make_table: MakeTable) -> None:
    x, y = draws(700, 700, 30, np.float32)
    expected = mmd_test(x, y, null=null, permutations=99, seed=5)
    found = in_pieces(x, y, make_table, {"null": null, "permutations": 99, "seed": 5}, Tiling(128, 512))
    assert found.p_value == expected.p_value
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-7)


def test_the_relative_test_in_pieces_is_that_in_one_process(make_table: MakeTable) -> None:
    x, model = draws(150, 150)
    base = model + 0.3
    expected = relative_mmd_test(x, model, base, permutations=199, seed=6)
    tables = [make_table(values, name) for values, name in ((x, "x"), (model, "model"), (base, "base"))]
    found = distributed_relative_test(*tables, permutations=199, seed=6, tiling=SMALL)
    assert_same(expected, found)


def test_rows_are_found_in_whatever_files_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(90, 3)).astype(np.float32)
    parts, bounds = [], [0, 20, 21, 60, 90]
    for start, stop in pairwise(bounds):
        np.save(tmp_path / f"{start}.npy", values[start:stop].astype(np.float16 if start == 21 else np.float32))
        parts.append(Part(str(tmp_path / f"{start}.npy"), stop - start))
    values[21:60] = values[21:60].astype(np.float16)
    table = table_of_parts(parts, 3, [str(start) for start in bounds[:-1]], "x")
    assert len(table) == 90
    index = np.random.default_rng(1).permutation(180)[:70]
    found = Points([table, table], np.array([1.0, 2.0, 3.0])).rows(index)
    np.testing.assert_array_equal(found, values[index % 90] - np.float32([1, 2, 3]))
    (tmp_path / "60.npy").unlink()
    with pytest.raises(InputError, match=r"60\.npy of x is not there"):
        Points([table], None).rows(np.array([5, 70]))


def test_rounding_to_bfloat16_changes_the_statistic_little_and_an_equal_sample_not_at_all(
    make_table: MakeTable,
) -> None:
    x, y = draws(700, 700, 30, np.float32)
    expected = mmd_test(x, y, permutations=99, seed=5)
    spread = expected.threshold - expected.statistic
    found = in_pieces(x, y, make_table, {"permutations": 99, "seed": 5, "precision": "bf16"}, Tiling(128, 512))
    assert found.statistic != expected.statistic
    assert found.statistic == pytest.approx(expected.statistic, abs=0.02 * abs(spread))
    assert found.threshold == pytest.approx(expected.threshold, abs=0.02 * abs(spread))
    with pytest.raises(InputError, match="bf16 is for bounded kernels of Euclidean distances"):
        in_pieces(x, y, make_table, {"kernel": "energy", "precision": "bf16"})


def test_samples_and_settings_that_do_not_fit_are_refused(make_table: MakeTable) -> None:
    x, y = draws(40, 30)
    with pytest.raises(InputError, match="x has 40 points and y has 30; use null='permutation'"):
        in_pieces(x, y, make_table, {"null": "sign_flip"})
    with pytest.raises(InputError, match="name the null of a distributed test"):
        in_pieces(x, y, make_table, {"null": "auto"})
    with pytest.raises(InputError, match="no precision 'float16'; there are float32, bf16"):
        in_pieces(x, y, make_table, {"precision": "float16"})
    with pytest.raises(InputError, match="x has dimension 5 and y has 4"):
        in_pieces(x, y[:, 1:], make_table, {})
    y[3, 2], y[7, 1] = np.nan, np.inf
    with pytest.raises(InputError, match="y: 2 of 30 points hold NaN or infinity"):
        in_pieces(x, y, make_table, {})


def in_pieces(x: np.ndarray, y: np.ndarray, make_table: MakeTable, settings: dict, tiling: Tiling = SMALL):
    return distributed_mmd_test(make_table(x, "x"), make_table(y, "y"), tiling=tiling, **settings)


def assert_same(expected: object, found: object) -> None:
    """All fields, numbers to rounding."""
    left, right = (asdict(result) for result in (expected, found))  # type: ignore[call-overload]
    for name in ("statistic", "threshold", "standard_error", "z", "p_value", "bandwidth"):
        if name in left:
            numbers = [value if isinstance(value, tuple) else (value,) for value in (right.pop(name), left.pop(name))]
            for got, wanted in zip(*numbers, strict=True):
                assert got == wanted or got == pytest.approx(wanted, rel=1e-7, abs=1e-12), name
    assert right == left
