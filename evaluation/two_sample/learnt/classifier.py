"""Classifier two-sample tests, C2ST-S and C2ST-L: can a network tell the samples apart? (Lopez-Paz, Oquab 2017; Liu et
al. 2020)"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import nn

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.learnt.deep_kernel import SMALLEST_WIDTH
from gebm.evaluation.two_sample.learnt.featurisers import featuriser_of
from gebm.evaluation.two_sample.learnt.learnt_kernel import POINTS_AT_A_TIME, as_numbers
from gebm.evaluation.two_sample.samples import Sample, as_sample, as_samples


@dataclass(frozen=True)
class ClassifierSettings:
    """How the classifier is trained.

    Attributes:
        width: of the network of vectors; None for three times the dimension, at least 50.
        learning_rate: of Adam.
        steps: of training.
        batch: points a step sees.
    """

    width: int | None = None
    learning_rate: float = 5e-4
    steps: int = 3000
    batch: int = 128

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not value > 0:
                raise InputError(f"{name}: must be positive, got {value}")


@dataclass(frozen=True)
class Classifier:
    """A network whose output is the logit of a point being of Y; its features are of one kind.

    Attributes:
        network: `(n, *shape) -> (n, 1)`.
        shape: of a point.
        kind: `c2st-s`, on which side of 0 the logit is; `c2st-l`, the probability, or of images the logit.
    """

    network: nn.Module
    shape: tuple[int, ...]
    kind: Literal["c2st-s", "c2st-l"]

    def features(self, points: Sample, device: str | torch.device | None = None) -> torch.Tensor:
        """`(n, 1)`."""
        flat = as_numbers(points, as_sample(points, "points", device, fewest=1))
        of = next(self.network.parameters()).device
        with torch.no_grad():
            parts = [self.network(part.to(of).view(-1, *self.shape)) for part in flat.split(POINTS_AT_A_TIME)]
        logits = torch.cat(parts).to(flat.device)
        if self.kind == "c2st-s":
            return (logits > 0).to(torch.float64)
        return (logits if len(self.shape) == 3 else logits.sigmoid()).to(torch.float64)


def train_classifier(
    x: Sample,
    y: Sample,
    *,
    kind: Literal["c2st-s", "c2st-l"],
    settings: ClassifierSettings | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> Classifier:
    """The featuriser of deep kernels and a linear layer, trained by cross-entropy on minibatches of both samples.

    Where one sample is larger, its points weigh less, so that the classes are balanced. Arguments as for
    `train_deep_kernel`.

    Raises:
        InputError: samples that cannot be compared.
    """
    settings = settings or ClassifierSettings()
    sides = zip((x, y), as_samples({"x": x, "y": y}, device), strict=True)
    points_x, points_y = (as_numbers(raw, flat) for raw, flat in sides)
    shape, n, m = tuple(x.shape[1:]), len(points_x), len(points_y)
    rng = np.random.default_rng(derive_seed(seed, "two_sample_learnt", "classifier"))
    weights = derive_seed(seed, "two_sample_learnt", "classifier_weights")
    featuriser = featuriser_of(shape, settings.width or max(SMALLEST_WIDTH, 3 * points_x.shape[1]), weights)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(weights + 1)
        network = nn.Sequential(featuriser, nn.ReLU(), nn.Linear(featuriser[-1].out_features, 1))  # type: ignore[arg-type]
    network.to(points_x.device)
    everything = torch.cat([points_x, points_y])
    of_y = (torch.arange(n + m, device=everything.device) >= n).to(torch.float32)
    balance = torch.where(of_y > 0, (n + m) / (2 * m), (n + m) / (2 * n))
    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate, fused=True)
    size = min(settings.batch, n + m)
    order, start = torch.empty(0, dtype=torch.int64), 0
    for _ in range(settings.steps):
        if start + size > len(order):
            order, start = torch.from_numpy(rng.permutation(n + m)).to(everything.device), 0
        chosen, start = order[start : start + size], start + size
        logits = network(everything[chosen].view(-1, *shape))[:, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logits, of_y[chosen], weight=balance[chosen])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    return Classifier(network.requires_grad_(False).eval(), shape, kind)
