"""From tables of numbers to the shard sets of a data set: splitting, standardising, writing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.cluster.vectors import encode_vector
from gebm.launch.data.splits import SPLITS, Progress, counting, write_split

STANDARDISATION = "standardisation.json"


class Vectors(NamedTuple):
    """values `(n, d)` float64; labels `(n,)` class numbers, or None."""

    values: np.ndarray
    labels: np.ndarray | None


def split_rows(table: Vectors, counts: tuple[int, int, int], seed: int, source: str) -> dict[str, Vectors]:
    """Deal the rows out to train, validation and test, `counts` each, in an order of the seed and the source."""
    order = np.random.default_rng(derive_seed(seed, "data", source)).permutation(len(table.values))
    rows = {
        split: order[end - count : end] for split, count, end in zip(SPLITS, counts, np.cumsum(counts), strict=True)
    }
    return {
        split: Vectors(table.values[chosen], None if table.labels is None else table.labels[chosen])
        for split, chosen in rows.items()
    }


def standardise(splits: Mapping[str, Vectors], names: list[str], out: str, *, source: str) -> dict[str, Vectors]:
    """Shift and scale every column to mean 0 and deviation 1 in *training*; the other splits are not looked at.

    What was done is kept as `standardisation.json` in `out`: a stored value is (recorded - mean) / scale.
    Raises `InputError` naming `source` and a column that does not vary.
    """
    training = splits["train"].values
    mean, scale = training.mean(axis=0), training.std(axis=0)
    if not (scale > 0).all():
        name = names[int(np.argmin(scale))]
        raise InputError(f"{source}: column {name} does not vary in the training split; leave it out")
    content = {"names": names, "mean": mean.tolist(), "scale": scale.tolist()}
    storage.write_json_atomic(storage.join(out, STANDARDISATION), content)
    return {split: part._replace(values=(part.values - mean) / scale) for split, part in splits.items()}


def write_vector_splits(
    out: str, splits: Mapping[str, Vectors], classes: int | None, shard_size: int, progress: Progress | None
) -> None:
    """Write each split that has rows as a shard set of float32 vectors in `out`."""
    advance = counting(progress, sum(len(part.values) for part in splits.values()))
    for split, part in splits.items():
        if len(part.values):
            write_split(
                storage.join(out, split),
                _samples(split, part),
                image_shape=part.values.shape[1:],
                classes=classes,
                shard_size=shard_size,
                progress=advance,
            )


def _samples(split: str, part: Vectors) -> Iterator[dict[str, str | bytes]]:
    for number, vector in enumerate(part.values.astype(np.float32)):
        sample: dict[str, str | bytes] = {"__key__": f"{split}-{number:08d}", "npy": encode_vector(vector)}
        if part.labels is not None:
            sample["cls"] = str(int(part.labels[number])).encode()
        yield sample
