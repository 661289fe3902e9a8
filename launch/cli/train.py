"""`gebm train`: from a recipe and shards to a run with a model."""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Address, GpusPerWorker, Seed, Set, Workers


def command(
    recipe: Annotated[
        str, typer.Argument(help="Recipe: a packaged name (mnist, cifar10_convnet, ...) or a TOML file.")
    ],
    out: Annotated[str, typer.Option(metavar="RUN", help="Run directory: new, or one to go on with.")],
    data: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Training shards, or the folder of train/, validation/ and test/."),
    ] = None,
    validation: Annotated[str | None, typer.Option(metavar="URL", help="Validation shards.")] = None,
    overrides: Set = None,
    seed: Seed = None,
    workers: Workers = None,
    gpus_per_worker: GpusPerWorker = None,
    address: Address = None,
) -> None:
    """Train a model. The same recipe runs on one CPU, one GPU or a Ray cluster.

    Interrupted, it goes on from its last checkpoint when run again; finished, it has nothing to do.
    A model with a density ends with its held-out likelihood beside that of its base.
    """
    from gebm.cluster.connect import connection
    from gebm.launch import stages
    from gebm.launch.config import load_recipe
    from gebm.launch.progress import make_display
    from gebm.launch.results import print_likelihood
    from gebm.launch.run_directory import claimed_run, with_data
    from gebm.launch.timings import timed

    settings = load_recipe(recipe, [*(overrides or []), *([] if seed is None else [f"seed={seed}"])])
    settings = settings.model_copy(update={"data": with_data(settings.data, data, validation)})
    stages.check_input(out, settings)
    display = make_display()
    with claimed_run(out, settings) as run:
        with display.stage("data") as report, timed(run, "data"):
            stages.prepare_data(run, settings, report)
        with display.stage("train") as report, connection(address), timed(run, "train"):
            stages.train_model(run, settings, report, workers=workers, gpus_per_worker=gpus_per_worker)
        if stages.held_out_split(settings) is not None:
            with display.stage("likelihood"), timed(run, "likelihood"):
                found = stages.report_likelihood(run, settings)
            print_likelihood(found)
    print(f"{run}/model")
