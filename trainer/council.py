"""What the workers agree upon beside the arithmetic: one of them decides, and all do the same in the same round."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

from gebm.cluster.errors import InputError
from gebm.trainer.workers import Workers

DEAD_PEER_SECONDS = 120
"""A worker that all wait for in vain is dead. Rank 0 alone draws pictures and writes lines while others wait."""
WRITING_SECONDS = 24 * 3600
"""Of waiting for each other's files in the background: storage may be slow; who is dead shows elsewhere."""

GO_ON, STOP, MOVE = "", "stop", "move"
"""What the workers may be told: nothing, to stop after a checkpoint, to stop since their node goes away."""
WORDS = (GO_ON, STOP, MOVE)

Value = TypeVar("Value")


class Council:
    """All workers of the run. Each makes one at the same point, and calls its functions at the same points.

    Its groups are gloo's, whatever training uses: small things on the CPU.
    """

    def __init__(self, workers: Workers):
        self.rank, self.world = workers.rank, workers.world
        self._group = self._new_group(DEAD_PEER_SECONDS)
        # Of its own, since collectives of two threads must not meet in one group.
        self.writing = self._new_group(WRITING_SECONDS)

    def _new_group(self, seconds: float) -> dist.ProcessGroup | None:
        if self.world == 1:
            return None
        return dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))

    def word(self, heard: str) -> str:
        """The word that rank 0 has heard, on every rank. Called in every round, hence one byte."""
        if self._group is None:
            return heard
        number = torch.tensor([WORDS.index(heard)], dtype=torch.uint8)
        dist.broadcast(number, src=0, group=self._group)
        return WORDS[int(number)]

    def decide(self, choose: Callable[[], Value]) -> Value:
        """What `choose` returns on rank 0, on every rank; or the `InputError` that it raises there, on every rank."""
        if self._group is None:
            return choose()
        outcome: list[Value | InputError | None] = [None]
        if self.rank == 0:
            try:
                outcome = [choose()]
            except InputError as error:
                outcome = [error]
        dist.broadcast_object_list(outcome, src=0, group=self._group)
        if isinstance(outcome[0], InputError):
            raise outcome[0]
        return outcome[0]  # type: ignore[return-value]
