"""What a recipe's `data.source` can name: data that a run writes for itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from gebm.launch.data import mnist, stacked_mnist, tabular, toy
from gebm.launch.data.splits import Progress, split_counts

if TYPE_CHECKING:
    from gebm.launch.config import DataSettings


class Content(NamedTuple):
    """What the samples will be: shape `(channels, height, width)` or `(d,)`, and the number of classes."""

    shape: tuple[int, ...]
    classes: int | None


class Source(NamedTuple):
    """content: told before anything is written, `InputError` for settings that cannot be met.

    write: `(out, settings, seed, progress)` makes `train`, `validation` and `test` in the folder `out`.
    """

    content: Callable[[DataSettings], Content]
    write: Callable[[str, DataSettings, int, Progress], bool]


def _mnist_content(settings: DataSettings) -> Content:
    mnist.check_counts(settings.counts)
    return Content(mnist.IMAGE_SHAPE, mnist.CLASSES)


def _tabular_content(settings: DataSettings) -> Content:
    table = tabular.load_table(settings.name or "")
    split_counts(len(table.values), settings.fractions)
    return Content(table.values.shape[1:], table.number_of_classes)


SOURCES: dict[str, Source] = {
    "mnist": Source(
        _mnist_content,
        lambda out, s, seed, progress: mnist.write_mnist(
            out, seed=seed, counts=s.counts, shard_size=s.shard_size, progress=progress
        ),
    ),
    "stacked_mnist": Source(
        lambda s: Content(stacked_mnist.IMAGE_SHAPE, stacked_mnist.MODES),
        lambda out, s, seed, progress: stacked_mnist.write_stacked_mnist(
            out, seed=seed, counts=s.counts, shard_size=s.shard_size, progress=progress
        ),
    ),
    "tabular": Source(
        _tabular_content,
        lambda out, s, seed, progress: tabular.write_tabular(
            s.name or "", out, fractions=s.fractions, seed=seed, shard_size=s.shard_size, progress=progress
        ),
    ),
    "toy": Source(
        lambda s: Content((toy.dimension(s.name or ""),), None),
        lambda out, s, seed, progress: toy.write_toy(
            s.name or "", out, counts=s.counts, seed=seed, shard_size=s.shard_size, progress=progress
        ),
    ),
}
"""By name; `shards`, made before by `gebm data`, is the one source that is not here."""
