"""A compiled step makes the same chain."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo import config
from torch._dynamo.utils import counters

from gebm.sampler.algorithm import Algorithm
from gebm.sampler.compiled import compiled
from gebm.sampler.mala import mala
from tests.sampler.targets import banana

TARGET = banana()


def run(algorithm: Algorithm, step_size_seed: int = 0) -> tuple[torch.Tensor, float]:
    generator = torch.Generator().manual_seed(step_size_seed)
    state = algorithm.init(TARGET.draw(40, generator), generator)
    accepted = 0.0
    for _ in range(5):
        state, info = algorithm.step(state, generator)
        accepted += info.accepted.double().mean().item()
    return state.position, accepted


def test_a_compiled_step_makes_the_same_chain_and_is_compiled_once() -> None:
    own, accepted = run(mala(TARGET.potential, 0.15))
    assert 0.5 < accepted < 4.5  # some are rejected
    counters.clear()
    position, also_accepted = run(compiled(mala(TARGET.potential, 0.15)))
    torch.testing.assert_close(position, own, rtol=1e-9, atol=1e-9)
    assert also_accepted == pytest.approx(accepted)
    graphs = counters["stats"]["unique_graphs"]
    # The whole of it, but for the two places where the generator draws; and another sampler of the kind is free.
    assert 1 <= graphs <= 3
    assert not any("autograd" in reason for reason in counters["graph_break"])
    run(compiled(mala(TARGET.potential, 0.15)))
    assert counters["stats"]["unique_graphs"] == graphs
    assert not config.trace_autograd_ops
