"""Options that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

from typing import Annotated

import typer

Address = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to join: HOST:PORT, or 'auto' for this machine's. Without: one is started.",
        rich_help_panel="Where it runs",
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Actors of the farm. Without: one for each GPU, or each CPU.",
        rich_help_panel="Where it runs",
    ),
]
GpusPerActor = Annotated[
    float | None,
    typer.Option(
        help="Share of a GPU that each actor has, such as 0.5; 0: CPUs alone, even where there are GPUs.",
        rich_help_panel="Where it runs",
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Training workers. Without: one for each GPU, or two on CPUs.",
        rich_help_panel="Where it runs",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(min=0, help="GPUs of each worker; a share such as 0.5 too.", rich_help_panel="Where it runs"),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another value for a key of the recipe, e.g. trainer.batch_size=64. May be repeated.",
    ),
]
Seed = Annotated[int | None, typer.Option(min=0, help="Seed of everything random. Without: the recipe's.")]
