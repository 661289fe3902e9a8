"""`gebm evaluate`: do the samples look like the data, and more so than those of the base?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from gebm.launch.cli.options import Actors, Address


def command(
    samples: Annotated[str, typer.Argument(metavar="SAMPLES", help="Shards of generated images or vectors.")],
    reference: Annotated[str, typer.Option(metavar="SHARDS", help="Shards of real ones.")],
    base: Annotated[
        str | None, typer.Option(metavar="SHARDS", help="Shards of the generator alone: adds ratios to it.")
    ] = None,
    others: Annotated[
        list[str] | None,
        typer.Option(
            "--samples",
            metavar="SAMPLES",
            help="Other samples against the same data and base, in one table. May be repeated.",
        ),
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Comma-separated: fid, kid, precision_recall, density_coverage, modes, labels.")
    ] = None,
    tests: Annotated[str | None, typer.Option(help="Comma-separated: mmd, relative; 'none' for none.")] = None,
    digits: Annotated[
        str | None,
        typer.Option(
            metavar="SHARDS", help="Labelled training digits, for modes and labels: a classifier learns them."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="JSON file that gets the whole result.")] = None,
    extractor: Annotated[
        str | None,
        typer.Option(help="Feature extractor, as torch-fidelity names it; raw: the values themselves, for vectors."),
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Its layer.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Side to which images are resized, in pixels.")] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights file.")] = None,
    permutations: Annotated[int | None, typer.Option(help="Permutations of each test.")] = None,
    groups: Annotated[int | None, typer.Option(help="Groups of the jackknife.")] = None,
    level: Annotated[float | None, typer.Option(help="Level of the tests.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Kernel of the tests: gaussian, laplace, ...")] = None,
    unequal: Annotated[
        bool | None, typer.Option("--unequal", help="Allow sets of different size (FID depends on it).")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of groups and permutations.")] = 0,
    cache: Annotated[str | None, typer.Option(metavar="URL", help="Keeps features for the next time.")] = None,
    actors: Actors = None,
    address: Address = None,
) -> None:
    """FID and KID with intervals, and MMD tests, of samples against real data.

    With --samples: a table of all sets, p-values of the relative test corrected for their number.
    """
    from gebm.cluster import storage
    from gebm.cluster.connect import connection
    from gebm.cluster.index import load_index
    from gebm.evaluation.settings import EvaluationSettings
    from gebm.launch import stages
    from gebm.launch.config import changed
    from gebm.launch.progress import make_display
    from gebm.launch.results import print_evaluation
    from gebm.launch.several import evaluate_models
    from gebm.launch.several_table import print_models

    default = EvaluationSettings()
    settings = changed(
        default,
        {
            "metrics": _names(metrics),
            "tests": _names(tests),
            "permutations": permutations,
            "groups": groups,
            "level": level,
            "kernel": kernel,
            "allow_unequal_sizes": unequal,
            "extractor": changed(
                default.extractor,
                {"name": extractor, "layer": layer, "input_size": input_size, "weights": weights},
            ),
        },
    )
    models = [storage.absolute(url) for url in (samples, *(others or []))]
    sets = [storage.absolute(url) if url else None for url in (reference, base, digits)]
    for url in filter(None, (*models, *sets)):
        load_index(url)
    options: dict[str, Any] = {
        "digits": sets[2],
        "seed": seed,
        "out": storage.absolute(out) if out else None,
        "cache": storage.absolute(cache) if cache else None,
        "actors": actors,
    }
    with make_display().stage("evaluate") as report, connection(address):
        if others:
            result, show = evaluate_models(models, str(sets[0]), sets[1], settings, report, **options), print_models
        else:
            result = stages.evaluate_samples(models[0], str(sets[0]), sets[1], settings, report, **options)
            show = print_evaluation
    show(result)
    if out:
        print(storage.absolute(out))


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    return () if names == ("none",) else names
