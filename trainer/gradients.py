"""What may be done to the gradients of a network between the all-reduce and the optimiser."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def condition_gradients(
    parameters: Iterable[nn.Parameter], *, clip_norm: float | None = None, transform: bool = False
) -> Tensor:
    """Transform and clip the gradients of `parameters` in place; return their norm, 0-dim, as clipping found it.

    `transform`: `g -> 2g / (1 + g^2)`, elementwise, the gradient transform of the public code of Arbel, Zhou and
    Gretton (2021): small entries are doubled, none leaves [-1, 1], and those beyond 1 shrink again.
    `clip_norm`: all are scaled by `min(1, clip_norm / norm)`, `norm` the Euclidean norm of all entries together.
    Parameters without a gradient are passed over.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if transform:
        for gradient in gradients:
            gradient.copy_(2.0 * gradient / (1.0 + gradient.square()))
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients]))
    if clip_norm is not None:
        scale = (clip_norm / norm).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(scale)
    return norm
