"""Kernels learnt for power: what they find, that they repeat, and that the test keeps apart what it learns on."""

import pickle
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample import mmd_test
from gebm.evaluation.two_sample.kernels import Kernel
from gebm.evaluation.two_sample.learnt import (
    DeepKernelSettings,
    learnt_mmd_test,
    optimise_bandwidth,
    train_deep_kernel,
)
from gebm.evaluation.two_sample.learnt.objective import power_of_kernels
from gebm.evaluation.two_sample.learnt.with_training import with_training_null
from gebm.evaluation.two_sample.samples import prepare_rows

QUICK = DeepKernelSettings(width=16, steps=60, learning_rate=3e-3)


def stripes(seed: int, n: int, slant: float) -> np.ndarray:
    """Narrow stripes, slanted: a difference at a scale far below the median distance."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, 2)) * 0.12
    points[:, 1] += slant * points[:, 0]
    return points + rng.integers(0, 3, size=(n, 2))


def test_the_optimised_bandwidth_beats_every_other_on_a_fine_grid() -> None:
    x, y = stripes(0, 300, 0.0), stripes(1, 300, 1.5)
    learnt = optimise_bandwidth(x, y)
    assert isinstance(learnt.kernel, Kernel) and learnt.objective is not None
    pooled = torch.from_numpy(np.concatenate([x, y]))
    kernels = [Kernel("gaussian", float(s), 2) for s in np.geomspace(0.02, 8.0, 80)]
    objective = power_of_kernels(prepare_rows(pooled - pooled.mean(0), *kernels), kernels).objective
    assert learnt.objective >= 0.98 * float(objective.max())
    assert learnt.kernel.bandwidth < 0.3 * mmd_test(x, y).bandwidth


def test_training_raises_the_objective_above_that_of_the_best_bandwidth() -> None:
    x, y = stripes(0, 200, 0.0), stripes(1, 200, 1.5)
    start = train_deep_kernel(x, y, settings=DeepKernelSettings(width=16, steps=1)).objective
    trained = train_deep_kernel(x, y, settings=DeepKernelSettings(width=16, steps=200, learning_rate=3e-3)).objective
    assert start is not None and trained is not None
    assert trained > 1.2 * start
    assert trained > optimise_bandwidth(x, y).objective


def test_the_kernel_on_rows_is_the_one_that_was_trained() -> None:
    """J of the learnt kernel on the library's tiles is the J that training saw, up to its last step."""
    x, y = stripes(0, 100, 0.0), stripes(1, 100, 1.5)
    learnt = train_deep_kernel(x, y, settings=QUICK)
    rows = torch.cat([learnt.rows(x), learnt.rows(y)])
    objective = float(power_of_kernels(prepare_rows(rows, learnt.kernel), [learnt.kernel]).objective)
    assert objective == pytest.approx(learnt.objective, rel=0.02)


def test_a_learnt_kernel_repeats_by_its_seed_and_survives_pickling() -> None:
    x, y = stripes(0, 60, 0.0).astype(np.float32), stripes(1, 50, 1.5).astype(np.float32)
    first, again = (train_deep_kernel(x, y, settings=QUICK, seed=3) for _ in range(2))
    other = train_deep_kernel(x, y, settings=QUICK, seed=4)
    assert torch.equal(first.rows(x), again.rows(x)) and first.kernel == again.kernel
    assert not torch.equal(first.rows(x), other.rows(x))
    copy = pickle.loads(pickle.dumps(first))
    assert torch.equal(first.rows(x), copy.rows(x)) and first.kernel == copy.kernel


def test_training_leaves_the_global_generator_alone() -> None:
    x, y = stripes(0, 20, 0.0), stripes(1, 20, 1.5)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    train_deep_kernel(x, y, settings=DeepKernelSettings(steps=1))
    assert torch.equal(torch.rand(3), expected)


def test_stopping_early_keeps_the_kernel_that_was_best_on_the_points_kept_out() -> None:
    """Of one distribution there is nothing to learn: all that training adds is fitted to its own points."""
    x, y = stripes(0, 60, 0.0), stripes(1, 60, 0.0)
    settings = DeepKernelSettings(width=32, steps=400, learning_rate=5e-3, validation=0.4, check_every=5)
    learnt = train_deep_kernel(x, y, settings=settings)
    assert 0 < learnt.steps < 400
    up_to_there = train_deep_kernel(x, y, settings=replace(settings, steps=learnt.steps))
    assert torch.equal(learnt.rows(x), up_to_there.rows(x)) and learnt.kernel == up_to_there.kernel


def test_minibatches_learn_too_and_sizes_may_differ() -> None:
    x, y = stripes(0, 480, 0.0), stripes(1, 520, 2.5)
    settings = DeepKernelSettings(width=16, steps=150, learning_rate=3e-3, batch=64)
    assert learnt_mmd_test(x, y, settings=settings, permutations=199).reject


