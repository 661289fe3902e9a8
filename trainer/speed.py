"""What makes training faster or smaller without changing what it computes: compilation, recomputed activations."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gebm.trainer.batch_norm import running_statistics_kept
from gebm.trainer.model.networks.residual_blocks import DownBlock, UpBlock


def compile_network(network: nn.Module) -> None:
    """Have calls of `network` compiled by `torch.compile`, in place; its weights, names and copies stay as they are."""
    network.compile(dynamic=False)


def uncompiled() -> AbstractContextManager:
    """Inside, compiled networks run as they are written.

    What `torch.compile` makes can be differentiated only once, and is made again for each size of batch.
    """
    return torch.compiler.set_stance("force_eager")


def recompute_activations(network: nn.Module) -> None:
    """Have the residual blocks of `network` keep no activations for the backward pass, which computes them again."""
    for module in network.modules():
        module.__class__ = RECOMPUTED.get(type(module), type(module))


class RecomputedUpBlock(UpBlock):
    """An up-block that keeps its input alone. Batch norms see a batch once, whatever is computed again."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        return checkpoint(
            super().forward,
            x,
            labels,
            use_reentrant=False,
            preserve_rng_state=False,  # nothing is drawn in it
            context_fn=lambda: (nullcontext(), running_statistics_kept(self)),
        )


class RecomputedDownBlock(DownBlock):
    """A down-block that keeps its input alone."""

    def forward(self, x: Tensor) -> Tensor:
        return checkpoint(super().forward, x, use_reentrant=False, preserve_rng_state=False)


RECOMPUTED: dict[type[nn.Module], type[nn.Module]] = {UpBlock: RecomputedUpBlock, DownBlock: RecomputedDownBlock}
