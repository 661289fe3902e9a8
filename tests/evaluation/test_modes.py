"""Modes of stacked digits: counted exactly from labels, found by a classifier in images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.evaluation import digit_classifier
from gebm.evaluation.digit_classifier import classify, digits_of, single_digits, train_digit_classifier
from gebm.evaluation.evaluate import evaluate, evaluate_several
from gebm.evaluation.extractors import ExtractorSettings
from gebm.evaluation.modes import count_modes, coverage, expected_coverage
from gebm.evaluation.settings import EvaluationSettings
from gebm.launch.data.splits import write_split
from gebm.sampler.work import stored_samples
from tests.conftest import draw_digit


def write_stacked(url: str, digits: np.ndarray, seed: int, labelled: bool = True) -> str:
    """Stacked seven-segment digits `(n, channels)` as a shard set."""
    random = np.random.default_rng(seed)
    images = np.stack([[draw_digit(int(d), 32, 1, random)[..., 0] for d in row] for row in digits])
    places = 10 ** np.arange(digits.shape[1] - 1, -1, -1)
    samples = stored_samples(images, (digits @ places).tolist() if labelled else None, first=0)
    classes = 10 ** digits.shape[1] if labelled else None
    write_split(url, samples, image_shape=images.shape[1:], classes=classes, shard_size=500)
    return url


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """`stacked(name, digits)` writes the set once and returns its URL."""
    folder = tmp_path_factory.mktemp("stacked")
    return lambda name, digits, **options: write_stacked(str(folder / name), digits, seed=len(name), **options)


@pytest.fixture
def few_steps(monkeypatch):
    """Seven-segment digits are learnt in a fraction of the steps that handwriting needs."""
    monkeypatch.setattr(digit_classifier, "STEPS", 150)


@pytest.mark.parametrize(
    ("modes", "covered", "divergence"),
    [
        (np.arange(1000), 1000, 0.0),
        (np.repeat(np.arange(500), 3), 500, math.log(2)),
        (np.zeros(7, int), 1, math.log(1000)),
        (np.array([0, 0, 0, 1]), 2, 0.75 * math.log(750) + 0.25 * math.log(250)),
    ],
)
def test_coverage_counts_modes_and_measures_their_evenness(modes, covered, divergence):
    found = coverage(modes, 1000)
    assert (found.covered, found.of, found.n) == (covered, 1000, len(modes))
    assert found.kl_to_uniform == pytest.approx(divergence, abs=1e-12)


def test_the_expected_coverage_is_that_of_uniform_draws():
    # 200 samples of 1,500: the mean has a standard error below 0.8 modes; 4 of them are passed once in 16,000.
    random = np.random.default_rng(0)
    means = np.mean([coverage(random.integers(0, 1000, 1500), 1000).covered for _ in range(200)])
    assert abs(means - expected_coverage(1000, 1500)) < 3.2


def test_labels_are_read_as_one_digit_a_channel():
    assert digits_of(np.array([123, 7, 990]), 3).tolist() == [1, 2, 3, 0, 0, 7, 9, 9, 0]


def test_modes_of_images_are_those_that_were_drawn(stacked, few_steps):
    random = np.random.default_rng(3)
    train = stacked("train", random.integers(0, 10, (200, 3)))
    test = stacked("held-out", random.integers(0, 10, (40, 3)))
    even = stacked("even", np.array(list(np.ndindex(10, 10, 10))), labelled=False)
    poor = stacked("poor-one", np.array([[3, 1, b] for b in range(5) for _ in range(8)]), labelled=False)
    found = count_modes({"even": even, "poor": poor}, train, test, seed=0)
    assert found["classifier"]["n"] == 120 and found["classifier"]["accuracy"] > 0.97
    assert found["even"]["covered"] >= 930 and found["even"]["of"] == 1000
    assert found["even"]["kl_to_uniform"] < 0.1
    assert 5 <= found["poor"]["covered"] <= 9
    assert found["poor"]["kl_to_uniform"] == pytest.approx(math.log(200), abs=0.2)


def test_the_classifier_is_a_function_of_its_seed(stacked, few_steps, monkeypatch):
    monkeypatch.setattr(digit_classifier, "STEPS", 5)
    digits = single_digits(stacked("seeded", np.random.default_rng(0).integers(0, 10, (40, 1))))
    first, again, other = (train_digit_classifier(digits, seed).layers[-1].weight for seed in (1, 1, 2))
    assert (first == again).all() and not (first == other).all()
    assert classify(train_digit_classifier(digits, 1), digits.images).shape == (40,)


def test_sets_that_are_not_stacked_digits_are_refused(stacked, tiny_shards, make_shards):
    unlabelled = stacked("unlabelled", np.zeros((4, 3), int), labelled=False)
    with pytest.raises(InputError, match="no classes of shape 3x32x32"):
        single_digits(unlabelled)
    with pytest.raises(InputError, match="10 classes of shape 3x32x32"):
        single_digits(make_shards((20,), channels=3))
    with pytest.raises(InputError, match="images of another shape"):
        count_modes({"x": unlabelled}, tiny_shards, tiny_shards, seed=0)


MODES_ALONE = EvaluationSettings(metrics=("modes",), tests=(), extractor=ExtractorSettings(name="raw"))


def test_an_evaluation_counts_modes_of_model_base_and_real_images(stacked, few_steps, ray_cluster):
    random = np.random.default_rng(5)
    train, real = (stacked(name, random.integers(0, 10, (120, 3))) for name in ("learnt", "real-ones"))
    model = stacked("of-model", random.integers(0, 10, (120, 3)), labelled=False)
    base = stacked("of-base", np.full((120, 3), 4), labelled=False)
    request = {"reference": real, "digits": train, "settings": MODES_ALONE}
    found = evaluate(samples=model, base=base, **request)
    assert found["modes_base"]["covered"] < 10 < 100 < found["modes_model"]["covered"]
    assert found["modes_base"]["kl_to_uniform"] > 6 > 3 > found["modes_model"]["kl_to_uniform"]
    assert found["modes_real"]["n"] == 120 and found["modes_classifier"]["n"] == 360
    assert evaluate(samples=model, **request)["modes_base"] is None
    first, second = evaluate_several(samples=[model, real], base=base, **request)
    assert first == found
    assert second["modes_model"] == found["modes_real"] == second["modes_real"]


def test_modes_without_labelled_digits_are_refused_before_any_work(stacked, tiny_shards, make_shards):
    real = stacked("refused", np.zeros((4, 3), int))
    with pytest.raises(InputError, match="no labelled training images are given"):
        evaluate(samples=real, reference=real, settings=MODES_ALONE)
    with pytest.raises(InputError, match="10 classes of shape 3x32x32"):
        evaluate(samples=real, reference=real, digits=make_shards((20,), channels=3), settings=MODES_ALONE)
    with pytest.raises(InputError, match="images of another shape"):
        evaluate(samples=real, reference=real, digits=tiny_shards, settings=MODES_ALONE)


def test_the_classifier_does_not_depend_on_the_number_of_threads_and_leaves_it(stacked, monkeypatch):
    monkeypatch.setattr(digit_classifier, "STEPS", 20)
    digits = single_digits(stacked("threads", np.random.default_rng(0).integers(0, 10, (40, 1))))
    before = torch.get_num_threads()
    weights = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            weights.append(train_digit_classifier(digits, 1).layers[0].weight)
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*weights)
