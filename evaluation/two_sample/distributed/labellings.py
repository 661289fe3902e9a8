"""Random labellings and signs, a bit each, made anew from the seed by whoever needs some of their rows.

They are those of the tests in one process, so that a distributed test has the same p-value.
"""

from typing import NamedTuple

import numpy as np
import torch

from gebm.evaluation.two_sample.nulls.permutation import random_labels
from gebm.evaluation.two_sample.nulls.sign_flip import random_signs

TOGETHER = 64  # labellings that are packed at a time; whole bytes


class Labellings(NamedTuple):
    """P + 1 labellings of N rows, the true one at `position`.

    Attributes:
        bits: `(N, ceil((P + 1) / 8))` uint8.
        many: P + 1.
        position: of the true one.
    """

    bits: np.ndarray
    many: int
    position: int

    def rows(self, start: int, stop: int) -> torch.Tensor:
        """`(stop - start, P + 1)` uint8, 1 where a row is labelled X or its sign is +1, else 0."""
        return torch.from_numpy(np.unpackbits(self.bits[start:stop], axis=1, count=self.many))

    def signs(self, block: range, device: str, dtype: torch.dtype) -> torch.Tensor:
        """`(len(block), P + 1)`, 1 and -1."""
        return self.rows(block.start, block.stop).to(device).to(dtype).mul_(2.0).sub_(1.0)


def permuted_labels(is_x: np.ndarray, permutations: int, rng: np.random.Generator) -> Labellings:
    """`permutations` random labellings with as many rows of X as the true one, `(N,)` bool."""
    labels, position = random_labels(torch.from_numpy(is_x), permutations, rng)
    return _pack(labels.numpy(), position)


def random_sign_vectors(is_plus: np.ndarray, permutations: int, rng: np.random.Generator) -> Labellings:
    """`permutations` random sign vectors, +1 as a set bit; the true one is `(n,)` bool."""
    signs, position = random_signs(torch.from_numpy(np.where(is_plus, 1, -1)), permutations, rng)
    return _pack(signs.numpy(), position)


def _pack(labels: np.ndarray, position: int) -> Labellings:
    """From `(P + 1, N)`, positive for a set bit."""
    count, rows = labels.shape
    bits = np.empty((rows, -(-count // 8)), dtype=np.uint8)
    for start in range(0, count, TOGETHER):
        packed = np.packbits(labels[start : start + TOGETHER] > 0, axis=0)
        bits[:, start // 8 : start // 8 + len(packed)] = packed.T
    return Labellings(bits, count, position)
