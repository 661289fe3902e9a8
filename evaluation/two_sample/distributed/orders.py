"""The random orders of the tests in one process, drawn again by everyone from the seed.

Each function gives the order in which rows of the stacked samples are taken, what is true of them, and the generator
from which labellings are drawn next.
"""

from typing import NamedTuple

import numpy as np

from gebm.evaluation.two_sample.bandwidth import LARGEST_SUBSAMPLE
from gebm.evaluation.two_sample.relative import order_of_triples
from gebm.evaluation.two_sample.shuffles import order_of_bins, order_of_pairs


class Order(NamedTuple):
    """A shuffle.

    Attributes:
        rows: `(N,)`, numbers of rows of the stacked samples.
        truth: bool; of pooled rows whether they are of X, of pairs whether their first member is, of bins whether they
            are X, of triples whether u is the model.
        rng: what is drawn from next.
        some: rows for what is chosen by looking at a few.
    """

    rows: np.ndarray
    truth: np.ndarray
    rng: np.random.Generator
    some: np.ndarray


def pooled_order(n: int, m: int, seed: int) -> Order:
    """All rows, as `shuffles.shuffle_pooled` has them."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(n + m)
    return Order(rows, rows < n, rng, rows[:LARGEST_SUBSAMPLE])


def pair_order(n: int, seed: int) -> Order:
    """Pairs, one after the other, as `shuffles.shuffle_pairs` has them."""
    rng = np.random.default_rng(seed)
    rows, signs = order_of_pairs(n, rng)
    return Order(rows.numpy(), signs.numpy() > 0, rng, rows.numpy()[:LARGEST_SUBSAMPLE])


def bin_order(n: int, m: int, size: int, seed: int) -> Order:
    """Bins of `size` rows, one after the other, as `shuffles.shuffle_bins` has them."""
    rng = np.random.default_rng(seed)
    order, is_x = order_of_bins(n, m, size, rng)
    rows = order.numpy()
    mixed = rng.permutation(len(rows))
    return Order(rows, is_x.numpy(), rng, rows[mixed[:LARGEST_SUBSAMPLE]])


def triple_order(n: int, seed: int) -> Order:
    """Triples of data and the two members of pairs, one after the other, as the relative test has them."""
    rng = np.random.default_rng(seed)
    rows, heads = order_of_triples(n, rng)
    return Order(rows.numpy(), heads.numpy(), rng, rows.numpy()[:LARGEST_SUBSAMPLE])
