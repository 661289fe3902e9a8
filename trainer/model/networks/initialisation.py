"""How the published networks begin."""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor, nn

Layer = TypeVar("Layer", bound=nn.Module)


def xavier(layer: Layer, gain: float = 1.0) -> Layer:
    """`layer` with Xavier-uniform weights (Glorot and Bengio 2010) and zero biases."""
    assert isinstance(layer.weight, Tensor)
    nn.init.xavier_uniform_(layer.weight, gain)
    if isinstance(layer.bias, Tensor):
        nn.init.zeros_(layer.bias)
    return layer
