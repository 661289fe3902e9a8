"""A board on which workers pin records (metrics, progress) and signs of life, and from which the driver takes them.

The driver leaves a word on it, which every worker hears in answer to its next sign of life.
"""

from collections import deque
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

CAPACITY = 100_000
"""Records kept when nobody takes them; the oldest go first."""


class _Board:
    def __init__(self) -> None:
        self._records: deque[dict[str, Any]] = deque(maxlen=CAPACITY)
        self._signs: dict[int, dict[str, Any]] = {}
        self._word = ""

    def post(self, record: dict[str, Any]) -> None:
        self._records.append(record)

    def drain(self) -> list[dict[str, Any]]:
        records = list(self._records)
        self._records.clear()
        return records

    def sign(self, worker: int, sign: dict[str, Any]) -> str:
        self._signs[worker] = sign
        return self._word

    def signs(self, word: str) -> dict[int, dict[str, Any]]:
        self._word = word
        return self._signs


class ProgressBoard:
    """A handle to one board, an actor of the connected cluster that needs no CPU. It can be sent to workers.

    It stands on the driver's node, if that can have it: a worker's node may go, and the board must not go with it.
    Records of one worker come in the order of its posts. The board ends with `close` or with its driver.
    """

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._actor: Any = ray.remote(_Board).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()

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


def give_sign(board: ProgressBoard, worker: int, sign: dict[str, Any], patience: float) -> str:
    """Replace the worker's sign of life; returns the word that the driver has left ("" for none).

    Raises `ray.exceptions.RayError` when the board does not answer within `patience` seconds.
    """
    return ray.get(board._actor.sign.remote(worker, sign), timeout=patience)


def signs_of_life(board: ProgressBoard, word: str) -> dict[int, dict[str, Any]]:
    """The latest sign of each worker that gave one, and leave `word` for all of them."""
    return ray.get(board._actor.signs.remote(word))
