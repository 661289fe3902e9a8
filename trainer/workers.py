"""The group of workers that train one model, seen from one of them, through accelerate.

Every loss is a function of the energies of the *global* batch. A worker gathers those energies (a few hundred
numbers), differentiates the loss with respect to them, back-propagates its own rows, and the workers' gradients
are summed. One rule for every objective, and exactly the gradient of one worker with the whole batch: no mean of
means, no softmax of a part.
"""

from __future__ import annotations

import torch
from accelerate import Accelerator
from torch import Tensor


class Workers:
    """`rank` of `world` workers, its device, and the collectives that training needs.

    `half`: the type that networks compute in, where it is a smaller one than that of their weights.
    """

    def __init__(self, accelerator: Accelerator, half: torch.dtype | None = None):
        self.accelerator, self.half = accelerator, half
        self.rank: int = accelerator.process_index
        self.world: int = accelerator.num_processes
        self.device: torch.device = accelerator.device

    def autocast(self) -> torch.autocast:
        """Inside, networks compute in the type `half`; outside, losses and sums keep that of the weights."""
        return torch.autocast(self.device.type, self.half or torch.bfloat16, enabled=self.half is not None)

    def gather(self, rows: Tensor) -> Tensor:
        """The rows of all workers, `(n, ...)` to `(world * n, ...)`, in order of rank, detached."""
        if self.world == 1:
            return rows.detach()
        return self.accelerator.gather(rows.detach().contiguous())

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum of the workers' tensors, all of one shape, detached."""
        if self.world == 1:
            return tensor.detach()
        return self.accelerator.reduce(tensor.detach().contiguous(), reduction="sum")

    def wait(self) -> None:
        """Return when every worker has come here."""
        self.accelerator.wait_for_everyone()

    def own(self, gathered: Tensor) -> Tensor:
        """This worker's part of gathered rows."""
        count = len(gathered) // self.world
        return gathered[self.rank * count : (self.rank + 1) * count]
