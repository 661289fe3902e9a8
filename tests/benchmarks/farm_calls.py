"""What an answer costs a farm's driver: `python -m tests.benchmarks.farm_calls [--quick] [--json FILE]`.

So many calls are out at a time, each answered after a random time, RATE of them a second in all; for each answer that
comes, the next call goes out. Ours is the queue that Ray's callbacks fill, the peer `ray.wait` over all that are out,
then all that are ready. Seconds are those of the driver's processor for a thousand answers, all its threads together.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

from gebm.cluster.actors import Answer, RayActors
from gebm.cluster.connect import connection
from tests.benchmarks.harness import Record, machine, main

OUT = (10, 100, 1000)
ANSWERS = 2000
RATE = 300


@ray.remote(num_cpus=0)
class Many:
    """Stands for so many actors: answers each call after a while."""

    async def do(self, out: Any, attempt: str) -> tuple[dict[str, Any], float]:
        await asyncio.sleep(random.uniform(0, 2 * out / RATE))
        return {"count": 1}, 0.0


class OneForAll(RayActors):
    """The queue of the farm, with one process behind all its numbers."""

    def __init__(self, actor: Any) -> None:
        super().__init__(dict, {})
        self._actors = _Same(actor)


class _Same(dict[int, Any]):
    def __init__(self, actor: Any) -> None:
        super().__init__()
        self._actor = actor

    def __getitem__(self, number: int) -> Any:
        return self._actor


def by_queue(actor: Any, out: int, answers: int) -> float:
    """Processor seconds of the driver for `answers` answers."""
    actors = OneForAll(actor)
    begun = time.process_time()
    for number in range(out):
        actors.do(number, out, "try")  # type: ignore[arg-type]
    left = answers
    while left > 0:
        come: list[Answer] = actors.answers(1.0)
        for answer in come:
            assert answer.error is None
            left -= 1
            if left >= out:
                actors.do(answer.number, out, "try")  # type: ignore[arg-type]
    return time.process_time() - begun


def by_wait(actor: Any, out: int, answers: int) -> float:
    """The same by `ray.wait`."""
    begun = time.process_time()
    references = [actor.do.remote(out, "try") for _ in range(out)]
    left = answers
    while left > 0:
        ray.wait(references, num_returns=1, timeout=1.0)
        ready, references = ray.wait(references, num_returns=len(references), timeout=0)
        for reference in ready:
            ray.get(reference)
            left -= 1
            if left >= out:
                references.append(actor.do.remote(out, "try"))
    return time.process_time() - begun


def measure(quick: bool) -> Sequence[Record]:
    here, records = machine(), []
    with connection("local", cpus=2):
        actor = Many.options(max_concurrency=max(OUT)).remote()  # type: ignore[attr-defined]
        ray.get(actor.do.remote(0, ""))
        for out in OUT[:2] if quick else OUT:
            answers = ANSWERS // (10 if quick else 1)
            sides: tuple[Callable[[Any, int, int], float], ...] = (by_queue, by_wait)
            ours, peer = (1000 * side(actor, out, answers) / answers for side in sides)
            records.append(Record(f"1,000 answers, {out:,} calls out", ours, "ray.wait", peer, None, here))
    return records


if __name__ == "__main__":
    main("Seconds of the driver's processor for a thousand answers", measure)
