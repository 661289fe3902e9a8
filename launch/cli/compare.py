"""`gebm compare`: are two sets of images, or of vectors, from one distribution?"""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from gebm.launch.cli.options import Actors, Address, GpusPerActor

FORM = "Form of the test"
FEATURES = "What is compared"


def command(
    first: Annotated[str, typer.Argument(metavar="SHARDS", help="Shards of images or vectors, or a .npy file.")],
    second: Annotated[str, typer.Argument(metavar="SHARDS", help="Another set of the same kind.")],
    extractor: Annotated[
        str | None,
        typer.Option(
            "--features",
            "--extractor",
            help="Feature extractor by its name; raw: the values themselves, for vectors.",
            rich_help_panel=FEATURES,
        ),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Its layer.", rich_help_panel=FEATURES)] = None,
    input_size: Annotated[
        int | None, typer.Option(help="Images are resized to it, in pixels.", rich_help_panel=FEATURES)
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights file.", rich_help_panel=FEATURES)] = None,
    feature_type: Annotated[
        str | None, typer.Option(help="float32 or float16: how features are kept.", rich_help_panel=FEATURES)
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(
            help="mmd; or relative: is the second set closer to the first than --base is?", rich_help_panel=FORM
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="SHARDS", help="Of the relative test: the generator alone.", rich_help_panel=FORM),
    ] = None,
    null: Annotated[
        str | None,
        typer.Option(help="permutation, sign_flip, bins, normal, spectrum, wild_bootstrap.", rich_help_panel=FORM),
    ] = None,
    statistic: Annotated[
        str | None,
        typer.Option(
            help="unbiased, biased, paired, block, linear_time, incomplete. Without: the null's own.",
            rich_help_panel=FORM,
        ),
    ] = None,
    permutations: Annotated[int | None, typer.Option(help="Random labellings.", rich_help_panel=FORM)] = None,
    level: Annotated[float | None, typer.Option(help="Level of the test.", rich_help_panel=FORM)] = None,
    kernel: Annotated[
        str | None, typer.Option(help="gaussian, laplace, imq, ..., or a sum: gaussian+laplace.", rich_help_panel=FORM)
    ] = None,
    bandwidth: Annotated[
        str | None, typer.Option(help="The kernel's scale: a number, or median.", rich_help_panel=FORM)
    ] = None,
    block: Annotated[int | None, typer.Option(help="Pairs in a block.", rich_help_panel=FORM)] = None,
    reach: Annotated[
        int | None, typer.Option(help="Of incomplete: following blocks that each meets.", rich_help_panel=FORM)
    ] = None,
    bins: Annotated[int | None, typer.Option(help="Of the null bins: about how many.", rich_help_panel=FORM)] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="float32, or bf16: faster, some digits fewer, as exact a test.", rich_help_panel=FORM),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of everything random.")] = 0,
    out: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="JSON file for the whole result (.json); or a folder that also keeps what is finished.",
        ),
    ] = None,
    cache: Annotated[str | None, typer.Option(metavar="URL", help="Keeps features for another time.")] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="The block test in one pass, in this process and in memory for a few blocks; with --null normal or "
            "sign_flip.",
            rich_help_panel=FORM,
        ),
    ] = False,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say how long the tiles would take --actors CPUs like this one's.")
    ] = False,
    actors: Actors = None,
    gpus_per_actor: GpusPerActor = None,
    address: Address = None,
) -> None:
    """Two-sample test: MMD on features, with an exact permutation null or another.

    Tiles of the kernel matrix are done by a farm of actors; the result is the same for any number of them. With a
    folder for --out the same command goes on where it was interrupted. Ends with exit code 0 whether or not the samples
    differ.
    """
    from gebm.cluster import storage
    from gebm.cluster.connect import connection
    from gebm.cluster.errors import InputError
    from gebm.evaluation.comparison import (
        ComparisonSettings,
        check_settings_of,
        count_samples,
        estimate_comparison,
        named_samples,
        stream_sets,
    )
    from gebm.evaluation.extractors.settings import ExtractorSettings
    from gebm.launch import stages
    from gebm.launch.config import changed
    from gebm.launch.progress import make_display
    from gebm.launch.results import print_comparison

    features = {"name": extractor, "layer": layer, "input_size": input_size, "weights": weights}
    chosen: dict[str, Any] = {
        "feature_type": feature_type,
        "test": test,
        "null": null,
        "statistic": statistic,
        "permutations": permutations,
        "level": level,
        "kernel": kernel,
        "bandwidth": bandwidth,
        "block": block,
        "reach": reach,
        "bins": bins,
        "precision": precision,
        "seed": seed,
    }
    if any(value is not None for value in features.values()):
        chosen["extractor"] = changed(ExtractorSettings(), features)
    settings = changed(ComparisonSettings(), chosen)
    first, second = storage.absolute(first), storage.absolute(second)
    base = None if base is None else storage.absolute(base)
    samples = named_samples(first, second, base, settings)
    check_settings_of(settings, count_samples(samples))
    if estimate:
        print_comparison(estimate_comparison(samples, settings, actors or os.cpu_count() or 1), settings.level)
        return
    out = storage.absolute(out) if out else None
    folder = out if out and not out.endswith(".json") else None
    if stream:
        if folder is not None:
            raise InputError(f"--out {out}: a stream keeps nothing to go on from; name a file that ends in .json")
        result = stream_sets(first, second, settings)
    else:
        with make_display().stage("compare") as report, connection(address):
            result = stages.compare_samples(
                first,
                second,
                settings,
                report,
                base=base,
                output=folder,
                cache=storage.absolute(cache) if cache else None,
                actors=actors,
                gpus_per_actor=gpus_per_actor,
            )
    print_comparison(result, settings.level)
    if out:
        if folder is None:
            storage.write_json_atomic(out, result)
        print(out)
