"""What moves the weights of one network, and how the workers' gradients come together in it.

The steps of training know only `NetworkOptimizer`. `WholeOptimizer` is for a network that every worker holds whole;
`gebm.trainer.strategies.zero` has the one for DeepSpeed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from gebm.trainer.gradients import condition_gradients
from gebm.trainer.strategies.flat_gradients import FlatGradients
from gebm.trainer.workers import Workers


class NetworkOptimizer(Protocol):
    """Adam, say, on the weights of one network. Every worker calls the same methods in the same order."""

    learning_rate: float

    def zero_grad(self) -> None:
        """Forget the gradients of an earlier step."""

    def backward(self, part: Tensor) -> None:
        """Add the gradient of `part`, 0-dim, this worker's and micro-batch's part of the loss: parts are summed."""

    def step(self, *more: Tensor) -> Tensor:
        """Sum the gradients over the workers, and the tensors of `more` in place; condition them; move the weights.

        Returns the norm of the summed gradients, 0-dim, before clipping.
        """

    def whole(self) -> AbstractContextManager[None]:
        """While it is open, this worker has all weights of the network, to read."""

    def state_dict(self) -> dict[str, Any]:
        """The optimiser's memory as `torch.optim.Adam` would have it, on every worker, whole."""

    def load(self, weights: dict[str, Tensor], memory: dict[str, Any]) -> None:
        """Take the whole weights of the network, and a memory that `state_dict` gave, whatever the strategy then."""

    def close(self) -> None:
        """Let go of the network: it is not trained any further by this optimiser."""


class WholeOptimizer:
    """`optimizer` on the weights of `network`, which every worker holds whole.

    Gradients are summed by one all-reduce, then transformed and clipped as `condition_gradients` says.
    """

    def __init__(
        self,
        network: nn.Module,
        optimizer: Optimizer,
        workers: Workers,
        *,
        clip_norm: float | None = None,
        transform: bool = False,
    ):
        self.network, self.optimizer, self.workers = network, optimizer, workers
        self.clip_norm, self.transform = clip_norm, transform
        self.gradients = FlatGradients(network.parameters()) if workers.world > 1 else None

    @property
    def learning_rate(self) -> float:
        return self.optimizer.param_groups[0]["lr"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def zero_grad(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def backward(self, part: Tensor) -> None:
        part.backward()

    def step(self, *more: Tensor) -> Tensor:
        if self.gradients is not None:
            self.gradients.sum_over_workers(*more)
        norm = condition_gradients(self.network.parameters(), clip_norm=self.clip_norm, transform=self.transform)
        self.optimizer.step()
        return norm

    def whole(self) -> AbstractContextManager[None]:
        return nullcontext()

    def state_dict(self) -> dict[str, Any]:
        return self.optimizer.state_dict()

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], memory: dict[str, Any]) -> None:
        self.network.load_state_dict(weights)
        # The options of Adam stay those of this strategy: which of its forms computes it is no memory.
        own = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": memory["state"], "param_groups": own})
        for parameter, state in self.optimizer.state.items():
            for name, value in state.items():
                if value.shape == parameter.shape:
                    # Fused Adam goes through memory: a moment in another layout (channels-last) is another moment.
                    state[name] = torch.empty_like(parameter).copy_(value)
        self.learning_rate = memory["param_groups"][0]["lr"]

    def close(self) -> None:
        if self.gradients is not None:
            self.gradients.close()


def adam(network: nn.Module, betas: tuple[float, float], *, fused: bool = True) -> torch.optim.Adam:
    """Adam on all weights of `network`. Its learning rate is 0 until a round sets it."""
    # As a group: a foreign base may have no weights, and Adam refuses a bare empty list.
    return torch.optim.Adam([{"params": list(network.parameters())}], lr=0.0, betas=betas, fused=fused)
