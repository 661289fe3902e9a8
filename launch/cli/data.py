"""`gebm data`: images and tables into shards, and shards into checked and indexed ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated

import typer

app = typer.Typer(
    help="Make or check data: WebDataset shards with an index.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[str, typer.Argument(help="Folder or URL that gets train/, validation/ and test/.")]
Seed = Annotated[int, typer.Option(min=0, help="Decides which sample goes where.")]
ShardSize = Annotated[int, typer.Option(min=1, help="Samples in a shard.")]
Split = Annotated[str, typer.Option(help="Shares of training, validation and test; 0 leaves one out.")]
Counts = Annotated[str, typer.Option(help="How many for training, validation and test.")]


@app.command()
def mnist(out: Out, seed: Seed = 0, shard_size: ShardSize = 500) -> None:
    """5,000 real MNIST digits, 32x32: 3,500 for training, 500 for validation, 1,000 for the test."""
    from gebm.launch.data.mnist import write_mnist

    _write(out, "images", partial(write_mnist, out, seed=seed, shard_size=shard_size))


@app.command("stacked_mnist")
def stacked_mnist(out: Out, counts: Counts = "20000,1000,2000", seed: Seed = 0, shard_size: ShardSize = 500) -> None:
    """Three MNIST digits as red, green and blue, 32x32: 1,000 equally likely modes, whose number is the label."""
    from gebm.launch.data.stacked_mnist import write_stacked_mnist

    _write(out, "images", partial(write_stacked_mnist, out, seed=seed, counts=_counts(counts), shard_size=shard_size))


@app.command()
def tabular(
    name: Annotated[str, typer.Argument(metavar="NAME", help="breast_cancer, wine, diabetes, digits or iris.")],
    out: Out,
    split: Split = "0.7,0.15,0.15",
    seed: Seed = 0,
    shard_size: ShardSize = 500,
) -> None:
    """A real table of scikit-learn as vectors: spread over the measuring step, standardised on the training rows."""
    from gebm.launch.data.tabular import TABLES, write_tabular

    _known("table", name, TABLES)
    _write(
        out, "vectors", partial(write_tabular, name, out, fractions=_fractions(split), seed=seed, shard_size=shard_size)
    )


@app.command()
def toy(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME", help="On the line: two_modes, three_modes. Curves: parabola, sine, ring, spiral."
        ),
    ],
    out: Out,
    counts: Counts = "3500,500,1000",
    seed: Seed = 0,
    shard_size: ShardSize = 500,
) -> None:
    """Draws of a distribution that can be looked at: a mixture on the line, or uneven mass on a curve in the plane."""
    from gebm.launch.data.toy import TOYS, write_toy

    _known("distribution", name, TOYS)
    _write(out, "vectors", partial(write_toy, name, out, counts=_counts(counts), seed=seed, shard_size=shard_size))


@app.command()
def vectors(
    file: Annotated[str, typer.Argument(metavar="FILE.npy", help="Real numbers (n, d), one row a vector.")],
    out: Out,
    labels: Annotated[str | None, typer.Option(metavar="FILE.npy", help="Class numbers (n,) of the vectors.")] = None,
    standardise: Annotated[
        bool, typer.Option("--standardise", help="Mean 0 and deviation 1 in every column of the training rows.")
    ] = False,
    split: Split = "0.8,0.1,0.1",
    seed: Seed = 0,
    shard_size: ShardSize = 1000,
) -> None:
    """A numpy file of vectors, stored as float32."""
    from gebm.launch.data.numpy_file import write_numpy_file

    _write(
        out,
        "vectors",
        partial(
            write_numpy_file,
            file,
            out,
            labels=labels,
            standardised=standardise,
            fractions=_fractions(split),
            seed=seed,
            shard_size=shard_size,
        ),
    )


@app.command()
def folder(
    source: Annotated[str, typer.Argument(metavar="SRC", help="Folder with image files; sub-folders are classes.")],
    out: Out,
    size: Annotated[int, typer.Option(min=1, help="Side of the square images, in pixels.")] = 32,
    channels: Annotated[int, typer.Option(help="3 (RGB) or 1 (grey).")] = 3,
    split: Split = "0.9,0.05,0.05",
    seed: Seed = 0,
    shard_size: ShardSize = 1000,
) -> None:
    """A folder of images: turned upright, cropped to the central square and resized."""
    from gebm.launch.data.image_folder import write_image_folder

    _write(
        out,
        "images",
        partial(
            write_image_folder,
            source,
            out,
            size=size,
            channels=channels,
            fractions=_fractions(split),
            seed=seed,
            shard_size=shard_size,
        ),
    )


@app.command()
def cifar10(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Folder with train-*.tar.gz and test-*.tar.gz (jpg or png, and cls)."),
    ],
    out: Out,
    validation_shards: Annotated[
        int, typer.Option(min=1, help="How many of the last training shards become the validation set.")
    ] = 1,
) -> None:
    """The shards of CIFAR-10: every image is checked; files are linked, or copied where they cannot be."""
    from gebm.launch.data.cifar10 import write_cifar10

    _write(out, "shards", partial(write_cifar10, source, out, validation_shards=validation_shards))


@app.command()
def index(
    url: Annotated[str, typer.Argument(metavar="URL", help="Folder of WebDataset shards (.tar, .tar.gz).")],
    pattern: Annotated[str, typer.Option(help="Which files there are shards of this set.")] = "*.tar*",
    size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the squares that images are cropped (centre) and resized to when read."),
    ] = None,
    channels: Annotated[
        int | None, typer.Option(help="3 (RGB) or 1 (grey): what images are converted to when read.")
    ] = None,
) -> None:
    """Existing WebDataset shards of images or .npy vectors: checks every sample, and writes index.json beside them.

    Images stay as they are: with --size or --channels, whoever reads them brings them to that form.
    """
    from gebm.launch.data.existing import index_shards, reading_hint
    from gebm.launch.progress import make_display

    with make_display().stage("index") as report:
        content = index_shards(
            url,
            pattern=pattern,
            size=size,
            channels=channels,
            progress=lambda done, total: report(done, total, "shards"),
        )
    _print_table([("", url)])
    if hint := reading_hint(content):
        print(hint)


def _write(out: str, unit: str, write: Callable[..., bool]) -> None:
    """Show how `write` gets on, in `unit`s, and then what stands at `out`; `write` says whether it was made now."""
    from gebm.launch.progress import make_display

    with make_display().stage("data") as report:
        fresh = write(progress=lambda done, total: report(done, total, unit))
    _print_sets(out, fresh)


def _fractions(text: str) -> tuple[float, float, float]:
    from gebm.cluster.errors import InputError

    try:
        train, validation, test = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--split {text}: give three numbers, for example 0.9,0.05,0.05") from error
    return train, validation, test


def _counts(text: str) -> tuple[int, int, int]:
    from gebm.cluster.errors import InputError

    try:
        train, validation, test = (int(part) for part in text.split(","))
    except ValueError:
        train = validation = test = 0
    if min(train, validation, test) < 1:
        raise InputError(f"--counts {text}: give three whole numbers from 1, for example 3500,500,1000")
    return train, validation, test


def _known(kind: str, name: str, names: Sequence[str]) -> None:
    from gebm.cluster.errors import InputError

    if name not in names:
        raise InputError(f"no {kind} {name!r}; there are {', '.join(names)}")


def _print_sets(out: str, fresh: bool) -> None:
    from gebm.cluster import storage
    from gebm.launch.data.splits import splits_of

    if not fresh:
        print("finished before; nothing was written")
    _print_table([(split, storage.join(storage.absolute(out), split)) for split in splits_of(storage.absolute(out))])


def _print_table(sets: list[tuple[str, str]]) -> None:
    from rich.table import Column, Table

    from gebm.cluster.index import load_index
    from gebm.launch.results import standard_output

    where = Column("where", overflow="fold")
    table = Table("set", "samples", "shape", "classes", "shards", where, box=None)
    for name, url in sets:
        content = load_index(url)
        table.add_row(
            name,
            f"{content.total:,}",
            " x ".join(map(str, content.image_shape)),
            str(content.classes or "none"),
            str(len(content.shards)),
            url,
        )
    standard_output().print(table)
