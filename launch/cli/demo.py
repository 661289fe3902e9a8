"""`gebm demo`: every stage in a row, on real images."""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Actors, Address, GpusPerWorker, Seed, Set, Workers


def command(
    out: Annotated[str, typer.Option(help="Run directory: new, or one to go on with.")] = "runs/demo",
    recipe: Annotated[str, typer.Option(help="Recipe: a packaged name or a TOML file.")] = "mnist",
    seed: Seed = None,
    overrides: Set = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    actors: Actors = None,
    address: Address = None,
) -> None:
    """Train on real digits, sample, evaluate and report: some minutes on two CPU cores.

    Run again, it goes on from where it stopped; finished stages are not repeated.
    """
    from gebm.launch.config import load_recipe
    from gebm.launch.demo import run_demo
    from gebm.launch.progress import make_display
    from gebm.launch.results import print_run

    overrides = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    run = run_demo(
        load_recipe(recipe, overrides),
        out,
        make_display(),
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        actors=actors,
        address=address,
    )
    print_run(run)
