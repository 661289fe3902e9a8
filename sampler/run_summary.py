"""What each actor of a sampling run did with its time: `summary.json` beside the shards, no part of the samples.

It tells of the last run that did anything; one that finds all shards there leaves it as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmSummary
from gebm.cluster.settings import StrictModel

SUMMARY_NAME = "summary.json"
FORMAT_VERSION = 1


class ActorShare(StrictModel):
    """One actor. Seconds: of chains; of all its shards; since it had its model."""

    host: str
    pid: int
    shards: int
    samples: int
    chain_seconds: float
    busy_seconds: float
    lived_seconds: float

    @property
    def rate(self) -> float:
        """Samples a second of its life."""
        return self.samples / self.lived_seconds if self.lived_seconds > 0 else 0.0

    @property
    def chain_share(self) -> float:
        """The share of its life that went to chains."""
        return self.chain_seconds / self.lived_seconds if self.lived_seconds > 0 else 0.0


class RunSummary(StrictModel):
    """One run of the farm. samples: that it made. retried, reissued: shards; deaths: actors."""

    format_version: int = FORMAT_VERSION
    seconds: float
    samples: int
    failed: int
    retried: int
    reissued: int
    deaths: int
    actors: tuple[ActorShare, ...]

    @property
    def rate(self) -> float:
        """Samples a second, from the start of the run to its end."""
        return self.samples / self.seconds if self.seconds > 0 else 0.0

    @property
    def chain_share(self) -> float:
        """The share of all actors' time that went to chains."""
        lived = sum(actor.lived_seconds for actor in self.actors)
        return sum(actor.chain_seconds for actor in self.actors) / lived if lived > 0 else 0.0


def run_summary(farm: FarmSummary, records: Iterable[dict[str, Any]]) -> RunSummary:
    """Of a farm that has run, and the records of its shards: `host`, `pid`, `chain_seconds`, `seconds_taken_over`.

    Chains that an earlier attempt had got through are not this actor's time.
    """
    chains: dict[tuple[str, int], float] = defaultdict(float)
    for record in records:
        chains[record["host"], record["pid"]] += record["chain_seconds"] - record["seconds_taken_over"]
    actors = tuple(
        ActorShare(
            host=actor["host"],
            pid=actor["pid"],
            shards=actor["items"],
            samples=actor["units"],
            chain_seconds=chains[actor["host"], actor["pid"]],
            busy_seconds=actor["busy_seconds"],
            lived_seconds=actor["lived_seconds"],
        )
        for actor in farm.actors.values()
    )
    return RunSummary(
        seconds=farm.seconds,
        samples=sum(actor.samples for actor in actors),
        failed=farm.failed,
        retried=farm.retried,
        reissued=farm.reissued,
        deaths=farm.deaths,
        actors=actors,
    )


def write_summary(output: str, summary: RunSummary) -> None:
    storage.write_json_atomic(storage.join(output, SUMMARY_NAME), summary.model_dump(mode="json"))


def read_summary(output: str) -> RunSummary | None:
    """That of the set at `output`; None where there is none. Raises `InputError` when it is not readable."""
    location = storage.join(output, SUMMARY_NAME)
    try:
        return RunSummary.model_validate_json(storage.read_bytes(location))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValidationError as error:
        raise InputError(
            f"{location} is not the summary of a sampling run ({error.errors()[0]['msg']}); remove it"
        ) from error
