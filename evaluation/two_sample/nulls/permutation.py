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
    labels = np.zeros((permutations + 1, len(is_x)), dtype=np.uint8)
    labels[:, : int(is_x.sum())] = 1
    rng.permuted(labels, axis=1, out=labels)
    position = int(rng.integers(permutations + 1))
    labels[position] = is_x.cpu().numpy()
    return torch.from_numpy(labels), position


def _sums_over(labels: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """`Σ_i a_i v_i` of every labelling. A constant diagonal, as most kernels have, is counted exactly."""
    if bool((values == values[0]).all()):
        return labels.sum(1, dtype=torch.float64) * values[0]
    return torch.cat([block.to(torch.float64) @ values for block in labels.split(64)])
