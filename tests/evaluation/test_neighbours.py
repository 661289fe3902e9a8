"""Precision, recall, density and coverage against their definitions, restated on whole distance matrices."""

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from gebm.cluster.errors import InputError
from gebm.evaluation import neighbours
from gebm.evaluation.neighbours import density_coverage, precision_recall


def samples(n: int, m: int, dimension: int = 5, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(n + m)
    real = random.normal(size=(n, dimension)) + offset
    return real.astype(np.float32), (random.normal(size=(m, dimension)) * 1.3 + 0.7 + offset).astype(np.float32)


def radii(points: np.ndarray, k: int) -> np.ndarray:
    return np.sort(cdist(points, points), 1)[:, k]  # the nearest is the point itself


@pytest.mark.parametrize(("n", "m", "tile"), [(40, 40, 1024), (130, 57, 32), (33, 200, 16)])
def test_shares_are_those_of_the_definitions(n, m, tile, monkeypatch):
    monkeypatch.setattr(neighbours, "TILE", tile)
    real, generated = samples(n, m)
    x, y = real.astype(np.float64), generated.astype(np.float64)
    distances = cdist(y, x)
    precision = (distances <= radii(x, 3)).any(1).mean()
    recall = (distances <= radii(y, 3)[:, None]).any(0).mean()
    assert precision_recall(real, generated) == pytest.approx((precision, recall))
    assert 0.2 < precision < 1 and 0.1 < recall < 1
    within = distances < radii(x, 5)
    expected = within.sum() / (5 * m), within.any(0).mean()
    assert density_coverage(real, generated) == pytest.approx(expected)
    assert 0.1 < expected[0] < 0.9 and 0.1 < expected[1]


def test_far_from_the_origin_nothing_changes():
    near, far = samples(100, 80), samples(100, 80, offset=512.0)  # a power of two: few digits are lost in the data
    near = tuple((side + np.float32(512.0)) - np.float32(512.0) for side in near)
    assert precision_recall(*far) == precision_recall(*near)
    assert density_coverage(*far) == density_coverage(*near)


def test_balls_are_closed_for_precision_and_open_for_density():
    line = np.arange(8, dtype=np.float32)[:, None] * 2  # 0, 2, ..., 14: the third neighbour of 0 is at 6
    assert precision_recall(line, np.array([[-6.0]] * 4, np.float32)).precision == 1.0
    assert precision_recall(line, np.array([[-6.1]] * 4, np.float32)).precision == 0.0
    assert density_coverage(line, np.array([[-10.0]], np.float32)).density == 0.0  # the fifth neighbour of 0 is at 10
    assert density_coverage(line, np.array([[-9.9]], np.float32)).density == pytest.approx(1 / 5)


def test_the_same_samples_are_precise_and_recalled_and_others_are_not():
    real, _ = samples(60, 60)
    assert precision_recall(real, real) == (1.0, 1.0)
    assert precision_recall(real, real + 100) == (0.0, 0.0)
    assert density_coverage(real, real + 100) == (0.0, 0.0)


def test_too_few_samples_are_refused():
    real, generated = samples(5, 3)
    with pytest.raises(InputError, match="3 samples: the 3 nearest neighbours of one need at least 4"):
        precision_recall(real, generated)
    with pytest.raises(InputError, match="5 samples: the 5 nearest"):
        density_coverage(real, generated)
