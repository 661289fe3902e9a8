"""Statistics and nulls compose where the mathematics allows it, and say why where it does not."""

from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import norm

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_test
from gebm.evaluation.two_sample.compositions import NULLS, STATISTICS, compose
from gebm.evaluation.two_sample.designs import Design, Signs, block_values, design_forms
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.nulls import bins as bins_module
from gebm.evaluation.two_sample.nulls.bins import bin_sums, labelled_bin_sums
from gebm.evaluation.two_sample.nulls.normal import normal_null
from gebm.evaluation.two_sample.nulls.spectrum import draw_limit, eigenvalues
from gebm.evaluation.two_sample.samples import prepare_rows
from gebm.evaluation.two_sample.shuffles import Pairs
from gebm.evaluation.two_sample.tiles import labelled_sums
from tests.evaluation.test_two_sample_agreement import brute_force, dense_kernel

VALID = [(statistic, null) for null, kind in NULLS.items() for statistic in kind.statistics]
INVALID = [pair for pair in product(STATISTICS, NULLS) if pair not in VALID]


def two_samples(n: int = 64, m: int = 64, shift: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    return rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) * 1.2 + shift


def biased(x: np.ndarray, y: np.ndarray, name: str, s: float) -> float:
    return float(sum(w * dense_kernel(a, b, name, s).mean() for w, a, b in ((1, x, x), (1, y, y), (-2, x, y))))


def pair_matrix(u: np.ndarray, v: np.ndarray, s: float) -> np.ndarray:
    """H of the pairs, its diagonal left out."""
    uu, vv, uv = (dense_kernel(a, b, "gaussian", s) for a, b in ((u, u), (v, v), (u, v)))
    h = uu + vv - uv - uv.T
    np.fill_diagonal(h, 0.0)
    return h


@pytest.mark.parametrize(("statistic", "null"), VALID)
def test_every_valid_combination_finds_a_difference(statistic: str, null: str) -> None:
    x, y = two_samples(400, 400, shift=1.0)
    result = mmd_test(x, y, statistic=statistic, null=null, permutations=199, reach=2)
    assert result.reject
    assert result.statistic > result.threshold
    assert (result.statistic_name, result.null, result.exact) == (statistic, null, NULLS[null].exact)
    assert result == mmd_test(x, y, statistic=statistic, null=null, permutations=199, reach=2)


@pytest.mark.parametrize(("statistic", "null"), INVALID)
def test_every_other_combination_says_why_and_what_to_take_instead(statistic: str, null: str) -> None:
    with pytest.raises(InputError, match=f"null='{null}' .*: take (null|statistic)="):
        compose(statistic, null)


def test_the_wild_bootstrap_is_the_sign_flips_of_blocks() -> None:
    x, y = two_samples()
    assert mmd_test(x, y, null="wild_bootstrap") == mmd_test(x, y, statistic="block", null="sign_flip")


@pytest.mark.parametrize("kernel", ["gaussian", "polynomial"])
@pytest.mark.parametrize("null", ["permutation", "bins", "spectrum"])
def test_unequal_sizes_where_all_pairs_are_used(kernel: str, null: str) -> None:
    x, y = two_samples(64, 40)
    for statistic, expected in (
        ("unbiased", lambda s: brute_force(x, y, kernel, s)[0]),
        ("biased", lambda s: biased(x, y, kernel, s)),
    ):
        result = mmd_test(x, y, kernel=kernel, statistic=statistic, null=null, permutations=99)
        assert result.statistic == pytest.approx(expected(result.bandwidth or 1.0), abs=1e-9)
        assert result.points_used == 104


@pytest.mark.parametrize(("statistic", "null"), [("paired", "spectrum"), ("block", "normal"), ("block", "sign_flip")])
def test_unequal_sizes_are_refused_where_pairs_are_needed(statistic: str, null: str) -> None:
    with pytest.raises(InputError, match="x has 64 points and y has 40; use"):
        mmd_test(*two_samples(64, 40), statistic=statistic, null=null)


@pytest.mark.parametrize("kernel", ["gaussian", "polynomial"])
def test_statistics_of_pairs_are_affine_in_each_other(kernel: str) -> None:
    """Each with its own value, all with one p-value."""
    x, y = two_samples(shift=0.3)
    results = {
        s: mmd_test(x, y, kernel=kernel, statistic=s, null="sign_flip") for s in ("paired", "unbiased", "biased")
    }
    assert len({result.p_value for result in results.values()}) == 1
    s = results["paired"].bandwidth or 1.0
    assert results["unbiased"].statistic == pytest.approx(brute_force(x, y, kernel, s)[0], abs=1e-9)
    assert results["biased"].statistic == pytest.approx(biased(x, y, kernel, s), abs=1e-9)


@pytest.mark.parametrize(
    "design", [Design(2, 500, 0), Design(2, 500, 3), Design(7, 142, 0), Design(100, 9, 4), Design(5, 3, 1)]
)
def test_designs_agree_with_the_stored_pair_matrix(design: Design) -> None:
    rng = np.random.default_rng(0)
    u, v = rng.normal(size=(1000, 3)), rng.normal(size=(1000, 3)) + 0.3
    kernel = Kernel("gaussian", 1.5, 3)
    rows = [prepare_rows(torch.from_numpy(side), kernel) for side in (u, v)]
    n = design.pairs
    true = torch.from_numpy(rng.choice([-1, 1], size=n).astype(np.int8))
    signs = Signs(true, 12, rng)
    forms, magnitude = design_forms(*rows, kernel, design, signs)
    h = pair_matrix(u[:n], v[:n], 1.5)
    block = np.arange(n) // design.block
    apart = (block[:, None] - block[None, :]) % design.blocks
    h *= np.minimum(apart, design.blocks - apart) <= design.reach
    eps = 2.0 * signs.rows(0, n).numpy().T - 1.0
    np.testing.assert_allclose(forms, np.einsum("pi,ij,pj->p", eps, h, eps, optimize=True), atol=1e-8 * design.entries)
    assert np.array_equal(eps[signs.position], true.numpy())
    assert design.entries == (np.minimum(apart, design.blocks - apart) <= design.reach).sum() - n
    assert 0.1 * design.entries < magnitude <= 4.0 * (design.entries + n)
    values, _ = block_values(*rows, kernel, design, true)
    diagonal = [eps[signs.position][block == b] for b in range(design.blocks)]
    expected = [e @ h[np.ix_(block == b, block == b)] @ e for b, e in enumerate(diagonal)]
    np.testing.assert_allclose(values, np.array(expected) / (design.block * (design.block - 1)), atol=1e-9)


