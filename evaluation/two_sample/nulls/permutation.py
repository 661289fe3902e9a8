"""The permutation null: which of the pooled rows are X is drawn at random."""

import numpy as np
import torch

from gebm.evaluation.two_sample import statistics, tiles
from gebm.evaluation.two_sample.compositions import StatisticName
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean
from gebm.evaluation.two_sample.shuffles import Pooled


def permutation_null(
    pooled: Pooled, statistic: StatisticName, permutations: int, rng: np.random.Generator
) -> NullSample:
    """The statistic, `unbiased` or `biased`, of the true labelling and of `permutations` random ones, in one pass
    over the kernel."""
    rows, kernel = pooled.rows, pooled.kernel
    labels, position = random_labels(pooled.is_x, permutations, rng)
    labels = labels.to(rows.points.device)
    total, n = len(pooled.is_x), int(pooled.is_x.sum())
    sums = tiles.labelled_sums(rows, kernel, labels)
    if statistic == "biased":
        diagonal = tiles.kernel_diagonal(rows, kernel)
        own = _sums_over(labels, diagonal)
        values = statistics.biased(sums, own, float(diagonal.sum()), n, total - n)
    else:
        values = statistics.unbiased(sums, n, total - n)
    mean_magnitude = sums.magnitude / (total * (total - 1))
    return NullSample.around(values, position, rounding_of_mean(mean_magnitude, total, rows.precision))


def random_labels(is_x: torch.Tensor, permutations: int, rng: np.random.Generator) -> tuple[torch.Tensor, int]:
    """`(P + 1, N)` uint8 labellings with as many ones as the true one, and the place of the true one among them.

    A matrix product may round differently in different columns, so the true labelling takes a random place: with
    that, the statistics are exchangeable under P = Q including their rounding.
    """
    count, ones = len(is_x), int(is_x.sum())
    rare = min(ones, count - ones)
    labels = random_subsets(permutations + 1, count, rare, rng)
    if rare < ones:
        labels ^= 1
    position = int(rng.integers(permutations + 1))
    labels[position] = is_x.cpu().numpy()
    return torch.from_numpy(labels), position


def random_subsets(rows: int, count: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """`(rows, count)` uint8, in each row `size` ones, every subset as likely as any other; `size <= count / 2`.

    A coin for each place, and then as many random places as are missing turned to one, or to zero those too many:
    given how many ones the coins made, each set of so many is as likely as any other, and stays so. That takes a random
    bit or byte a place, a tenth of the time of a shuffle. Where ones are few, the coins make still fewer of them: to
    find some to turn to zero would take long.
    """
    if 2 * size == count:
        packed = rng.integers(0, 256, size=(rows, -(-count // 8)), dtype=np.uint8)
        bits = np.unpackbits(packed, axis=1, count=count)
    else:
        spread = (size * (count - size) / count) ** 0.5
        expected = size if 8 * size > count else max(0.0, size - 4.0 * spread)
        bits = (rng.integers(0, 256, size=(rows, count), dtype=np.uint8) < int(256 * expected / count)).view(np.uint8)
    missing = size - np.count_nonzero(bits, axis=1)
    for wrong, change in ((0, missing), (1, -missing)):
        open_rows = np.flatnonzero(change > 0)
        left = change[open_rows]
        while len(open_rows):
            places = rng.integers(0, count, size=len(open_rows))
            hit = bits[open_rows, places] == wrong
            bits[open_rows[hit], places[hit]] = 1 - wrong
            left = left - hit
            open_rows, left = open_rows[left > 0], left[left > 0]
    return bits


def _sums_over(labels: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`Σ_i a_i v_i` of every labelling. A constant diagonal, as most kernels have, is counted exactly."""
    if bool((values == values[0]).all()):
        return labels.sum(1, dtype=torch.float64) * values[0]
    return torch.cat([block.to(torch.float64) @ values for block in labels.split(64)])
