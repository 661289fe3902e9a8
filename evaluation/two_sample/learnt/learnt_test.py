"""The MMD test with a kernel learnt for power: learn on one half of the samples, test on the other."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.compositions import compose
from gebm.evaluation.two_sample.kernels import bandwidth_of, name_of
from gebm.evaluation.two_sample.learnt.bandwidth import optimise_bandwidth
from gebm.evaluation.two_sample.learnt.deep_kernel import DeepKernelSettings, train_deep_kernel
from gebm.evaluation.two_sample.learnt.learnt_kernel import LearntKernel
from gebm.evaluation.two_sample.learnt.split import split_samples
from gebm.evaluation.two_sample.learnt.with_training import with_training_null
from gebm.evaluation.two_sample.mmd import TestResult, check_permutations, check_settings, mmd_test
from gebm.evaluation.two_sample.nulls.null_sample import verdict
from gebm.evaluation.two_sample.samples import Sample, as_samples

LEARNT_KERNELS = ("mmd-o", "mmd-d")
WITH_TRAINING = "with_training"
Rows = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class LearntResult:
    """The test on one half of the points, and what was learnt on the other.

    Attributes:
        test: the result; its n and m count the points that were tested.
        learnt: the kernel.
        trained_x: points of `x` it was learnt on.
        trained_y: points of `y`.
    """

    test: TestResult
    learnt: LearntKernel
    trained_x: int
    trained_y: int

    @property
    def p_value(self) -> float:
        return self.test.p_value

    @property
    def reject(self) -> bool:
        return self.test.reject


def learnt_mmd_test(
    x: Sample,
    y: Sample,
    *,
    kernel: Literal["mmd-o", "mmd-d"] = "mmd-d",
    settings: DeepKernelSettings | None = None,
    train_share: float = 0.5,
    statistic: str | None = None,
    null: str = "permutation",
    permutations: int = 999,
    level: float = 0.05,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> LearntResult:
    """Test whether `x` and `y` are samples of one distribution, with a kernel learnt for this very question.

    The kernel sees one part of the samples, the test the other: an exact null stays exact.

    Args:
        x: vectors `(n, d)` or images `(n, channels, height, width)`.
        y: `(m, ...)`; n and m may differ.
        kernel: `mmd-o`, the Gaussian kernel with the bandwidth of most power, or `mmd-d`, a deep kernel.
        settings: of the deep kernel's training.
        train_share: share of both samples that the kernel is learnt on.
        statistic: `with_training`, MMD² of all points as far as relabelling the tested ones changes it (see
            `with_training.py`): more power from the same data; or as for `mmd_test`, of the tested points alone. None
            for `with_training` under the permutation null, and for the null's own under others.
        null: as for `mmd_test`.
        permutations: as for `mmd_test`.
        level: probability of a false alarm.
        seed: of the split, the training and the labellings.
        device: where to train and to compute; None for that of `x`.

    Raises:
        InputError: as for `mmd_test`; samples too small to split.
    """
    if kernel not in LEARNT_KERNELS:
        raise InputError(f"kernel: no learnt kernel {kernel!r}; there are {', '.join(LEARNT_KERNELS)}")
    if settings is not None and kernel != "mmd-d":
        raise InputError(f"settings: they are of the deep kernel, kernel='mmd-d', and {kernel!r} has none")
    check_settings("gaussian", "median", level)
    check_permutations(permutations, level)
    if statistic is None and null == "permutation":
        statistic = WITH_TRAINING
    if statistic == WITH_TRAINING and null != "permutation":
        raise InputError(f"statistic: {WITH_TRAINING!r} goes with null='permutation', not with {null!r}")
    if statistic != WITH_TRAINING and null != "auto":
        compose(statistic, null)
    as_samples({"x": x, "y": y}, device)
    split = split_samples(x, y, train_share, np.random.default_rng(derive_seed(seed, "two_sample_learnt", "split")))
    if kernel == "mmd-o":
        learnt = optimise_bandwidth(split.train_x, split.train_y, seed=seed, device=device)
    else:
        learnt = train_deep_kernel(split.train_x, split.train_y, settings=settings, seed=seed, device=device)
    tested = learnt.rows(split.test_x, device), learnt.rows(split.test_y, device)
    if statistic == WITH_TRAINING:
        train = learnt.rows(split.train_x, device), learnt.rows(split.train_y, device)
        result = _with_training(train, tested, learnt, permutations, level, seed)
        return LearntResult(result, learnt, len(split.train_x), len(split.train_y))
    result = mmd_test(
        *tested,
        kernel=learnt.kernel,
        statistic=statistic,
        null=null,
        permutations=permutations,
        level=level,
        seed=seed,
    )
    return LearntResult(result, learnt, len(split.train_x), len(split.train_y))


def _with_training(
    train: Rows, tested: Rows, learnt: LearntKernel, permutations: int, level: float, seed: int
) -> TestResult:
    rng = np.random.default_rng(derive_seed(seed, "two_sample_learnt", WITH_TRAINING))
    null = with_training_null(train, tested, learnt.kernel, permutations, rng)
    n, m = (len(side) for side in tested)
    return TestResult(
        **verdict(null, level),
        n=n,
        m=m,
        dimension=tested[0].shape[1],
        statistic_name=WITH_TRAINING,
        kernel=name_of(learnt.kernel),
        bandwidth=bandwidth_of(learnt.kernel),
        null="permutation",
        permutations=permutations,
        level=level,
        seed=seed,
        exact=True,
        block=None,
        reach=None,
        bins=None,
        points_used=n + m,
    )
