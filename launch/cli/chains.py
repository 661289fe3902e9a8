"""`gebm chains`: a picture of the same chains at several stages, at high and at low friction."""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Seed

PANEL = "Chains (without: from the run's sampler)"


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A trained run.")],
    frictions: Annotated[
        list[float] | None,
        typer.Option("--friction", help="One block of rows. May be repeated. Without: 10 and 0.1."),
    ] = None,
    chains: Annotated[int, typer.Option(min=1, help="Rows of each block.")] = 8,
    stages: Annotated[int, typer.Option(min=2, help="Columns.")] = 11,
    every: Annotated[int, typer.Option(min=1, help="Steps from one stage to the next.")] = 50,
    seed: Seed = None,
    inverse_temperature: Annotated[float | None, typer.Option(rich_help_panel=PANEL)] = None,
    step_size: Annotated[float | None, typer.Option(help="Of kla.", rich_help_panel=PANEL)] = None,
    label: Annotated[
        int | None, typer.Option(min=0, help="Class of all chains of a conditional model.", rich_help_panel=PANEL)
    ] = None,
) -> None:
    """Draw the same chains at several stages, at high and at low friction, as rows of images.

    Writes RUN/chains.png, and RUN/chains.json, which the report shows.
    """
    from gebm.cluster import storage
    from gebm.cluster.errors import InputError
    from gebm.launch import stages as stages_of_a_run
    from gebm.launch.chain_stages import draw_stages, read_stages, stage_settings
    from gebm.launch.config import changed
    from gebm.launch.progress import make_display
    from gebm.launch.report.stages import stages_picture
    from gebm.launch.run_directory import load_run

    recipe, run = load_run(run), storage.absolute(run)
    chosen = [10.0, 0.1] if not frictions else frictions
    if any(friction <= 0 for friction in chosen):
        raise InputError(f"--friction {min(chosen):g}: give a positive number")
    options = {"inverse_temperature": inverse_temperature, "step_size": step_size, "label": label}
    settings = changed(stage_settings(stages_of_a_run.sampler_of(run, recipe), every, stages), options)
    with make_display().stage("chains") as report:
        draw_stages(run, settings, chosen, chains, recipe.seed if seed is None else seed, report)
    found = read_stages(run)
    assert found is not None
    picture = storage.join(run, "chains.png")
    storage.write_bytes_atomic(picture, stages_picture(*found))
    print(picture)