def test_the_widest_design_is_the_complete_statistic() -> None:
    x, y = two_samples(63, 63, shift=0.3)
    complete = mmd_test(x, y, null="sign_flip")
    wide = mmd_test(x, y, statistic="incomplete", null="sign_flip", block=9, reach=3)
    assert wide.statistic == pytest.approx(complete.statistic, abs=1e-12)


def test_a_normal_null_has_the_mean_and_the_error_of_its_blocks() -> None:
    x, y = two_samples(100, 100, shift=0.3)
    kernel = Kernel("gaussian", 1.5, 3)
    first, second = (prepare_rows(torch.from_numpy(side), kernel) for side in (x, y))
    null = normal_null(Pairs(first, second, torch.ones(100, dtype=torch.int8), kernel), Design(10, 10, 0))
    h = pair_matrix(x, y, 1.5)
    values = np.array([h[i : i + 10, i : i + 10].sum() / 90 for i in range(0, 100, 10)])
    assert null.observed == pytest.approx(values.mean(), abs=1e-12)
    assert null.standard_error == pytest.approx(values.std(ddof=1) / 10**0.5, rel=1e-9)
    assert null.p_value() == pytest.approx(norm.sf(null.observed / null.standard_error))
    assert null.threshold(0.05) == pytest.approx(1.6448536 * null.standard_error, rel=1e-6)


@pytest.mark.parametrize("tile_rows", [16, 100, 1024])
@pytest.mark.parametrize("size", [1, 7, 40])
def test_bin_sums_agree_with_the_sums_of_all_points(monkeypatch: pytest.MonkeyPatch, tile_rows: int, size: int) -> None:
    """Whole bins in a tile, and bins that take several."""
    monkeypatch.setattr(bins_module, "TILE_ROWS", tile_rows)
    rng = np.random.default_rng(2)
    points = rng.normal(size=(280, 3))
    kernel = Kernel("gaussian", 1.5, 3)
    rows = prepare_rows(torch.from_numpy(points), kernel)
    sums = bin_sums(rows, size, [kernel])[0]
    labels = torch.from_numpy(rng.integers(0, 2, size=(5, 280 // size)).astype(np.uint8))
    found = labelled_bin_sums(sums, labels)
    expected = labelled_sums(rows, kernel, labels.repeat_interleave(size, 1))
    for field in ("within", "touching", "total", "squares", "magnitude"):
        np.testing.assert_allclose(getattr(found, field), getattr(expected, field), rtol=1e-9)
    np.testing.assert_allclose(sums.matrix, sums.matrix.T, rtol=1e-12)


def test_bins_leave_out_a_remainder_and_say_so() -> None:
    result = mmd_test(*two_samples(103, 58), null="bins", bins=16)
    assert (result.bins, result.points_used) == (15, 150)  # 10 to a bin: 10 bins and 5


def test_the_spectrum_is_that_of_the_centred_kernel_matrix() -> None:
    points = np.random.default_rng(3).normal(size=(50, 2))
    kernel = Kernel("polynomial", 1.0, 2)
    centre = np.eye(50) - 1 / 50
    expected = np.linalg.eigvalsh(centre @ dense_kernel(points, points, "polynomial", 1.0) @ centre / 50)
    found = eigenvalues(prepare_rows(torch.from_numpy(points), kernel), kernel)
    np.testing.assert_allclose(found, expected[-len(found) :], atol=1e-10)
    assert found.sum() == pytest.approx(expected.sum(), rel=1e-9)


def test_the_limit_has_its_mean_and_variance() -> None:
    """40,000 draws: within 4.5 standard errors, left at a rate of 1e-5."""
    values = torch.tensor([0.1, 0.3, 1.0], dtype=torch.float64)
    limit = draw_limit(values, 40_000, np.random.default_rng(4))
    variance = 2 * float((values**2).sum())
    assert len(limit.squares) == 40_000
    assert limit.mean == pytest.approx(1.4)
    assert abs(float(limit.squares.mean()) - 1.4) <= 4.5 * (variance / 40_000) ** 0.5
    assert float(limit.squares.var()) == pytest.approx(variance, rel=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"statistic": "median"}, "no statistic 'median'; there are unbiased"),
        (
            {"statistic": "block", "null": "normal", "block": 1},
            "64 pairs do not make 2 blocks of 1; take between 2 and 32",
        ),
        ({"statistic": "block", "null": "normal", "block": 33}, "do not make 2 blocks of 33"),
        ({"statistic": "incomplete", "null": "sign_flip", "block": 8, "reach": 4}, "a reach of 0 to 3, got 4"),
        ({"null": "bins", "bins": 6}, "3 bins of x and 3 of y have 10 different labellings, too few for level 0.05"),
    ],
)
def test_a_form_that_cannot_be_is_one_clear_error(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mmd_test(*two_samples(), **options)
