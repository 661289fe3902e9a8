"""`gebm evaluate`: do the samples look like the data, and more so than those of the base?"""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Actors, Address


def command(
    samples: Annotated[str, typer.Argument(metavar="SAMPLES", help="Shards of generated images or vectors.")],
    reference: Annotated[str, typer.Option(metavar="SHARDS", help="Shards of real ones.")],
    base: Annotated[
        str | None, typer.Option(metavar="SHARDS", help="Shards of the generator alone: adds ratios to it.")
    ] = None,
    metrics: Annotated[str | None, typer.Option(help="Comma-separated: fid, kid, modes, labels.")] = None,
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
    """FID and KID with intervals, and MMD tests, of samples against real data."""
    from gebm.cluster import storage
    from gebm.cluster.connect import connection
    from gebm.cluster.index import load_index
    from gebm.evaluation.settings import EvaluationSettings
    from gebm.launch import stages
    from gebm.launch.config import changed
    from gebm.launch.progress import make_display
    from gebm.launch.results import print_evaluation

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
    sets = [storage.absolute(url) if url else None for url in (samples, reference, base, digits)]
    for url in filter(None, sets):
        load_index(url)
    with make_display().stage("evaluate") as report, connection(address):
        result = stages.evaluate_samples(
            str(sets[0]),
            str(sets[1]),
            sets[2],
            settings,
            report,
            digits=sets[3],
            seed=seed,
            out=storage.absolute(out) if out else None,
            cache=storage.absolute(cache) if cache else None,
            actors=actors,
        )
    print_evaluation(result)
    if out:
        print(storage.absolute(out))


def _names(text: str | None) -> tuple[str, ...] | None:
    if text is None:
        return None
    names = tuple(part.strip() for part in text.split(",") if part.strip())
    return () if names == ("none",) else names