@pytest.mark.parametrize("kernel", ["mmd-o", "mmd-d"])
def test_a_learnt_kernel_sees_what_the_median_heuristic_does_not(kernel: str) -> None:
    x, y = stripes(0, 480, 0.0), stripes(1, 480, 2.0)
    settings = DeepKernelSettings(width=16, steps=150, learning_rate=3e-3) if kernel == "mmd-d" else None
    result = learnt_mmd_test(x, y, kernel=kernel, settings=settings, permutations=199)
    assert result.reject and result.p_value == result.test.p_value
    assert mmd_test(x, y, permutations=199).p_value > 0.05
    assert (result.trained_x, result.test.n, result.test.exact) == (240, 240, True)
    assert learnt_mmd_test(x, y, kernel=kernel, settings=settings, statistic="unbiased", permutations=199).reject


@pytest.mark.parametrize("kernel", ["mmd-o", "mmd-d"])
def test_a_point_is_learnt_on_or_tested_and_never_both(kernel: str) -> None:
    """A point that is moved changes the kernel or is tested under the same one; half of them are tested."""
    x, y = stripes(0, 16, 0.0), stripes(1, 16, 1.5)
    options = {"kernel": kernel, "permutations": 19, "settings": QUICK if kernel == "mmd-d" else None}
    before = learnt_mmd_test(x, y, **options)
    tested = 0
    for row in range(16):
        moved = x.copy()
        moved[row] += 0.5
        after = learnt_mmd_test(moved, y, **options)
        same_kernel = after.learnt.kernel == before.learnt.kernel
        assert same_kernel == torch.equal(after.learnt.rows(x), before.learnt.rows(x)) or kernel == "mmd-o"
        tested += same_kernel and after.test.statistic != before.test.statistic
    assert tested == 8


def test_the_statistic_with_the_training_half_is_what_relabelling_changes_in_mmd_of_all_points() -> None:
    """The V-statistic of all points under relabelled tested points orders labellings as T does: it differs by a factor,
    a constant, and the kernel values of points with themselves, which are 1."""
    rng = np.random.default_rng(0)
    kernel = Kernel("gaussian", 1.3, 2)
    train, test = ([torch.from_numpy(rng.normal(size=(size, 2)) + at) for at in (0.0, 0.6)] for size in (9, 6))
    null = with_training_null(tuple(train), tuple(test), kernel, 999, np.random.default_rng(0))
    pooled = torch.cat([*train, *test])
    gram = torch.exp(-torch.cdist(pooled, pooled).square() / (2 * 1.3**2))

    def biased(of_x: tuple[int, ...]) -> float:
        signs = torch.full((30,), -1.0, dtype=torch.float64)
        signs[:9] = 1.0
        signs[18 + torch.tensor(of_x)] = 1.0
        return float(signs @ gram @ signs) / 15**2

    observed = biased(tuple(range(6)))
    # Cross terms of a pair of tested points weigh 1/36 in MMD²_u and 1/36 here, those within a sample 1/30 and 1/36.
    exact = np.mean([biased(chosen) >= observed - 1e-12 for chosen in combinations(range(12), 6)])
    assert abs(null.p_value() - exact) <= 0.03
    of_test = gram[18:, 18:]
    within = (of_test[:6, :6].sum() + of_test[6:, 6:].sum() - 12) / 30 - 2 * of_test[:6, 6:].mean()
    witness = gram[18:, :9].mean(1) - gram[18:, 9:18].mean(1)
    expected = float(within + 2 * 1.5 * (witness[:6].mean() - witness[6:].mean()))
    assert null.observed == pytest.approx(expected, abs=1e-9)


def test_images_have_a_network_of_their_own_and_bytes_are_intensities() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, size=(40, 3, 16, 16), dtype=np.uint8)
    y = rng.integers(0, 160, size=(40, 3, 16, 16), dtype=np.uint8)
    settings = DeepKernelSettings(steps=10)
    result = learnt_mmd_test(x, y, settings=settings, permutations=99)
    assert result.reject and result.test.dimension == 300 + 3 * 16 * 16
    as_floats = learnt_mmd_test(x / 127.5 - 1.0, y / 127.5 - 1.0, settings=settings, permutations=99)
    assert as_floats.test.statistic == pytest.approx(result.test.statistic, rel=1e-3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel": "mmd-x"}, "no learnt kernel 'mmd-x'"),
        ({"kernel": "mmd-o", "settings": QUICK}, "of the deep kernel"),
        ({"train_share": 1.0}, "train_share: must be between"),
        ({"train_share": 0.05}, "fewer than two points"),
        ({"train_share": 0.1}, "too few to train with"),
        ({"null": "unheard"}, "no null distribution"),
        ({"null": "bins", "statistic": "with_training"}, "goes with null='permutation'"),
    ],
)
def test_what_cannot_be_is_one_clear_error(options: dict, message: str) -> None:
    x, y = stripes(0, 24, 0.0), stripes(1, 24, 1.5)
    with pytest.raises(InputError, match=message):
        learnt_mmd_test(x, y, **({"settings": None} | options))


@pytest.mark.parametrize(
    "options", [{"steps": 0}, {"mixing": 1.0}, {"validation": 1.0}, {"batch": 2}, {"feature_scale": -1.0}]
)
def test_settings_that_cannot_train_are_refused_by_name(options: dict) -> None:
    with pytest.raises(InputError, match=f"{next(iter(options))}: must be"):
        DeepKernelSettings(**options)
