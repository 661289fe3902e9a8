"""`gebm compare`: are two sets of images, or of vectors, from one distribution?"""

from __future__ import annotations

from typing import Annotated

import typer

from gebm.launch.cli.options import Actors, Address


def command(
    first: Annotated[str, typer.Argument(metavar="SHARDS", help="Shards of images or vectors.")],
    second: Annotated[str, typer.Argument(metavar="SHARDS", help="Shards of the same kind.")],
    extractor: Annotated[
        str | None, typer.Option(help="Feature extractor by its name; raw: the values themselves, for vectors.")
    ] = None,
    layer: Annotated[str | None, typer.Option(help="Its layer.")] = None,
    input_size: Annotated[int | None, typer.Option(help="Images are resized to it, in pixels.")] = None,
    weights: Annotated[str | None, typer.Option(help="Its weights file.")] = None,
    permutations: Annotated[int | None, typer.Option(help="Permutations of the test.")] = None,
    level: Annotated[float | None, typer.Option(help="Level of the test.")] = None,
    kernel: Annotated[str | None, typer.Option(help="Its kernel: gaussian, laplace, imq, ...")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the permutations.")] = 0,
    out: Annotated[str | None, typer.Option(metavar="FILE", help="JSON file for the whole result.")] = None,
    cache: Annotated[str | None, typer.Option(metavar="URL", help="Keeps features for another time.")] = None,
    actors: Actors = None,
    address: Address = None,
) -> None:
    """Two-sample test: MMD on features, with an exact permutation null.

    Ends with exit code 0 whether or not the samples differ.
    """
    from gebm.cluster import storage
    from gebm.cluster.connect import connection
    from gebm.cluster.index import load_index
    from gebm.evaluation.settings import EvaluationSettings
    from gebm.launch import stages
    from gebm.launch.config import changed
    from gebm.launch.progress import make_display
    from gebm.launch.results import print_comparison

    default = EvaluationSettings()
    settings = changed(
        default,
        {
            "permutations": permutations,
            "level": level,
            "kernel": kernel,
            "extractor": changed(
                default.extractor,
                {"name": extractor, "layer": layer, "input_size": input_size, "weights": weights},
            ),
        },
    )
    first, second = storage.absolute(first), storage.absolute(second)
    for url in (first, second):
        load_index(url)
    with make_display().stage("compare") as report, connection(address):
        result = stages.compare_samples(
            first,
            second,
            settings,
            report,
            seed=seed,
            cache=storage.absolute(cache) if cache else None,
            actors=actors,
        )
    print_comparison(result, settings.level)
    if out:
        storage.write_json_atomic(storage.absolute(out), result)
        print(storage.absolute(out))
