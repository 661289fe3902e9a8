"""KID by the conventions of torch-fidelity."""

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.kernel_distance import kernel_distance


def features(count: int, seed: int, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=(count, 48)) + shift).astype(np.float32)


@pytest.mark.parametrize("sizes", [(300, 400), (200, 200), (150, 100)])
def test_distance_agrees_with_torch_fidelity(sizes: tuple[int, int]) -> None:
    from gebm.evaluation.extractors import torch_fidelity_registry  # noqa: F401  makes it importable

    from torch_fidelity.metric_kid import (  # isort: skip
        KEY_METRIC_KID_MEAN,
        KEY_METRIC_KID_STD,
        kid_features_to_metric,
    )

    x, y = features(sizes[0], 1, 0.3), features(sizes[1], 2)
    ours = kernel_distance(x, y, subsets=10, subset_size=100)
    peer = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=10, kid_subset_size=100, verbose=False
    )
    assert ours.mean == pytest.approx(peer[KEY_METRIC_KID_MEAN], rel=1e-4)
    assert ours.std == pytest.approx(peer[KEY_METRIC_KID_STD], rel=1e-2)
    assert (ours.subsets, ours.subset_size) == (10, 100)


def test_one_subset_is_enough_where_all_are_the_whole_sample() -> None:
    x, y = features(120, 1, 0.3), features(120, 2)
    once = kernel_distance(x, y)
    assert (once.subsets, once.subset_size, once.std) == (1, 120, 0.0)
    many = kernel_distance(np.concatenate([x, x[:1]]), y)  # 121 against 120: subsets of 120
    assert (many.subsets, many.subset_size) == (100, 120)
    assert many.mean == pytest.approx(once.mean, rel=0.05)


def test_what_has_no_distance_is_a_clear_error() -> None:
    with pytest.raises(InputError, match="at least two"):
        kernel_distance(features(1, 1), features(9, 1))
    with pytest.raises(InputError, match="NaN"):
        kernel_distance(np.full((5, 48), np.nan), features(9, 1))
    with pytest.raises(InputError, match="dimension 48 and 3"):
        kernel_distance(features(9, 1), features(9, 1)[:, :3])
