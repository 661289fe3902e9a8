"""What a worker's training thread and the thread that speaks for it to the driver know of each other."""

from __future__ import annotations

from dataclasses import dataclass

from gebm.trainer.council import GO_ON


@dataclass
class Pulse:
    """Each field is written by one thread and read by the other."""

    round: int = 0
    """Rounds done: written by training."""
    word: str = GO_ON
    """What the driver, or the node's end, asks for: read by training, on rank 0."""
