"""A compiled step makes the same chain."""

from __future__ import annotations

import pytest
import torch
from torch._dynamo import config
from torch._dynamo.utils import counters

from gebm.sampler import SamplerSettings, draw
from gebm.sampler.algorithm import Algorithm
from gebm.sampler.compiled import compiled
from gebm.sampler.mala import mala
from gebm.trainer.model import ModelSettings, build_model, freeze
from tests.sampler.targets import banana

TARGET = banana()


def run(algorithm: Algorithm) -> tuple[torch.Tensor, float]:
    generator = torch.Generator().manual_seed(0)
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
    assert graphs == 1 and not counters["graph_break"]  # the whole step is one; and another sampler of the kind is free
    run(compiled(mala(TARGET.potential, 0.15)))
    assert counters["stats"]["unique_graphs"] == graphs
    assert not config.trace_autograd_ops


def test_a_compiled_step_goes_on_with_its_own_number_of_chains() -> None:
    algorithm, generator = compiled(mala(TARGET.potential, 0.15)), torch.Generator().manual_seed(0)
    algorithm.step(algorithm.init(TARGET.draw(5, generator), generator), generator)
    with pytest.raises(ValueError, match=r"compiled for \(5, 2\) got \(4, 2\)"):
        algorithm.step(algorithm.init(TARGET.draw(4, generator), generator), generator)


def test_a_model_is_sampled_with_compiled_steps_whatever_the_batch() -> None:
    """Eight chains in batches of five and three, moved by a kernel that changes with time."""
    settings = ModelSettings(network="mlp", latent_dimension=3, base_widths=(16,), energy_widths=(16,))
    model = freeze(build_model(settings, (2,), seed=1))
    schedule = {"shape": "polynomial", "offset": 2.0}
    chains = SamplerSettings(name="kla", step_size=0.3, steps=6, chains=5, schedule=schedule)
    own = draw(model, 8, chains, seed=1)
    torch.testing.assert_close(draw(model, 8, chains, seed=1, compile=True), own, rtol=1e-4, atol=1e-5)


def test_compiling_a_kernel_that_has_no_arithmetic_is_refused() -> None:
    with pytest.raises(ValueError, match="compile with name = 'imh': it has no arithmetic to fuse"):
        SamplerSettings(name="imh", compile=True)
