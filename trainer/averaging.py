"""Exponential moving averages of a network's weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


def averaged_copy(network: nn.Module) -> nn.Module:
    """A frozen copy of `network` in evaluation mode: where its average starts."""
    return copy.deepcopy(network).eval().requires_grad_(False)


def trainable_copy(average: nn.Module) -> nn.Module:
    """A copy of an averaged network that can be trained: where the next phase starts."""
    return copy.deepcopy(average).train().requires_grad_(True)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, decay: float) -> None:
    """`average <- decay * average + (1 - decay) * network` for parameters; buffers are copied as they are."""
    torch._foreach_lerp_(list(average.parameters()), [p.detach() for p in network.parameters()], 1.0 - decay)
    for mine, theirs in zip(average.buffers(), network.buffers(), strict=True):
        mine.copy_(theirs)
