"""A learnt kernel in pieces is the learnt kernel in one process, and can be sent to workers."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from gebm.evaluation.two_sample import mmd_test
from gebm.evaluation.two_sample.distributed import Tiling, distributed_mmd_test, table_of_file
from gebm.evaluation.two_sample.distributed.learnt import tiles_of_learnt
from gebm.evaluation.two_sample.learnt.featurisers import vector_featuriser
from gebm.evaluation.two_sample.learnt.learnt_kernel import LearntKernel, kernel_on_rows


def learnt_kernel(seed: int) -> LearntKernel:
    torch.manual_seed(seed)
    featuriser = vector_featuriser(4, 6).requires_grad_(False).eval()
    return LearntKernel(
        kernel_on_rows(6, 4, mixing=0.3), featuriser, feature_scale=0.05, point_scale=9.0, mixing=0.3, shape=(4,)
    )


@pytest.mark.parametrize("null", ["permutation", "sign_flip", "bins", "normal"])
@pytest.mark.parametrize("count", [150, 700])  # in float64, and in float32
def test_a_deep_kernel_in_pieces_is_that_in_one_process(null: str, count: int, tmp_path: Path) -> None:
    rng = np.random.default_rng(count)
    learnt, tables, rows = learnt_kernel(0), [], []
    for name, scale in (("x", 1.0), ("y", 1.3)):
        sample = (scale * rng.normal(size=(count, 4)) + 5.0).astype(np.float32)
        np.save(tmp_path / f"{name}.npy", sample)
        tables.append(table_of_file(str(tmp_path / f"{name}.npy"), name))
        rows.append(learnt.rows(sample))
    settings = {"null": null, "permutations": 99, "seed": 1}
    expected = mmd_test(rows[0], rows[1], kernel=learnt.kernel, **settings)
    kernel = pickle.loads(pickle.dumps(tiles_of_learnt(learnt, tables)))
    found = distributed_mmd_test(tables[0], tables[1], kernel=kernel, tiling=Tiling(64, 128), **settings)
    assert found.p_value == pytest.approx(expected.p_value, rel=1e-4)
    assert found.statistic == pytest.approx(expected.statistic, abs=1e-6)
    assert abs(expected.statistic) > 1e-3


def test_another_network_is_another_kernel(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(0).normal(size=(20, 4)))
    tables = [table_of_file(str(tmp_path / "x.npy"), "x")]
    described = [tiles_of_learnt(learnt_kernel(seed), tables).describe() for seed in (0, 0, 1)]
    assert described[0] == described[1] != described[2]
