"""The real tables that scikit-learn carries, as shards of standardised vectors with their classes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gebm.cluster.randomness import derive_seed
from gebm.launch.data.splits import Progress, split_counts, write_dataset
from gebm.launch.data.vector_sets import Vectors, split_rows, standardise, write_vector_splits

TABLES = ("breast_cancer", "wine", "diabetes", "digits", "iris")
"""Those that come with the package; others it would download."""


class Table(NamedTuple):
    """values `(rows, columns)` as recorded; classes `(rows,)`, None where the target is no class; column names."""

    values: np.ndarray
    classes: np.ndarray | None
    names: list[str]

    @property
    def number_of_classes(self) -> int | None:
        return None if self.classes is None else int(self.classes.max()) + 1


def write_tabular(
    name: str,
    out: str,
    *,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    shard_size: int = 500,
    progress: Progress | None = None,
) -> bool:
    """Write the rows of the table `name` as `train`, `validation` and `test` shard sets of vectors into `out`.

    Values are spread over their measuring step (see `spread`), then standardised with the mean and deviation of
    the training rows; both, and which row goes where, depend on `seed` alone. Columns that never vary are left
    out. Returns False when the same was written before. Raises `InputError` for a split without rows, or an
    `out` that holds another data set.
    """
    table = load_table(name)
    counts = split_counts(len(table.values), fractions)
    description = {
        "source": "tabular",
        "name": name,
        "fractions": list(fractions),
        "seed": seed,
        "shard_size": shard_size,
    }

    def write(out: str) -> None:
        random = np.random.default_rng(derive_seed(seed, "data/spread", name))
        rows = Vectors(spread(table.values, random), table.classes)
        splits = standardise(split_rows(rows, counts, seed, name), table.names, out, source=f"table {name}")
        write_vector_splits(out, splits, table.number_of_classes, shard_size, progress)

    return write_dataset(out, description, write)


def load_table(name: str) -> Table:
    """One of `TABLES`, without the columns that never vary (corner pixels of `digits`)."""
    from sklearn import datasets  # takes a second

    load = getattr(datasets, f"load_{name}")
    # That of diabetes is a measured quantity; and its values come scaled by statistics of all rows.
    found = load(scaled=False) if name == "diabetes" else load()
    varies = (found.data != found.data[0]).any(axis=0)
    names = [str(column) for column, kept in zip(found.feature_names, varies, strict=True) if kept]
    return Table(found.data[:, varies], None if name == "diabetes" else found.target, names)


def spread(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Add to each value of `(rows, columns)` uniform noise as wide as its column's measuring step.

    Recorded values lie on a grid, on which densities can grow without bound and a likelihood says nothing; spread
    over its cells, they have one (Theis, van den Oord, Bethge, 2016, section 3.1). The step is taken to be the
    smallest distance between two values of the column.
    """
    steps = np.array([np.diff(np.unique(column)).min() for column in values.T])
    return values + steps * random.uniform(-0.5, 0.5, values.shape)
