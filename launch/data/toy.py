"""Distributions that can be looked at: mixtures on the line, and curves in the plane with uneven mass on them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from gebm.cluster.randomness import derive_seed
from gebm.launch.data.splits import SPLITS, Progress, write_dataset
from gebm.launch.data.vector_sets import Vectors, write_vector_splits

MIXTURES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "two_modes": ((0.7, -1.5, 0.4), (0.3, 1.5, 0.4)),
    "three_modes": ((0.5, -2.0, 0.5), (0.3, 0.5, 0.3), (0.2, 2.5, 0.6)),
}
"""Normal mixtures on the line: (weight, mean, standard deviation) of each component."""

CURVES: dict[str, Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "parabola": lambda t: (3 * t - 1.5, (3 * t - 1.5) ** 2 - 1),
    "sine": lambda t: (4 * t - 2, np.sin(2 * np.pi * t)),
    "ring": lambda t: (np.cos(2 * np.pi * t), np.sin(2 * np.pi * t)),
    "spiral": lambda t: ((0.3 + 1.2 * t) * np.cos(3 * np.pi * t), (0.3 + 1.2 * t) * np.sin(3 * np.pi * t)),
}
"""Curves in the plane: from the position along them, `t` in [0, 1], to x and y."""

TOYS = (*MIXTURES, *CURVES)


def write_toy(
    name: str,
    out: str,
    *,
    counts: tuple[int, int, int] = (3500, 500, 1000),
    seed: int = 0,
    shard_size: int = 500,
    progress: Progress | None = None,
) -> bool:
    """Write independent draws of the distribution `name` as `train`, `validation` and `test` into `out`.

    The draws depend on `seed` alone. Returns False when the same was written before. Raises `InputError` for an
    `out` that holds another data set.
    """
    description = {"source": "toy", "name": name, "counts": list(counts), "seed": seed, "shard_size": shard_size}

    def write(out: str) -> None:
        splits = {
            split: Vectors(draw_toy(name, count, np.random.default_rng(derive_seed(seed, f"data/{name}", split))), None)
            for split, count in zip(SPLITS, counts, strict=True)
        }
        write_vector_splits(out, splits, None, shard_size, progress)

    return write_dataset(out, description, write)


def draw_toy(name: str, count: int, random: np.random.Generator) -> np.ndarray:
    """`(count, d)` independent draws of a mixture (d = 1) or exactly on a curve (d = 2)."""
    if name in CURVES:
        return np.stack(CURVES[name](draw_positions(count, random)), axis=1)
    weights, means, deviations = np.array(MIXTURES[name]).T
    component = random.choice(len(weights), size=count, p=weights)
    return random.normal(means[component], deviations[component])[:, None]


def draw_positions(count: int, random: np.random.Generator) -> np.ndarray:
    """Positions `(count,)` along a curve: `t ~ 3/4 Beta(2, 6) + 1/4 Beta(12, 2)`, most mass near the beginning."""
    early = random.uniform(size=count) < 0.75
    return np.where(early, random.beta(2, 6, count), random.beta(12, 2, count))


def dimension(name: str) -> int:
    """How many numbers a draw has."""
    return 2 if name in CURVES else 1
