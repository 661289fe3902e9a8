"""The permutation null: which of the pooled rows are X is drawn at random."""

import numpy as np
import torch

from gebm.evaluation.two_sample import statistics, tiles
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.nulls.null_sample import NullSample
from gebm.evaluation.two_sample.samples import Rows


def permutation_null(
    rows: Rows, is_x: torch.Tensor, kernel: Kernel, permutations: int, rng: np.random.Generator
) -> NullSample:
    """MMD²_u of the true labelling and of `permutations` random ones, in one pass over the kernel.

    Args:
        rows: the pooled points, in an order that does not depend on the labels.
        is_x: `(N,)` bool, the true labelling.
        kernel: the kernel.
        permutations: how many random labellings.
        rng: draws them.
    """
    total, n = len(is_x), int(is_x.sum())
    labels = np.zeros((permutations + 1, total), dtype=np.uint8)
    labels[:, :n] = 1
    rng.permuted(labels, axis=1, out=labels)
    # A matrix product may round differently in different columns, so the true labelling takes a random one:
    # with that, the statistics are exchangeable under P = Q including their rounding.
    position = int(rng.integers(permutations + 1))
    labels[position] = is_x.cpu().numpy()
    sums = tiles.labelled_sums(rows, kernel, torch.from_numpy(labels).to(rows.points.device))
    values = statistics.unbiased(sums, n, total - n).cpu()
    mean_magnitude = sums.magnitude / (total * (total - 1))
    rounding = rounding_of_mean(mean_magnitude, total, rows.points.dtype)
    others = torch.cat([values[:position], values[position + 1 :]])
    return NullSample(float(values[position]), others, rounding)


def rounding_of_mean(mean_magnitude: float, count: int, dtype: torch.dtype) -> float:
    """Rounding error to expect in a mean over `count²` kernel values that were added in rows of `count`.

    Each row's sum has a relative error of some units in the last place; over rows they average out. It is far
    below the spread of any null (by `sqrt(count)` units in the last place), so treating such differences as
    ties costs no power, and counting ties keeps the level.
    """
    return 16.0 * torch.finfo(dtype).eps * mean_magnitude / count**0.5
