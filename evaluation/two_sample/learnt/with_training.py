"""A statistic that uses the training half too: only the tested points are relabelled, so the test stays exact.

With `mu` the difference of mean embeddings, MMD² of all points is `‖a mu_train + b mu_test‖²`. The square of its first
part does not change when the tested points are relabelled; what is left is

    `T = MMD²_u(test) + 2 (n_train / n_test) <mu_train, mu_test>`,

and `<mu_train, mu_test>` is the difference of means, over the tested points, of the witness of the training half. The
kernel and this witness are functions of the training half alone, so under P = Q the labels of the tested points are
exchangeable given them.
"""

import numpy as np
import torch

from gebm.evaluation.two_sample import statistics
from gebm.evaluation.two_sample.kernels import AnyKernel
from gebm.evaluation.two_sample.nulls.null_sample import NullSample, rounding_of_mean
from gebm.evaluation.two_sample.nulls.permutation import random_labels
from gebm.evaluation.two_sample.samples import centred, prepare_rows
from gebm.evaluation.two_sample.tiles import labelled_sums
from gebm.evaluation.two_sample.witness import kernel_sums


def with_training_null(
    train: tuple[torch.Tensor, torch.Tensor],
    test: tuple[torch.Tensor, torch.Tensor],
    kernel: AnyKernel,
    permutations: int,
    rng: np.random.Generator,
) -> NullSample:
    """T of the true labels of the tested points and of `permutations` random ones.

    Args:
        train: rows of X and of Y that the kernel was learnt on.
        test: rows of X and of Y.
        kernel: translation-invariant, on rows.
        permutations: random labellings.
        rng: of the order and the labellings.
    """
    n, m = (len(side) for side in test)
    total, cut = n + m, n + m + len(train[0])
    order = torch.from_numpy(rng.permutation(total))
    tested = torch.cat(test)[order.to(test[0].device)]
    rows = prepare_rows(centred(torch.cat([tested, *train])), kernel)
    of_test = rows.take(slice(total))
    at_x = kernel_sums(of_test, rows.take(slice(total, cut)), kernel) / len(train[0])
    at_y = kernel_sums(of_test, rows.take(slice(cut, None)), kernel) / len(train[1])
    labels, position = random_labels(order < n, permutations, rng)
    labels = labels.to(rows.points.device)
    sums = labelled_sums(of_test, kernel, labels)
    witness = at_x - at_y
    of_x = torch.cat([part.to(torch.float64) @ witness for part in labels.split(256)])
    apart = of_x / n - (float(witness.sum()) - of_x) / m
    share = (len(train[0]) + len(train[1])) / total
    values = statistics.unbiased(sums, n, m) + 2.0 * share * apart
    rounding = rounding_of_mean(sums.magnitude / (total * (total - 1)), total, rows.precision)
    rounding += rounding_of_mean(float(witness.abs().mean()), total, rows.precision)
    return NullSample.around(values, position, rounding)
