"""A checkpoint's content survives being taken apart into tensors and text: to the bit, and as it lay in memory."""

import math
from collections import OrderedDict

import pytest
import torch
from torch import nn

from gebm.trainer.checkpoints.nested import empty_tensors, flatten, unflatten


def through_text(content: dict) -> dict:
    """Taken apart, written into fresh memory, put together again."""
    tensors, text = flatten(content)
    fresh = empty_tensors(text)
    assert fresh.keys() == tensors.keys()
    for name, tensor in tensors.items():
        fresh[name].copy_(tensor)
    return unflatten(fresh, text)


def test_plain_values_come_back_as_they_were():
    content = {
        "state": {0: {"step": 3}, 1: None},
        "betas": (0.5, 0.99),
        "rows": [{"loss": 0.1 + 0.2, "far": math.inf}, []],
        "flags": (True, 1, 1.0, "1"),
        7: {},
    }
    back = through_text(content)
    assert back == content
    assert [type(value) for value in back["flags"]] == [bool, int, float, str]
    assert math.isnan(through_text({"value": math.nan})["value"])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor(2.5, dtype=torch.float64),
        torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last),
        torch.randn(5, 3).t(),
        torch.arange(6)[::2],
        torch.randn(1, 4).expand(3, 4),
        torch.tensor([True, False]),
        torch.randn(3).to(torch.bfloat16),
        torch.empty(0, 2),
    ],
    ids=["0-dim", "channels-last", "transposed", "strided", "expanded", "bool", "bfloat16", "empty"],
)
def test_tensors_come_back_with_dtype_and_layout(tensor):
    back = through_text({"a": {"b": [tensor]}})["a"]["b"][0]
    assert back.dtype == tensor.dtype and torch.equal(back, tensor)
    assert back.stride() == torch.clone(tensor).stride()


def test_a_fused_optimiser_goes_on_to_the_bit_with_weights_that_lie_channels_last():
    """It reads its moments in the order of the weights in memory: contiguous ones would be silently mixed up."""

    def trained(resumed: bool) -> torch.Tensor:
        torch.manual_seed(0)
        network = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1, fused=True)
        for _ in range(3):
            optimizer.zero_grad()
            network(torch.randn(2, 3, 5, 5)).square().sum().backward()
            optimizer.step()
            if resumed:
                optimizer.load_state_dict(through_text(optimizer.state_dict()))
        return network.weight

    assert torch.equal(trained(resumed=True), trained(resumed=False))


def test_the_versions_that_modules_write_into_a_state_dict_are_kept():
    state_dict = nn.BatchNorm2d(3).state_dict()
    back = through_text({"network": state_dict})["network"]
    assert isinstance(back, OrderedDict) and back._metadata == state_dict._metadata  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state": {"lr": torch.nn.Identity()}}, r"state\.lr: a checkpoint cannot hold a Identity"),
        ({"state": [torch.float32]}, r"state\.0: a checkpoint cannot hold a dtype"),
        ({"state": {(1, 2): 3}}, r"state: a checkpoint cannot hold the key \(1, 2\)"),
        ({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, r"a\.b: two tensors"),
    ],
)
def test_what_could_not_be_read_back_is_refused(content, message):
    with pytest.raises(TypeError, match=message):
        flatten(content)
