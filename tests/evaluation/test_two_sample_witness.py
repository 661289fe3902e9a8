"""The witness function, who stands out by it, and its picture."""

import re

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import witness, witness_of_samples
from gebm.evaluation.two_sample.kernels import KERNELS
from gebm.evaluation.two_sample.witness_figure import draw_witness
from tests.evaluation.test_two_sample_agreement import dense_kernel


def two_samples(n: int = 60, m: int = 40, d: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(d)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 0.7


@pytest.mark.parametrize("name", KERNELS)
def test_the_witness_is_the_difference_of_mean_kernels(name: str) -> None:
    x, y = two_samples()
    points = np.random.default_rng(1).normal(size=(7, 3))
    found = witness(points, x, y, kernel=name, bandwidth=1.5)
    expected = dense_kernel(points, x, name, 1.5).mean(1) - dense_kernel(points, y, name, 1.5).mean(1)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_the_witness_at_one_point_far_from_the_origin() -> None:
    x, y = two_samples()
    near = witness(x[:1], x, y)
    assert near.shape == (1,)
    assert witness(x[:1] + 1e4, x + 1e4, y + 1e4) == pytest.approx(near, abs=1e-7)


def test_the_witness_at_a_samples_own_points_leaves_each_point_out() -> None:
    x, y = two_samples(n=1100)  # several tiles
    found = witness_of_samples(x, y, bandwidth=1.5)
    for side, values in ((0, found.at_x), (1, found.at_y)):
        own, other = (x, y) if side == 0 else (y, x)
        k = dense_kernel(own, own, "gaussian", 1.5)
        np.fill_diagonal(k, 0.0)
        expected = k.sum(1) / (len(own) - 1) - dense_kernel(own, other, "gaussian", 1.5).mean(1)
        np.testing.assert_allclose(values, expected if side == 0 else -expected, atol=1e-6)


def test_points_that_only_one_sample_has_are_least_alike() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(200, 2)), rng.normal(size=(150, 2))
    x[:40], y[:30] = rng.normal(size=(40, 2)) * 0.1 + 6.0, rng.normal(size=(30, 2)) * 0.1 - 6.0
    found = witness_of_samples(x, y, bandwidth=0.5)
    of_x, of_y = found.least_alike(5)
    assert set(of_x) <= set(range(40))
    assert set(of_y) <= set(range(30))
    alike_x, alike_y = found.most_alike(5)
    assert not set(alike_x) & set(range(40))
    assert not set(alike_y) & set(range(30))
    assert found.at_x[alike_x].max() <= np.median(found.at_x)
    assert found.at_y[alike_y].min() >= np.median(found.at_y)


@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_picture_names_both_samples_and_is_the_same_each_time(d: int) -> None:
    x, y = two_samples(d=d)
    figure = draw_witness(x, y, labels=("photographs", "samples"))
    assert figure.svg.startswith("<svg")
    assert "photographs" in figure.alt
    assert "samples" in figure.alt
    assert "#0102" not in figure.svg  # every colour comes from the page
    assert figure == draw_witness(x, y, labels=("photographs", "samples"))


def test_the_curve_is_highest_where_x_is_and_lowest_where_y_is() -> None:
    rng = np.random.default_rng(3)
    figure = draw_witness(rng.normal(size=(200, 1)) * 0.2, rng.normal(size=(200, 1)) * 0.2 + 3.0, bandwidth=0.3)
    highest, lowest = (float(place) for place in re.findall(r" at (-?\d+\.?\d*)", figure.alt))
    assert highest == pytest.approx(0.0, abs=0.25)
    assert lowest == pytest.approx(3.0, abs=0.25)


def test_points_of_another_dimension_are_refused() -> None:
    x, y = two_samples()
    with pytest.raises(InputError, match="points has dimension 2 and x has 3"):
        witness(np.zeros((4, 2)), x, y)
