"""What the actors of a sampling run did, on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from gebm.sampler.run_summary import RunSummary

MOST_ACTORS = 32
"""That get a line of their own."""


def print_summary(summary: RunSummary, console: Console | None = None) -> None:
    """A line for each actor, and the whole run's. To standard error: the results of a command are its files."""
    console = console or Console(stderr=True, highlight=False)
    table = Table("actor", "shards", "samples", "a second", "in chains", "busy", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for actor in summary.actors[:MOST_ACTORS]:
        busy = actor.busy_seconds / actor.lived_seconds if actor.lived_seconds else 0.0
        table.add_row(
            f"{actor.host} {actor.pid}",
            f"{actor.shards:,}",
            f"{actor.samples:,}",
            f"{actor.rate:,.1f}",
            f"{actor.chain_share:.1%}",
            f"{busy:.1%}",
        )
    console.print(table)
    if len(summary.actors) > MOST_ACTORS:
        console.print(f"and {len(summary.actors) - MOST_ACTORS} more actors: all are in summary.json")
    troubles = {
        "shards tried again": summary.retried,
        "given to a second actor": summary.reissued,
        "actors that died": summary.deaths,
    }
    trouble = "".join(f", {words}: {number}" for words, number in troubles.items() if number)
    console.print(
        f"{summary.samples:,} samples in {summary.seconds:,.1f} s: {summary.rate:,.1f} a second, "
        f"{summary.chain_share:.1%} of the actors' time in chains{trouble}"
    )
