"""Signs of life of one worker, by a thread of its own: where its training is, and what the driver has to say."""

from __future__ import annotations

import itertools
import os
import socket
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

import ray
from ray.exceptions import ActorDiedError, RayError

from gebm.cluster.processes import birth
from gebm.cluster.progress_board import give_sign, post
from gebm.trainer.council import GO_ON, MOVE

if TYPE_CHECKING:
    from gebm.cluster.progress_board import ProgressBoard
    from gebm.trainer.pulse import Pulse

BEAT_SECONDS = 1.0
NOTICE_SECONDS = 5.0  # as often as Ray Train itself looks
END = "end"
"""The driver's word that ends a worker at once, without a checkpoint."""

HERE = str(Path(__file__).parents[1])
OURS = tuple(os.path.join(HERE, name, "") for name in ("cluster", "evaluation", "trainer"))
COLLECTIVES = os.path.join("torch", "distributed", "distributed_c10d.py")


class Heartbeat:
    """While it is open, the board knows that this process lives, and `pulse` hears the driver's word.

    A process that is stopped, or whose node is gone, falls silent; one whose training hangs does not, but tells where.
    """

    def __init__(self, board: ProgressBoard, pulse: Pulse, rank: int):
        self._board, self._pulse, self._rank = board, pulse, rank
        self._training = threading.get_ident()
        self._over = threading.Event()
        self._who = {
            "pid": os.getpid(),
            "born": birth(os.getpid()),
            "node": ray.get_runtime_context().get_node_id(),
            "host": socket.gethostname(),
        }
        self._numbers = itertools.count()

    def __enter__(self) -> Heartbeat:
        for name, beat in (("heartbeat", self._beat), ("preemption-notice", self._listen)):
            threading.Thread(target=beat, name=name, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._give(over=True)

    def _beat(self) -> None:
        while not self._over.is_set():
            word = self._give()
            if word == END:
                os._exit(1)
            if word != GO_ON:
                self._pulse.word = word
            self._over.wait(BEAT_SECONDS)

    def _give(self, over: bool = False) -> str:
        frame = None if over else sys._current_frames().get(self._training)
        place, waits = whereabouts(frame)
        sign = {**self._who, "number": next(self._numbers), "round": self._pulse.round}
        try:
            return give_sign(
                self._board, self._rank, sign | {"place": place, "waits": waits, "over": over}, patience=10.0
            )
        except ActorDiedError:
            return END  # it has gone with its driver, which nobody else would tell this worker
        except RayError:
            return GO_ON  # it is being started again

    def _listen(self) -> None:
        """Ray's notice that a node goes away. All workers must ask equally often: asking waits for the others."""
        from ray.train import get_preemption_info

        while not self._over.wait(NOTICE_SECONDS):
            try:
                info = get_preemption_info()
            except RayError:
                return  # the group is ending
            if info is not None:
                self._pulse.word = MOVE
                if self._rank == 0:
                    post(self._board, {"event": f"node {', '.join(info.preempted_node_ids)} is about to go away"})
                return


def whereabouts(frame: FrameType | None) -> tuple[str, str]:
    """Where a thread is: the innermost line of ours, and the collective that it waits in; "" for neither."""
    place = waits = ""
    while frame is not None and not place:
        file = frame.f_code.co_filename
        if file.endswith(COLLECTIVES):
            waits = frame.f_code.co_name
        elif file.startswith(OURS):
            place = f"{os.path.relpath(file, HERE)}:{frame.f_lineno}"
        frame = frame.f_back
    return place, waits
