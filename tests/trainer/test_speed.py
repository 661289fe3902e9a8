"""What only makes training smaller or faster leaves what it computes alone."""

import copy

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.trainer.averaging import averaged_copy
from gebm.trainer.check import check_job
from gebm.trainer.model import GEBM, ModelSettings, build_model
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.speed import (
    RecomputedDownBlock,
    RecomputedUpBlock,
    compile_network,
    recompute_activations,
    uncompiled,
)
from gebm.trainer.steps import BaseStep, EnergyStep, base_step, energy_step
from gebm.trainer.strategies.optimizer import WholeOptimizer
from gebm.trainer.workers import Workers
from tests.trainer.tiny_runs import tiny_job, write_points

ROWS = 10


def workers(half: torch.dtype | None = None) -> Workers:
    return Workers(Accelerator(cpu=True), half)


def resnets(dtype: torch.dtype = torch.float64) -> GEBM:
    model = build_model(
        ModelSettings(network="sngan_resnet", latent_dimension=4, width_factor=0.1), (1, 32, 32), seed=0
    )
    return model.to(dtype).to(memory_format=torch.channels_last)


def perceptrons(dtype: torch.dtype = torch.float64) -> GEBM:
    settings = ModelSettings(network="mlp", latent_dimension=4, base_widths=(8,), energy_widths=(8,))
    return build_model(settings, (6,), seed=0).to(dtype)


def still(network: nn.Module, group: Workers) -> WholeOptimizer:
    return WholeOptimizer(network, torch.optim.SGD(network.parameters(), lr=0.0), group)


