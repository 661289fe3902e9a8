"""Our spectral norms are PyTorch's: the same draws, values, iterations and gradients, in either layout."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from gebm.trainer.model.networks.spectral_norm import SpectralNorm, spectral_norm
from gebm.trainer.spectral_norm import advance_spectral_norms, weights_held


def pair(layer: nn.Module, layout: torch.memory_format) -> tuple[nn.Module, nn.Module]:
    """`layer` with our spectral norm, laid out so, and with PyTorch's, in float64."""
    made = []
    for norm in (spectral_norm, parametrizations.spectral_norm):
        torch.manual_seed(1)
        made.append(norm(copy.deepcopy(layer).double()))
    return made[0].to(memory_format=layout), made[1]


def state_of(layer: nn.Module) -> dict[str, Tensor]:
    return {name: value.contiguous() for name, value in layer.state_dict().items()}


LAYERS = {
    "convolution": (nn.Conv2d(5, 7, 3), (4, 5, 6, 6)),
    "1x1": (nn.Conv2d(5, 7, 1), (4, 5, 6, 6)),
    "linear": (nn.Linear(5, 7), (4, 5)),
}


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("kind", LAYERS)
def test_values_iterations_and_gradients_are_pytorchs(kind: str, layout: torch.memory_format):
    layer, shape = LAYERS[kind]
    ours, theirs = pair(layer, layout)
    generator = torch.Generator().manual_seed(2)
    for _ in range(3):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        for side in (ours, theirs):
            side.zero_grad()
            side.train()(x).square().sum().backward()
        assert ours(x).shape == theirs(x).shape
        torch.testing.assert_close(state_of(ours), state_of(theirs))
        torch.testing.assert_close(
            ours.parametrizations.weight.original.grad.contiguous(),
            theirs.parametrizations.weight.original.grad.contiguous(),
        )


def test_the_gradient_is_that_of_finite_differences():
    ours, _ = pair(nn.Conv2d(3, 4, 3), torch.channels_last)
    norm = ours.eval().parametrizations.weight[0]
    weight = ours.weight.detach().clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda w: norm(w), (weight,))


def test_a_weight_that_lies_in_neither_layout_counts_too():
    ours, _ = pair(nn.Linear(5, 7), torch.contiguous_format)
    norm = ours.eval().parametrizations.weight[0]
    straight = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    lying = straight.detach().T.contiguous().T.requires_grad_()
    for weight in (straight, lying):
        (norm(weight) * torch.arange(35.0).view(7, 5)).sum().backward()
    torch.testing.assert_close(lying.grad, straight.grad)


def test_half_precision_outside_leaves_the_norm_in_float32():
    ours = spectral_norm(nn.Conv2d(5, 7, 3)).eval()
    with torch.autocast("cpu", torch.bfloat16):
        inside = ours.weight
    assert inside.dtype == torch.float32
    assert torch.equal(inside, ours.weight)


def test_advancing_is_one_iteration_of_every_norm_whoevers_it_is():
    network = nn.Sequential(spectral_norm(nn.Linear(5, 7)), parametrizations.spectral_norm(nn.Linear(7, 3)))
    expected = copy.deepcopy(network).train()
    expected(torch.zeros(1, 5))
    advance_spectral_norms(network)
    torch.testing.assert_close(network.state_dict(), expected.state_dict())
    before = copy.deepcopy(network.state_dict())
    network(torch.zeros(1, 5))
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize(("once", "compiled", "times"), [(True, False, 1), (False, False, 2), (True, True, 2)])
def test_held_weights_are_computed_once(monkeypatch: pytest.MonkeyPatch, once: bool, compiled: bool, times: int):
    seen = []
    forward = SpectralNorm.forward
    monkeypatch.setattr(SpectralNorm, "forward", lambda self, weight: (seen.append(1), forward(self, weight))[1])
    network = spectral_norm(nn.Linear(5, 7)).eval()
    if compiled:
        network._compiled_call_impl = network._call_impl
    seen.clear()
    with weights_held(network, once):
        assert parametrize._cache_enabled == (1 if times == 1 else 0)
        network(torch.zeros(1, 5))
        network(torch.ones(1, 5))
    assert len(seen) == times
