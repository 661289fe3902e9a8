"""The benchmark of comparisons in pieces runs in its quick form, and its parts say what is so."""

import os

import pytest
import torch

from gebm.evaluation.two_sample.distributed.cost import Rates, estimate
from tests.benchmarks.compare import QUICK, measure
from tests.benchmarks.memory import PeakMemory, proportional_set


@pytest.mark.usefixtures("ray_cluster")
def test_the_quick_form_measures_every_case() -> None:
    full, half, stream = measure(quick=True)
    assert full.case == f"n = m = {QUICK.sizes[0]:,}" and full.peer == "cost model"
    assert full.share_of_peak is not None and 0 < full.share_of_peak < 1
    assert half.peer == "float32" and half.peer_seconds == full.ours_seconds
    assert stream.machine["peak_bytes"] > 0 and 0 < full.machine["p_value"] <= 1


def test_memory_that_is_held_for_a_moment_is_seen() -> None:
    before = proportional_set(os.getpid())
    with PeakMemory(lambda: [os.getpid()]) as memory:
        block = torch.ones(2**25)  # 128 MiB
        while memory.peak < before + 2**26:
            block.add_(1.0)
        del block
    assert memory.peak >= before + 2**26
    assert proportional_set(2**30) == 0


def test_the_cost_model_adds_what_each_worker_draws_and_shares_the_tiles() -> None:
    rates = Rates(product=1e10, labels=2e10, entry=1e-9, label=1e-8, item=0.0, start=1.0)
    one, four = (estimate(50_000, 50_000, 1280, 999, workers, rates, on_gpu=False) for workers in (1, 4))
    assert one.drawing == four.drawing == pytest.approx(2 * 1e5 * 1000 * 1e-8)
    assert one.tiles == pytest.approx(5e9 * (2560 / 1e10 + 1e-9 + 2000 / 2e10)) and one.tiles == 4 * four.tiles
    assert one.seconds == pytest.approx(1.0 + one.drawing + one.tiles)
    assert one.operations == 5e9 * 4560
