"""Stacked MNIST: three digits as the red, green and blue of one image, 1,000 modes whose number is known.

Metz, Poole, Pfau, Sohl-Dickstein, 2017 (https://arxiv.org/abs/1611.02163), on the packaged digits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gebm.cluster import storage
from gebm.cluster.randomness import derive_seed
from gebm.cluster.shards import encode_png
from gebm.launch.data import mnist
from gebm.launch.data.splits import SPLITS, Progress, counting, write_dataset, write_split

IMAGE_SHAPE = (3, *mnist.IMAGE_SHAPE[1:])
MODES = 1000
DIGITS = (3500, 500, 1000)
"""Single digits that training, validation and test are stacked from: those of `mnist` with the same seed."""


def write_stacked_mnist(
    out: str,
    *,
    seed: int = 0,
    counts: tuple[int, int, int] = (20_000, 1000, 2000),
    shard_size: int = 500,
    progress: Progress | None = None,
) -> bool:
    """Write `train`, `validation` and `test` shard sets of `counts` images each into `out`.

    The three classes of an image are drawn uniformly, so that every mode has probability 1/1000; then a digit of
    each class. No digit is in two splits. The label is the number that red, green and blue spell. All of it
    depends on `seed` alone. Returns False when the same was written before. Raises `InputError` for an `out` that
    holds another data set.
    """
    description = {"source": "stacked_mnist", "seed": seed, "counts": list(counts), "shard_size": shard_size}

    def write(out: str) -> None:
        digits = mnist.split_digits(seed, DIGITS)
        advance = counting(progress, sum(counts))
        for split, count in zip(SPLITS, counts, strict=True):
            random = np.random.default_rng(derive_seed(seed, "data/stacked_mnist", split))
            write_split(
                storage.join(out, split),
                _samples(split, count, *digits[split], random),
                image_shape=IMAGE_SHAPE,
                classes=MODES,
                shard_size=shard_size,
                progress=advance,
            )

    return write_dataset(out, description, write)


def _samples(
    split: str, count: int, images: np.ndarray, labels: np.ndarray, random: np.random.Generator
) -> Iterator[dict[str, str | bytes]]:
    of_class = [np.flatnonzero(labels == digit) for digit in range(10)]
    for number in range(count):
        classes = random.integers(10, size=3)
        chosen = [random.choice(of_class[digit]) for digit in classes]
        mode = int(classes @ (100, 10, 1))
        yield {
            "__key__": f"{split}-{number:08d}",
            "png": encode_png(images[chosen].transpose(1, 2, 0)),
            "cls": str(mode).encode(),
        }
