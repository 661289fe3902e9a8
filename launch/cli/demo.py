"""`gebm demo`: every stage in a row, on real images; or a base and an energy that can be looked at."""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Actors, Address, GpusPerWorker, Seed, Set, Workers

ILLUSTRATION = "illustration"


def command(
    name: Annotated[
        str, typer.Argument(help="A recipe, packaged or a TOML file; or `illustration`: toys, drawn and explained.")
    ] = "mnist",
    out: Annotated[
        str | None,
        typer.Option(help="Run directory: new, or one to go on with. Without: runs/demo or runs/illustration."),
    ] = None,
    seed: Seed = None,
    overrides: Set = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    actors: Actors = None,
    address: Address = None,
) -> None:
    """Train on real digits, sample, evaluate and report: some minutes on two CPU cores.

    `gebm demo illustration`: what an energy can do for its base and what it cannot, on the line and in the plane.
    Run again, it goes on from where it stopped; finished stages are not repeated.
    """
    from gebm.launch.config import load_recipe
    from gebm.launch.demo import run_demo
    from gebm.launch.progress import make_display
    from gebm.launch.results import print_illustration, print_run

    overrides = [*(overrides or []), *([] if seed is None else [f"seed={seed}"])]
    if name == ILLUSTRATION:
        from gebm.launch.illustration.run import run_illustration  # with all that draws: only where it is wanted

        print_illustration(
            run_illustration(
                out or "runs/illustration",
                make_display(),
                overrides,
                workers=workers,
                gpus_per_worker=gpus_per_worker,
                address=address,
            )
        )
        return
    run = run_demo(
        load_recipe(name, overrides),
        out or "runs/demo",
        make_display(),
        workers=workers,
        gpus_per_worker=gpus_per_worker,
        actors=actors,
        address=address,
    )
    print_run(run)
