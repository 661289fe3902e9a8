"""The paired sign-flip null: which member of each pair `(x_i, y_i)` is X is drawn at random.

The same as the Rademacher wild bootstrap of MMD, with exact level: under P = Q the members of a pair are
exchangeable. Its p-value is that of MMD²_u under the same swaps (the two statistics are affine in each
other), for a quarter of the multiply-adds of a permutation test.
"""

import numpy as np
import torch

from gebm.evaluation.two_sample import statistics, tiles
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.nulls.null_sample import NullSample
from gebm.evaluation.two_sample.nulls.permutation import rounding_of_mean
from gebm.evaluation.two_sample.samples import Rows


def sign_flip_null(
    first: Rows,
    second: Rows,
    true_signs: torch.Tensor,
    kernel: Kernel,
    permutations: int,
    rng: np.random.Generator,
) -> NullSample:
    """The paired form of MMD²_u for the true signs and for `permutations` random ones.

    Args:
        first: one member of each pair, chosen by a coin.
        second: the other.
        true_signs: `(n,)` int8, 1 where `first` holds the point of X, else -1.
        kernel: the kernel.
        permutations: how many random sign vectors.
        rng: draws them.
    """
    n = len(true_signs)
    signs = (2 * rng.integers(0, 2, size=(permutations + 1, n), dtype=np.int8) - 1).astype(np.int8)
    position = int(rng.integers(permutations + 1))
    signs[position] = true_signs.cpu().numpy()
    forms, magnitude = tiles.signed_sums(first, second, kernel, torch.from_numpy(signs).to(first.points.device))
    values = statistics.paired(forms, n).cpu()
    rounding = rounding_of_mean(magnitude / (n * (n - 1)), n, first.points.dtype)
    others = torch.cat([values[:position], values[position + 1 :]])
    return NullSample(float(values[position]), others, rounding)
