"""`gebm contest`: all samplers against each other on one model, at one target law and one budget."""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Actors, Address


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A trained run with validation and test images.")],
    evaluations: Annotated[
        int | None, typer.Option(min=1, help="Of the energy, for each sample. Without: 100.")
    ] = None,
    inverse_temperature: Annotated[
        float | None, typer.Option(min=0, help="Of the one target law. Without: that of the run's sampler.")
    ] = None,
    samplers: Annotated[
        list[str] | None,
        typer.Option("--sampler", help="One that takes part. May be repeated. Without: all seven."),
    ] = None,
    count: Annotated[
        int | None, typer.Option(min=40, help="Samples of each. Without: as many as the recipe's sample_count.")
    ] = None,
    tune_count: Annotated[
        int | None, typer.Option(min=40, help="Samples of each candidate in tuning. Without: the recipe's tune.count.")
    ] = None,
    unequal: Annotated[
        bool, typer.Option("--unequal", help="Allow another number of samples than of test images.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another key of the contest: contest.contenders=[{sampler='ula', step_sizes=[0.01]}].",
        ),
    ] = None,
    actors: Actors = None,
    address: Address = None,
) -> None:
    """Compare base, IMH, DOT, DDLS, ULA, MALA, HMC and KLA at equal numbers of energy evaluations.

    Settings are chosen on validation images, the table is of the test images. Writes RUN/contest.json, which the
    report shows. Interrupted, the same command goes on.
    """
    from gebm.cluster import storage
    from gebm.cluster.connect import connection
    from gebm.cluster.errors import InputError
    from gebm.launch.config import changed, overridden
    from gebm.launch.contest import ContestSettings, hold_contest
    from gebm.launch.progress import make_display
    from gebm.launch.run_directory import CONTEST, load_run
    from gebm.launch.several_table import print_models

    recipe, run = load_run(run), storage.absolute(run)
    options = {"evaluations": evaluations, "inverse_temperature": inverse_temperature, "tune_count": tune_count}
    chosen = overridden(changed(ContestSettings(), options), "contest", settings or [])
    if samplers:
        there = {each.sampler: each for each in chosen.contenders}
        if unknown := [name for name in samplers if name not in there]:
            raise InputError(f"--sampler {unknown[0]}: one of {', '.join(there)} takes part")
        picked = tuple(each for name, each in there.items() if name in samplers)
        chosen = chosen.model_copy(update={"contenders": picked})
    display = make_display()
    with connection(address):
        result = hold_contest(
            run,
            recipe,
            chosen,
            display,
            count=recipe.sample_count if count is None else count,
            allow_unequal_sizes=unequal,
            actors=actors,
        )
    for reason in result["left_out"]:
        print(f"passed over: {reason}")
    print_models(result)
    print(storage.join(run, CONTEST))
