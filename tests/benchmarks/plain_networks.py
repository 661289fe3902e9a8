"""Networks as a plain PyTorch script has them: PyTorch's own spectral norms, weights in its own layout."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from gebm.trainer.model.networks.spectral_norm import SpectralNorm

Network = TypeVar("Network", bound=nn.Module)


def plain(network: Network) -> Network:
    """`network`, in place, computing the same by PyTorch's parts alone. Not a copy of one that is still to be used:
    copies share the classes in which PyTorch keeps what computes a weight."""
    for module in list(network.modules()):
        norms = module.parametrizations["weight"] if parametrize.is_parametrized(module, "weight") else ()
        for norm in norms:
            if isinstance(norm, SpectralNorm):
                parametrize.remove_parametrizations(module, "weight", leave_parametrized=False)
                spectral_norm(module)
                theirs = module.parametrizations["weight"][0]
                theirs._u.copy_(norm._u)
                theirs._v.copy_(norm._v)
    return network.to(memory_format=torch.contiguous_format)
