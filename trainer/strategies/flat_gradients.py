"""Gradients of a network that lie one behind the other in memory, so that workers add them up where they are."""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

SPARE = 16
"""Numbers behind the gradients, for what else is summed."""


class FlatGradients:
    """Moves each gradient to its place in one buffer when it comes to be, and sums the buffer over the workers.

    A gradient is written once, where a list of gradients would be put together, copied by the collective and taken
    apart again. Hooks do it: `close` removes them. The network's weights must not change their number, size or type.
    """

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._flat: dict[torch.dtype, Tensor] = {}
        self._places: dict[Tensor, Tensor] = {}
        self._spare: Tensor | None = None
        for dtype in dict.fromkeys(parameter.dtype for parameter in self._parameters):
            own = [parameter for parameter in self._parameters if parameter.dtype == dtype]
            count = sum(parameter.numel() for parameter in own)
            flat = self._flat[dtype] = torch.zeros(count + SPARE, dtype=dtype, device=own[0].device)
            for parameter, part in zip(own, flat.split([*(p.numel() for p in own), SPARE])[:-1], strict=True):
                # Strides as the weight's: autograd would not keep a gradient in another layout.
                self._places[parameter] = part.as_strided(parameter.shape, parameter.stride())
            if self._spare is None or dtype.itemsize > self._spare.dtype.itemsize:
                self._spare = flat[count:]
        self._hooks = [p.register_post_accumulate_grad_hook(self._move) for p in self._parameters]

    def sum_over_workers(self, *more: Tensor) -> None:
        """Replace each gradient, and the tensors of `more`, SPARE numbers at the most, by their sums over the workers.

        All workers must have gradients of the same weights.
        """
        for parameter, place in self._places.items():
            if parameter.grad is None:
                place.zero_()  # what lies there is of another step, and would grow without end
        spare = self._spare
        assert spare is not None or not more
        numbers = [tensor.numel() for tensor in more]
        if spare is not None and more:
            spare[: sum(numbers)] = torch.cat([tensor.reshape(-1) for tensor in more])
        for flat in self._flat.values():
            dist.all_reduce(flat)
        if spare is not None and more:
            for tensor, total in zip(more, spare[: sum(numbers)].split(numbers), strict=True):
                tensor.copy_(total.view_as(tensor))

    def close(self) -> None:
        """Let go of the network."""
        for hook in self._hooks:
            hook.remove()

    def _move(self, parameter: Tensor) -> None:
        place = self._places[parameter]
        if parameter.grad is not None and parameter.grad.data_ptr() != place.data_ptr():
            place.copy_(parameter.grad)
            parameter.grad = place
