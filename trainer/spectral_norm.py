"""Spectral norms in training: one power iteration an energy step, then the same function all through it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize


@torch.no_grad()
def advance_spectral_norms(network: nn.Module) -> None:
    """One power iteration of every spectral norm of `network`; leaves it in evaluation mode, where they stand still.

    A training forward pass would move them each time: the values, the penalty, and what is computed again of either
    would be those of different functions.
    """
    network.train()
    for module in network.modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:  # type: ignore[union-attr]
                getattr(module, name)  # computing the weight moves the iteration
    network.eval()
