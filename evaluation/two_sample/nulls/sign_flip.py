"""The sign-flip null: which member of each pair `(x_i, y_i)` is X is drawn at random.

The same as the Rademacher wild bootstrap of MMD, with exact level: under P = Q the members of a pair are
exchangeable. Its p-value is that of MMD²_u under the same swaps (the two statistics are affine in each
other), for a quarter of the multiply-adds of a permutation test. Within a block design it costs what the design
costs, and stays exact at any block size.
"""

import numpy as np
import torch

from gebm.evaluation.two_sample import statistics, tiles
from gebm.evaluation.two_sample.compositions import StatisticName
from gebm.evaluation.two_sample.designs import Design, Signs, design_forms
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean
from gebm.evaluation.two_sample.shuffles import Pairs


def sign_flip_null(pairs: Pairs, statistic: StatisticName, permutations: int, rng: np.random.Generator) -> NullSample:
    """The statistic, `paired`, `unbiased` or `biased`, for the true signs and for `permutations` random ones."""
    first, second, kernel = pairs.first, pairs.second, pairs.kernel
    n = len(pairs.signs)
    signs, position = random_signs(pairs.signs, permutations, rng)
    sums = tiles.signed_sums(first, second, kernel, signs.to(first.points.device))
    if statistic == "paired":
        values = statistics.paired(sums.forms, n)
    elif statistic == "unbiased":
        values = statistics.unbiased_of_pairs(sums, n)
    else:
        own_total = sum(float(tiles.kernel_diagonal(side, kernel).sum()) for side in (first, second))
        values = statistics.biased_of_pairs(sums, own_total, n)
    return NullSample.around(values, position, rounding_of_mean(sums.magnitude / (n * (n - 1)), n, first.precision))


def random_signs(true_signs: torch.Tensor, permutations: int, rng: np.random.Generator) -> tuple[torch.Tensor, int]:
    """`(P + 1, n)` int8 sign vectors, and the place of the true one among them."""
    n = len(true_signs)
    bits = rng.integers(0, 256, size=(permutations + 1, -(-n // 8)), dtype=np.uint8)
    signs = np.unpackbits(bits, axis=1, count=n).view(np.int8)
    signs *= 2
    signs -= 1
    position = int(rng.integers(permutations + 1))
    signs[position] = true_signs.cpu().numpy()
    return torch.from_numpy(signs), position


def design_sign_flip_null(pairs: Pairs, design: Design, permutations: int, rng: np.random.Generator) -> NullSample:
    """The mean of H over the design's entries, for the true signs and for `permutations` random ones."""
    signs = Signs(pairs.signs[: design.pairs], permutations, rng)
    forms, magnitude = design_forms(pairs.first, pairs.second, pairs.kernel, design, signs)
    rounding = rounding_of_mean(magnitude / design.entries, design.pairs, pairs.first.precision)
    return NullSample.around(forms / design.entries, signs.position, rounding)
