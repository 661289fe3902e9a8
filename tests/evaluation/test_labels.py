"""Whether images show what their labels say: counted from labels, read by a classifier in images of digits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from gebm.cluster.errors import InputError
from gebm.evaluation import digit_classifier
from gebm.evaluation.evaluate import evaluate
from gebm.evaluation.extractors import ExtractorSettings
from gebm.evaluation.labels import agreement, label_agreement
from gebm.evaluation.settings import EvaluationSettings
from gebm.launch.data.splits import write_split
from gebm.sampler.work import stored_samples
from tests.conftest import draw_digit

LABELS_ALONE = EvaluationSettings(metrics=("labels",), tests=(), extractor=ExtractorSettings(name="raw"))


def write_digits(url: str, shown: np.ndarray, labels: np.ndarray | None, seed: int = 0) -> str:
    """Seven-segment digits `shown` `(n,)`, or stacked ones `(n, channels)`, that say `labels` of themselves."""
    random = np.random.default_rng(seed)
    shown = shown.reshape(len(shown), -1)
    images = np.stack([[draw_digit(int(digit), 32, 1, random)[..., 0] for digit in row] for row in shown])
    samples = stored_samples(images, None if labels is None else labels.tolist(), first=0)
    classes = None if labels is None else 10 ** shown.shape[1]
    write_split(url, samples, image_shape=images.shape[1:], classes=classes, shard_size=500)
    return url


@pytest.fixture(autouse=True)
def few_steps(monkeypatch):
    """Seven-segment digits are learnt in a fraction of the steps that handwriting needs."""
    monkeypatch.setattr(digit_classifier, "STEPS", 150)


def test_agreement_is_the_share_of_images_that_show_their_label_in_all_and_by_digit():
    labels = np.array([0, 0, 1, 1, 1, 1, 3, 3])
    shown = np.array([0, 7, 1, 1, 1, 0, 3, 3])
    found = agreement(shown, labels, 10)
    assert (found.share, found.n) == (0.75, 8)
    assert found.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 8))
    assert found.by_class == [0.5, 0.75, None, 1.0, *[None] * 6]
    assert agreement(shown, labels, 100).by_class is None


def test_labels_are_read_off_the_images_of_model_base_and_real_ones(tmp_path, ray_cluster):
    """The model shows what it was asked for, the base the next digit in half of the images."""
    random = np.random.default_rng(0)
    train, real, model, asked = (random.integers(0, 10, count) for count in (400, 120, 120, 120))
    sets = {
        "digits": write_digits(str(tmp_path / "train"), train, train, seed=1),
        "reference": write_digits(str(tmp_path / "real"), real, real, seed=2),
        "samples": write_digits(str(tmp_path / "model"), model, model, seed=3),
        "base": write_digits(str(tmp_path / "base"), (asked + np.arange(120) % 2) % 10, asked, seed=4),
    }
    found = evaluate(**sets, settings=LABELS_ALONE)
    assert found["labels_real"]["share"] > 0.95 and found["labels_model"]["share"] > 0.95
    assert found["labels_base"]["share"] == pytest.approx(0.5, abs=0.05)
    assert found["labels_base"]["n"] == 120 and len(found["labels_base"]["by_class"]) == 10
    assert found["modes_model"] is None
    without = {name: url for name, url in sets.items() if name != "base"}
    assert evaluate(**without, settings=LABELS_ALONE)["labels_base"] is None


def test_a_number_of_stacked_digits_is_shown_when_all_its_digits_are(tmp_path):
    random = np.random.default_rng(1)
    rows = random.integers(0, 10, (150, 3))
    numbers = rows @ [100, 10, 1]
    train = write_digits(str(tmp_path / "train"), rows, numbers)
    wrong = np.where(np.arange(150) % 3 == 0, (numbers + 100) % 1000, numbers)  # the first digit is another
    found = label_agreement({"x": write_digits(str(tmp_path / "x"), rows, wrong, seed=5)}, train, train, seed=0)
    assert found["x"]["share"] == pytest.approx(2 / 3, abs=0.05) and found["x"]["by_class"] is None


def test_samples_without_labels_and_sets_that_are_no_digits_are_refused_before_any_work(tmp_path, make_shards):
    digits = np.arange(20) % 10
    real = write_digits(str(tmp_path / "real"), digits, digits)
    unlabelled = write_digits(str(tmp_path / "plain"), digits, None)
    with pytest.raises(InputError, match=r"plain: no classes, the real images have 10; .*model.conditional = true"):
        evaluate(samples=unlabelled, reference=real, digits=real, settings=LABELS_ALONE)
    with pytest.raises(InputError, match="no labelled training images are given"):
        evaluate(samples=real, reference=real, settings=LABELS_ALONE)
    with pytest.raises(InputError, match="10 classes of shape 3x32x32"):
        evaluate(samples=real, reference=real, digits=make_shards((20,), channels=3), settings=LABELS_ALONE)
