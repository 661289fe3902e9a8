"""`gebm tune`: the sampler's settings, chosen on validation images."""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Actors, Address


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A trained run.")],
    validation: Annotated[
        str | None, typer.Option(metavar="SHARDS", help="Validation images. Without: the run's own.")
    ] = None,
    actors: Actors = None,
    address: Address = None,
) -> None:
    """Choose inverse temperature, step size and chain length on validation images.

    What was tried and chosen is written to RUN/tune.json, which `gebm sample` reads.
    """
    from gebm.cluster import storage
    from gebm.cluster.connect import connection
    from gebm.launch import stages
    from gebm.launch.progress import make_display
    from gebm.launch.run_directory import TUNE, data_url, load_run
    from gebm.launch.timings import timed
    from gebm.launch.tune_scores import passed_over

    recipe, run = load_run(run), storage.absolute(run)
    shards = storage.absolute(validation) if validation else data_url(run, recipe, "validation")
    with make_display().stage("tune") as report, connection(address), timed(run, "tune"):
        chosen = stages.tune_sampler(run, recipe, report, validation=shards, actors=actors)
    for reason in passed_over(storage.read_json(storage.join(run, TUNE))["tried"]):
        print(f"passed over: {reason}")
    print(
        f"{chosen.name}: inverse_temperature {chosen.inverse_temperature:g}, step_size {chosen.step_size:g}, "
        f"steps {chosen.steps}"
    )
    print(storage.join(run, TUNE))