def draws(shape: tuple[int, ...], seed: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(ROWS, *shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def step_energy(model: GEBM, group: Workers, objective: str = "kale", micro_batch: int | None = None) -> EnergyStep:
    dtype = next(model.parameters()).dtype
    return energy_step(
        model.energy_network,
        still(model.energy_network, group),
        OBJECTIVES[objective],
        group,
        real=draws(model.image_shape, 1, dtype).tanh(),
        fake=draws(model.image_shape, 2, dtype).tanh(),
        mixing=torch.rand(ROWS, generator=torch.Generator().manual_seed(3)).to(dtype),
        log_partition=torch.tensor(0.1, dtype=torch.float64),
        gradient_penalty=2.0,
        log_partition_rate=1.0,
        micro_batch=micro_batch,
    )


def step_base(model: GEBM, group: Workers, micro_batch: int | None = None) -> BaseStep:
    latent = draws((model.latent_dimension,), 4, next(model.parameters()).dtype)
    base, energy = model.base.train(), model.energy_network.eval()
    return base_step(base, energy, still(base, group), OBJECTIVES["kale"], group, latent, micro_batch=micro_batch)


def gradients(network: nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in network.parameters() if p.grad is not None]


def assert_same(ours: list[Tensor], expected: list[Tensor], **tolerance: float) -> None:
    assert len(ours) == len(expected) > 0
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, **tolerance)


@pytest.mark.parametrize("objective", ["kale", "wasserstein"])
@pytest.mark.parametrize("make", [resnets, perceptrons])
def test_an_energy_step_in_micro_batches_is_that_of_the_whole_batch(make, objective):
    """The softmax of KALE and its log-partition are of the whole batch, uneven micro-batches or not."""
    at_once, in_parts = make(), make()
    expected = step_energy(at_once, workers(), objective)
    seen = step_energy(in_parts, workers(), objective, micro_batch=3)
    for name, value in expected._asdict().items():
        torch.testing.assert_close(getattr(seen, name), value, msg=name)
    assert_same(gradients(in_parts.energy_network), gradients(at_once.energy_network))


def test_a_base_step_in_micro_batches_is_that_of_the_whole_batch_but_for_batch_norm():
    at_once, in_parts = perceptrons(), perceptrons()
    expected, seen = step_base(at_once, workers()), step_base(in_parts, workers(), micro_batch=3)
    torch.testing.assert_close(seen.loss, expected.loss)
    assert_same(gradients(in_parts.base), gradients(at_once.base))


def test_batch_norms_see_every_micro_batch_once():
    model = resnets()
    step_base(model, workers(), micro_batch=5)
    norms = [module for module in model.base.modules() if isinstance(module, nn.BatchNorm2d)]
    assert norms and all(int(norm.num_batches_tracked) == 2 for norm in norms)


def test_networks_compute_in_bfloat16_and_losses_in_float32():
    single, half = resnets(torch.float32), resnets(torch.float32)
    kinds: list[torch.dtype] = []
    half.energy_network.blocks[1].register_forward_hook(lambda *of: kinds.append(of[2].dtype))
    half.base.blocks[1].register_forward_hook(lambda *of: kinds.append(of[2].dtype))
    group = workers(torch.bfloat16)
    for step, network in ((step_energy, "energy_network"), (step_base, "base")):
        expected, seen = step(single, workers()), step(half, group)
        for name, value in expected._asdict().items():
            assert getattr(seen, name).dtype in (torch.float32, torch.float64), name
            torch.testing.assert_close(getattr(seen, name), value, rtol=0.05, atol=0.01, check_dtype=False, msg=name)
        ours, theirs = (torch.cat([g.flatten() for g in gradients(getattr(m, network))]) for m in (half, single))
        assert ours.dtype == torch.float32
        assert float(torch.cosine_similarity(ours, theirs, 0)) > 0.99
    assert set(kinds) == {torch.bfloat16}


def test_recomputed_activations_give_the_same_gradients_and_statistics():
    kept, recomputed = resnets(), resnets()
    average = averaged_copy(recomputed.base)
    for network in (recomputed.base, recomputed.energy_network):
        recompute_activations(network)
    blocks = [type(module) for module in recomputed.modules()]
    assert blocks.count(RecomputedUpBlock) == 3 and blocks.count(RecomputedDownBlock) == 4
    for step, network in ((step_energy, "energy_network"), (step_base, "base")):
        expected, seen = step(kept, workers()), step(recomputed, workers())
        for name, value in expected._asdict().items():
            torch.testing.assert_close(getattr(seen, name), value, msg=name)
        assert_same(gradients(getattr(recomputed, network)), gradients(getattr(kept, network)))
        assert_same(list(getattr(recomputed, network).buffers()), list(getattr(kept, network).buffers()))
    # What was copied before, and what weights are called, is as ever.
    assert not any(type(module) is RecomputedUpBlock for module in average.modules())
    assert recomputed.state_dict().keys() == kept.state_dict().keys()


def test_compiled_networks_compute_the_same_and_copies_of_them_are_plain():
    plain, compiled = perceptrons(torch.float32), perceptrons(torch.float32)
    for network in (compiled.base, compiled.energy_network):
        compile_network(network)
    calls = torch._dynamo.utils.counters["stats"]
    before = calls["unique_graphs"]
    for step, network in ((step_energy, "energy_network"), (step_base, "base")):
        expected, seen = step(plain, workers()), step(compiled, workers())
        for name, value in expected._asdict().items():
            torch.testing.assert_close(getattr(seen, name), value, rtol=1e-4, atol=1e-5, msg=name)
        assert_same(gradients(getattr(compiled, network)), gradients(getattr(plain, network)), rtol=1e-4, atol=1e-5)
    graphs = calls["unique_graphs"]
    assert graphs > before
    with uncompiled():
        compiled.energy_network(torch.zeros(77, 6))  # another size would be another graph
    copy.deepcopy(compiled.energy_network)(torch.zeros(78, 6))
    assert calls["unique_graphs"] == graphs


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"recompute_activations": True}, "recompute_activations = true: model.network = 'mlp' has no residual blocks"),
        ({"micro_batch": 4, "objective": "mmd"}, "micro_batch: objective mmd compares the features of whole batches"),
        ({"zero": {"base": 1}, "transform_gradients": True}, "transform_gradients = true: with trainer.zero"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(tmp_path, changes, reason):
    job = tiny_job(tmp_path / "run", write_points(tmp_path / "data"), **changes)
    with pytest.raises(InputError, match=reason):
        check_job(job, load_index(job.data), workers=1)
