"""Spectral norms in training: one power iteration an energy step, then the same function all through it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

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
    compute_weights(network)  # which moves the iterations
    network.eval()


@contextmanager
def weights_held(network: nn.Module, once: bool) -> Iterator[None]:
    """Inside, each normalised weight is computed once for all passes, and its gradient brought home once.

    `once`: whether all passes inside are differentiated together, and inside; else, and where `network` is compiled,
    which traces each of its calls by itself, nothing is held.
    """
    if not once or network._compiled_call_impl is not None:
        yield
        return
    with parametrize.cached():
        # All of them now: a block that computes its activations again must not find more than at its first time.
        compute_weights(network)
        yield


def compute_weights(network: nn.Module) -> None:
    """Compute every weight that is computed from another, by the attribute: whole even where the other is in shards."""
    for module in network.modules():
        if parametrize.is_parametrized(module):
            for name in module.parametrizations:  # type: ignore[union-attr]
                getattr(module, name)
