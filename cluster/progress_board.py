"""A board on which workers pin records (metrics, progress) and from which the driver takes them."""

from collections import deque
from typing import Any

import ray

CAPACITY = 100_000
"""Records kept when nobody takes them; the oldest go first."""


class _Board:
    def __init__(self) -> None:
        self._records: deque[dict[str, Any]] = deque(maxlen=CAPACITY)

    def post(self, record: dict[str, Any]) -> None:
        self._records.append(record)

    def drain(self) -> list[dict[str, Any]]:
        records = list(self._records)
        self._records.clear()
        return records


class ProgressBoard:
    """A handle to one board, an actor of the connected cluster that needs no CPU. It can be sent to workers.

    Records of one worker come in the order of its posts. The board ends with `close` or with its driver.
    """

    def __init__(self) -> None:
        self._actor: Any = ray.remote(_Board).options(num_cpus=0, max_restarts=-1).remote()

    def close(self) -> None:
        """End the board; records that were not drained are lost."""
        ray.kill(self._actor)


def post(board: ProgressBoard, record: dict[str, Any]) -> None:
    """Pin a small JSON-able record and go on at once; a lost board costs its records, never the work."""
    board._actor.post.remote(record)


def post_and_wait(board: ProgressBoard, record: dict[str, Any]) -> None:
    """Pin a record that must not be lost, such as the reason why this process is about to end."""
    ray.get(board._actor.post.remote(record))


def drain(board: ProgressBoard) -> list[dict[str, Any]]:
    """Take all records off the board, oldest first."""
    return ray.get(board._actor.drain.remote())
