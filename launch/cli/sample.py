"""`gebm sample`: samples of a trained model, or of its base alone."""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Actors, Address, GpusPerActor, Seed

STORED = "What is stored"
PANEL = "Sampler settings (without: tuned, else the recipe's)"


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A trained run.")],
    out: Annotated[str, typer.Option(metavar="URL", help="Folder that gets the shards and their manifest.")],
    sampler: Annotated[
        str | None,
        typer.Option(
            help="ula, ddls, kla, mala, hmc, rwmh, imh, dot, sir; base: the generator alone. Without: the tuned."
        ),
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="Samples to draw.")] = 1000,
    seed: Seed = None,
    image_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="png|npy",
            help="Of images: png, or npy for raw uint8 (height, width, channels). Vectors are always npy.",
            rich_help_panel=STORED,
        ),
    ] = None,
    save: Annotated[
        list[str] | None,
        typer.Option(
            metavar="latents|energies",
            help="Kept beside every sample, as latent.npy or energy.npy. May be repeated.",
            rich_help_panel=STORED,
        ),
    ] = None,
    inverse_temperature: Annotated[float | None, typer.Option(rich_help_panel=PANEL)] = None,
    step_size: Annotated[float | None, typer.Option(rich_help_panel=PANEL)] = None,
    steps: Annotated[int | None, typer.Option(rich_help_panel=PANEL)] = None,
    friction: Annotated[float | None, typer.Option(help="Of kla.", rich_help_panel=PANEL)] = None,
    leapfrog_steps: Annotated[int | None, typer.Option(help="Of hmc.", rich_help_panel=PANEL)] = None,
    label: Annotated[
        int | None,
        typer.Option(min=0, help="Class of every sample of a conditional model. Without: any.", rich_help_panel=PANEL),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            help="float32, or bfloat16: gradients by networks in bfloat16, exact samplers stay exact.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    chains: Annotated[int | None, typer.Option(help="Run as one batch.", rich_help_panel=PANEL)] = None,
    shard_size: Annotated[int | None, typer.Option(help="Samples in a shard.", rich_help_panel=PANEL)] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Any other key of the sampler, e.g. sampler.samples_per_chain=4. May be repeated.",
            rich_help_panel=PANEL,
        ),
    ] = None,
    actors: Actors = None,
    gpus_per_actor: GpusPerActor = None,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(
            help="How much of its chains is lost at the most when an actor dies; changes no byte of the samples.",
            rich_help_panel="Where it runs",
        ),
    ] = 60.0,
    address: Address = None,
) -> None:
    """Draw samples on a farm of actors, as shards.

    The same seed gives the same bytes for any number of actors. Interrupted, the same command goes on.
    """
    from gebm.cluster import storage
    from gebm.cluster.connect import connection
    from gebm.launch import stages
    from gebm.launch.config import changed, overridden
    from gebm.launch.progress import make_display
    from gebm.launch.run_directory import load_run
    from gebm.launch.sampling_table import print_summary
    from gebm.sampler.run_summary import RunSummary
    from gebm.sampler.settings import SamplerSettings
    from gebm.sampler.stored import StoreSettings
    from gebm.trainer.model.export import find_model

    recipe, run, out = load_run(run), storage.absolute(run), storage.absolute(out)
    options = {
        "inverse_temperature": inverse_temperature,
        "step_size": step_size,
        "steps": steps,
        "friction": friction,
        "leapfrog_steps": leapfrog_steps,
        "label": label,
        "precision": precision,
        "chains": chains,
        "shard_size": shard_size,
    }
    # The name first: tuned values belong to the sampler that they were tuned for.
    changed(SamplerSettings(), {"name": sampler})
    chosen = overridden(changed(stages.sampler_of(run, recipe, sampler), options), "sampler", settings or [])
    store = changed(StoreSettings(), {"format": image_format, "save": save or None})
    model = find_model(run)
    summaries: list[RunSummary] = []
    with make_display().stage("sample") as report, connection(address):
        stages.draw_samples(
            model,
            out,
            chosen,
            report,
            count=count,
            seed=recipe.seed if seed is None else seed,
            actors=actors,
            gpus_per_actor=gpus_per_actor,
            store=store,
            checkpoint_seconds=checkpoint_seconds,
            summary=summaries.append,
        )
    for summary in summaries:
        print_summary(summary)
    print(out)
