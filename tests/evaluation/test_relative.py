"""The relative-similarity test: is the model closer to the data than its base?"""

from itertools import product

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import relative_mmd_test
from tests.evaluation.test_two_sample_agreement import dense_kernel


def h_matrix(x: np.ndarray, model: np.ndarray, base: np.ndarray, s: float) -> np.ndarray:
    """The paired kernel h of MATH section 4, diagonal left out."""

    def k(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return dense_kernel(a, b, "gaussian", s)

    h = k(base, base) - k(x, base) - k(base, x) - (k(model, model) - k(x, model) - k(model, x))
    np.fill_diagonal(h, 0.0)
    return h


def samples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    start = rng.normal(size=(n, 3))
    return rng.normal(size=(n, 3)), start * 0.9 + 0.3 + 0.3 * rng.normal(size=(n, 3)), start + 0.8


def test_statistic_and_standard_error_agree_with_the_stored_kernel() -> None:
    for n in (40, 1200):  # one tile and several
        x, model, base = samples(n)
        result = relative_mmd_test(x, model, base, permutations=19)
        h = h_matrix(x, model, base, result.bandwidth)
        assert result.statistic == pytest.approx(h.sum() / (n * (n - 1)), abs=1e-6)
        variance = 4 / n * (h.sum(1) / (n - 1)).var(ddof=1)
        assert result.standard_error == pytest.approx(variance**0.5, rel=1e-5)
        assert result.z == pytest.approx(result.statistic / result.standard_error)


def test_exact_p_value_is_that_of_all_exchanges_of_model_and_base() -> None:
    """8 pairs: 256 exchanges. Monte Carlo within 4.5 standard errors: false-alarm rate 1e-5."""
    x, model, base = samples(8, seed=3)
    result = relative_mmd_test(x, model, base, permutations=19_999)
    values = []
    for swap in product([False, True], repeat=8):
        mask = np.array(swap)[:, None]
        h = h_matrix(x, np.where(mask, base, model), np.where(mask, model, base), result.bandwidth)
        values.append(h.sum() / 56)
    exact = np.mean(np.array(values) >= values[0] - 1e-9)
    assert 0.01 < exact < 0.9
    assert abs(result.sign_flip_p_value - exact) <= 4.5 * (exact * (1 - exact) / 19_999) ** 0.5 + 1e-4


def test_a_closer_model_is_found_and_a_farther_one_is_not() -> None:
    x, model, base = samples(300)
    closer = relative_mmd_test(x, model, base)
    assert closer.reject
    assert closer.p_value < 1e-4
    assert closer.sign_flip_p_value == 0.001
    farther = relative_mmd_test(x, base, model)
    assert not farther.reject
    assert farther.statistic == pytest.approx(-closer.statistic, abs=1e-6)
    assert farther.p_value == pytest.approx(1.0, abs=1e-4)


def test_a_model_that_is_its_base_is_not_closer() -> None:
    x, model, _ = samples(100)
    for kernel in ("gaussian", "energy", "polynomial"):
        result = relative_mmd_test(x, model, model, kernel=kernel)
        assert not result.reject
        assert result.sign_flip_p_value == 1.0
    constant = relative_mmd_test(*[np.full((20, 3), 5.0)] * 3)
    assert not constant.reject
    assert constant.sign_flip_p_value == 1.0


def test_the_same_call_gives_the_same_result() -> None:
    assert relative_mmd_test(*samples(50), seed=4) == relative_mmd_test(*samples(50), seed=4)


def test_unequal_sizes_are_refused() -> None:
    x, model, base = samples(50)
    with pytest.raises(InputError, match="equally many points, got 50, 49, 50"):
        relative_mmd_test(x, model[1:], base)
