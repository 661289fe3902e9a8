"""A small classifier of single digits, trained on the channels of a labelled set of stacked digits.

An image of `k` channels holds one digit in each, and its label is their number: 100 a + 10 b + c for three. An image
of one channel is a digit itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.reader import read_all

DIGITS = 10
STEPS, BATCH, LEARNING_RATE = 2_000, 64, 3e-3
MOST_TURN, MOST_STRETCH, MOST_SHEAR, MOST_SHIFT = 0.2, 0.12, 0.15, 0.12  # radians, shares of the size
MOST_IMAGES = 20_000


class SingleDigits(NamedTuple):
    """images: uint8 `(n, 1, height, width)`, one digit each. labels: int64 `(n,)`, 0 to 9."""

    images: np.ndarray
    labels: np.ndarray


class DigitClassifier(nn.Module):
    """Images `(n, 1, size, size)` in [0, 1] to log-odds `(n, 10)`. `size` is a multiple of 8."""

    def __init__(self, size: int):
        super().__init__()
        blocks: list[nn.Module] = []
        for narrow, wide in itertools.pairwise((1, 16, 32, 64)):
            blocks += [nn.Conv2d(narrow, wide, 4, stride=2, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
        self.layers = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * (size // 8) ** 2, DIGITS))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)


def check_stacked_digits(url: str) -> int:
    """The number of channels of a labelled set of stacked digits. Raises `InputError` for any other set."""
    index = load_index(url)
    channels = index.image_shape[0]
    if len(index.image_shape) != 3 or index.classes != DIGITS**channels:
        raise InputError(
            f"{url}: {index.classes or 'no'} classes of shape {'x'.join(map(str, index.image_shape))}; modes "
            "and labels are read by a classifier of digits, one a channel, that make up the label (`gebm data mnist`, "
            "`gebm data stacked_mnist`)"
        )
    return channels


def check_digit_sets(sets: Iterable[str], train: str | None, test: str) -> None:
    """Raise `InputError` unless `train` and `test` are labelled stacked digits and all sets have images like theirs."""
    if train is None:
        raise InputError(
            "evaluation.metrics: modes and labels are read by a classifier of digits, and no labelled training images "
            "are given: give them (--digits; `gebm data stacked_mnist` makes some), or leave modes and labels out"
        )
    for url in (train, test):
        check_stacked_digits(url)
    shape = load_index(train).image_shape
    for url in (test, *sets):
        if load_index(url).image_shape != shape:
            raise InputError(f"{url}: images of another shape than {train}; the classifier of digits reads one shape")


def single_digits(url: str, limit: int = MOST_IMAGES) -> SingleDigits:
    """The channels of the first `limit` images of a labelled set, each a digit by itself. Raises `InputError`."""
    channels = check_stacked_digits(url)
    batch = read_all(url, limit)
    assert batch.labels is not None
    return SingleDigits(batch.images.reshape(-1, 1, *batch.images.shape[2:]), digits_of(batch.labels, channels))


def numbers_of(classifier: DigitClassifier, images: np.ndarray) -> np.ndarray:
    """What uint8 images `(n, channels, height, width)` show, int64 `(n,)`: their channels' digits as one number."""
    channels = images.shape[1]
    digits = classify(classifier, images.reshape(-1, 1, *images.shape[2:]))
    return digits.reshape(-1, channels) @ DIGITS ** np.arange(channels - 1, -1, -1)


def digits_of(labels: np.ndarray, channels: int) -> np.ndarray:
    """Labels `(n,)` to digits `(n * channels,)`: 123 to 1, 2, 3."""
    places = DIGITS ** np.arange(channels - 1, -1, -1)
    return (labels[:, None] // places % DIGITS).reshape(-1)


def train_digit_classifier(digits: SingleDigits, seed: int) -> DigitClassifier:
    """A classifier in evaluation mode: cross-entropy, Adam at a rate that falls to 0, digits deformed at random."""
    with one_thread():
        return _train(digits, seed)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for torch, as many as before afterwards.

    Steps this small gain little from more, and on a machine that is busy threads that wait for each other took ten
    times as long. Sums then come in one order, too, whatever the machine.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _train(digits: SingleDigits, seed: int) -> DigitClassifier:
    images, labels = torch.from_numpy(digits.images), torch.from_numpy(digits.labels)
    generator = torch.Generator().manual_seed(derive_seed(seed, "digit-classifier", "batches"))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "digit-classifier", "weights"))
        classifier = DigitClassifier(images.shape[-1])
    optimizer = torch.optim.Adam(classifier.parameters(), lr=LEARNING_RATE, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for _ in range(STEPS):
        rows = torch.randint(len(images), (BATCH,), generator=generator)
        batch = deform(images[rows].float() / 255, generator)
        loss = nn.functional.cross_entropy(classifier(batch), labels[rows])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval().requires_grad_(False)


def deform(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image `(n, 1, size, size)` turned, stretched, sheared and shifted a little, so that few digits go far."""

    def draw(most: float) -> Tensor:
        return most * (2 * torch.rand(len(images), generator=generator) - 1)

    turn, wide, high, shear = draw(MOST_TURN), 1 + draw(MOST_STRETCH), 1 + draw(MOST_STRETCH), draw(MOST_SHEAR)
    across = torch.stack([wide * turn.cos(), shear - high * turn.sin(), draw(MOST_SHIFT)], 1)
    down = torch.stack([wide * turn.sin(), high * turn.cos(), draw(MOST_SHIFT)], 1)
    grid = nn.functional.affine_grid(torch.stack([across, down], 1), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, align_corners=False)


def classify(classifier: DigitClassifier, images: np.ndarray, batch: int = 1_000) -> np.ndarray:
    """The likeliest digit of each uint8 image `(n, 1, height, width)`: int64 `(n,)`."""
    parts = torch.from_numpy(images).split(batch)
    with torch.inference_mode():
        return torch.cat([classifier(part.float() / 255).argmax(1) for part in parts]).numpy()
