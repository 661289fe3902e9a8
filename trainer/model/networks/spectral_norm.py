"""Spectral normalisation of a layer's weight, `W / sigma`, `sigma = u^T W v` (Miyato et al., ICLR 2018).

The same function, initialisation and state as `torch.nn.utils.parametrizations.spectral_norm`. What is other: weights
laid out channels-last are read as they lie, where PyTorch copies them forwards and backwards, and the gradient is
written down (`NormalisedWeight`) in two passes over the weight, where autograd needs eight.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import normalize
from torch.nn.utils import parametrize

Layer = TypeVar("Layer", bound=nn.Module)

FIRST_ITERATIONS = 15
EPSILON = 1e-12


def spectral_norm(layer: Layer) -> Layer:
    """Replace `layer.weight`, `(n_out, ...)`, by itself over its spectral norm; draws two vectors from the global seed.

    Every forward pass in training mode is one power iteration, `SpectralNorm.advance`.
    """
    parametrize.register_parametrization(layer, "weight", SpectralNorm(layer.weight))  # type: ignore[arg-type]
    return layer


class SpectralNorm(nn.Module):
    """`W -> W / (u^T W v)`, the singular vectors in the buffers `_u` `(n_out,)` and `_v` `(n_in * height * width,)`."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor):
        super().__init__()
        matrix = weight.detach().flatten(1)
        self.register_buffer("_u", normalize(matrix.new_empty(len(matrix)).normal_(), dim=0, eps=EPSILON))
        self.register_buffer("_v", normalize(matrix.new_empty(matrix.shape[1]).normal_(), dim=0, eps=EPSILON))
        for _ in range(FIRST_ITERATIONS):
            self.advance(weight)

    @torch.no_grad()
    def advance(self, weight: Tensor) -> None:
        """One power iteration: `u` towards `W v`, then `v` towards `W^T u`, each of length 1. In place."""
        matrix = as_matrix(weight)
        self._u.copy_(normalize(torch.mv(matrix, reordered(self._v, weight)), dim=0, eps=EPSILON))
        self._v.copy_(in_order(normalize(torch.mv(matrix.T, self._u), dim=0, eps=EPSILON), weight))

    def forward(self, weight: Tensor) -> Tensor:
        if self.training:
            self.advance(weight)
        if not (weight.is_contiguous() or is_channels_last(weight)):
            weight = weight.contiguous()
        # Copies: the next iteration may come before this pass is differentiated.
        u, v = self._u.clone(), reordered(self._v, weight).clone()
        with nullcontext() if weight.is_meta else torch.autocast(weight.device.type, enabled=False):
            return NormalisedWeight.apply(weight, u, v)


class NormalisedWeight(torch.autograd.Function):
    """`N = W / sigma`; of a gradient `G` in `N` that in `W` is `(G - <G, N> u v^T) / sigma`. Differentiable once.

    `v` comes in the order of `as_matrix(W)`.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        sigma = torch.dot(u, torch.mv(as_matrix(weight), v))
        normalised = weight / sigma
        ctx.save_for_backward(normalised, sigma, u, v)
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        normalised, sigma, u, v = ctx.saved_tensors
        result = torch.empty_like(normalised).copy_(gradient)  # in the layout of the weight
        matrix = as_matrix(result)
        inner = torch.dot(matrix.reshape(-1), as_matrix(normalised).reshape(-1))
        matrix.addr_(u, v * -inner)
        return result.div_(sigma), None, None


def as_matrix(weight: Tensor) -> Tensor:
    """`weight` `(n_out, ...)` as `(n_out, rest)`, a view: the columns of a channels-last weight are in its order."""
    if is_channels_last(weight):
        return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)
    return weight.flatten(1)


def reordered(vector: Tensor, weight: Tensor) -> Tensor:
    """`vector` `(n_in * height * width,)` in the order of the columns of `as_matrix(weight)`."""
    return vector.view(weight.shape[1:]).permute(1, 2, 0).reshape(-1) if is_channels_last(weight) else vector


def in_order(vector: Tensor, weight: Tensor) -> Tensor:
    """What `reordered` undoes."""
    if not is_channels_last(weight):
        return vector
    n_in, height, width = weight.shape[1:]
    return vector.view(height, width, n_in).permute(2, 0, 1).reshape(-1)


def is_channels_last(weight: Tensor) -> bool:
    """Whether `weight` lies channels-last and not also as it is by default."""
    return weight.dim() == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)
