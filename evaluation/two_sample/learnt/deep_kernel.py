"""MMD-D: a deep kernel trained to maximise the objective of power (Liu et al., ICML 2020)."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from math import inf, log, sqrt

import numpy as np
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.evaluation.two_sample.learnt.bandwidth import optimise_bandwidth
from gebm.evaluation.two_sample.learnt.featurisers import featuriser_of
from gebm.evaluation.two_sample.learnt.learnt_kernel import LearntKernel, as_numbers, kernel_on_rows
from gebm.evaluation.two_sample.learnt.objective import deep_power
from gebm.evaluation.two_sample.samples import Sample, as_samples

FULL_BATCH = 2048  # pairs up to which a step sees all of them
BATCH = 512
SMALLEST_WIDTH = 50
CHECKS_WITHOUT_GAIN = 8
FEWEST_PAIRS = 4


@dataclass(frozen=True)
class DeepKernelSettings:
    """How a deep kernel is trained.

    Attributes:
        width: H of the featuriser of vectors; None for three times the dimension, at least 50.
        learning_rate: of Adam, for the network and the kernel's three numbers.
        steps: at most.
        batch: pairs a step sees; None for all, up to 2,048 pairs, and 512 of more.
        mixing: eps at the start.
        feature_scale: sigma_phi at the start.
        point_scale: sigma_q at the start; None for `2 s²` of the bandwidth s that MMD-O finds on the same points.
        validation: share of the training points that is kept out of training, to stop when J on it no longer grows;
            0 for all steps.
        check_every: steps between two looks at the points kept out.
    """

    width: int | None = None
    learning_rate: float = 5e-4
    steps: int = 1000
    batch: int | None = None
    mixing: float = 0.5
    feature_scale: float = 0.1
    point_scale: float | None = None
    validation: float = 0.0
    check_every: int = 20

    def __post_init__(self) -> None:
        whole = {"steps": self.steps, "check_every": self.check_every, "width": self.width or 1}
        positive = {"learning_rate": self.learning_rate, "feature_scale": self.feature_scale}
        if self.point_scale is not None:
            positive["point_scale"] = self.point_scale
        for name, value in (whole | positive).items():
            if not value > 0:
                raise InputError(f"{name}: must be positive, got {value}")
        if self.batch is not None and self.batch < FEWEST_PAIRS:
            raise InputError(f"batch: must be at least {FEWEST_PAIRS} pairs, got {self.batch}")
        if not 0 < self.mixing < 1:
            raise InputError(f"mixing: must be between 0 and 1, got {self.mixing}")
        if not 0 <= self.validation < 1:
            raise InputError(f"validation: must be at least 0 and below 1, got {self.validation}")


class _DeepKernel(torch.nn.Module):
    """What is trained: the featuriser, and sigma_phi, sigma_q and eps as squares and a sigmoid."""

    def __init__(self, featuriser: torch.nn.Module, settings: DeepKernelSettings, point_scale: float) -> None:
        super().__init__()
        self.featuriser = featuriser
        logit = log(settings.mixing) - log(1.0 - settings.mixing)
        self.mixing_logit = torch.nn.Parameter(torch.tensor(logit))
        self.root_feature_scale = torch.nn.Parameter(torch.tensor(sqrt(settings.feature_scale)))
        self.root_point_scale = torch.nn.Parameter(torch.tensor(sqrt(point_scale)))

    def power(self, points: torch.Tensor) -> torch.Tensor:
        """J between the first half of `points` and the second."""
        features = self.featuriser(points) / self.root_feature_scale.abs()
        return deep_power(features, points.flatten(1) / self.root_point_scale.abs(), self.mixing_logit.sigmoid())


def train_deep_kernel(
    x: Sample,
    y: Sample,
    *,
    settings: DeepKernelSettings | None = None,
    seed: int = 0,
    device: str | torch.device | None = None,
) -> LearntKernel:
    """A deep kernel that maximises `J = MMD²/sigma` between `x` and `y`.

    These points must not be tested afterwards: `learnt_mmd_test` splits.

    Args:
        x: vectors `(n, d)` or images `(n, channels, height, width)`; bytes are taken as intensities.
        y: likewise; a step compares as many points of each.
        settings: None for the defaults.
        seed: of the network's weights and of all choices of points.
        device: where to train; None for that of `x`.

    Raises:
        InputError: samples that cannot be compared, or too few for pairs to train with.
    """
    settings = settings or DeepKernelSettings()
    points = [as_numbers(raw, flat) for raw, flat in zip((x, y), as_samples({"x": x, "y": y}, device), strict=True)]
    shape = tuple(x.shape[1:])
    if tuple(y.shape[1:]) != shape or len(shape) not in (1, 3):
        raise InputError(
            f"x, y: a deep kernel takes vectors (n, d) or images (n, channels, height, width), both alike; got "
            f"{tuple(x.shape)} and {tuple(y.shape)}"
        )
    rng = np.random.default_rng(derive_seed(seed, "two_sample_learnt", "deep_kernel"))
    (train_x, kept_x), (train_y, kept_y) = (_keep_out(side, settings.validation, rng) for side in points)
    if min(len(train_x), len(train_y)) < FEWEST_PAIRS or 0 < min(len(kept_x), len(kept_y)) < FEWEST_PAIRS:
        raise InputError(
            f"x, y: {len(points[0])} and {len(points[1])} points are too few to train with; a deep kernel needs "
            f"{FEWEST_PAIRS} of each, and as many again kept out where validation is not 0"
        )
    point_scale = settings.point_scale
    if point_scale is None:
        point_scale = 2.0 * optimise_bandwidth(train_x, train_y, seed=seed).kernel.terms[0].bandwidth ** 2
    weights = derive_seed(seed, "two_sample_learnt", "weights")
    width = settings.width or max(SMALLEST_WIDTH, 3 * points[0].shape[1])
    model = _DeepKernel(featuriser_of(shape, width, weights), settings, point_scale).to(points[0].device)
    kept = None
    if len(kept_x):
        count = min(len(kept_x), len(kept_y))
        kept = torch.cat([kept_x[:count], kept_y[:count]]).view(-1, *shape)
    objective, steps = _maximise(model, _batches(train_x, train_y, shape, settings.batch, rng), kept, settings)
    model.requires_grad_(False)
    mixing = float(model.mixing_logit.sigmoid())
    features = model.featuriser[-1].out_features  # type: ignore[index]
    return LearntKernel(
        kernel=kernel_on_rows(features, points[0].shape[1], mixing),
        featuriser=model.featuriser.eval(),
        feature_scale=float(model.root_feature_scale) ** 2,
        point_scale=float(model.root_point_scale) ** 2,
        mixing=mixing,
        shape=shape,
        objective=objective,
        steps=steps,
    )


def _keep_out(points: torch.Tensor, share: float, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    kept = round(share * len(points))
    if kept == 0:
        return points, points[:0]
    order = torch.from_numpy(rng.permutation(len(points))).to(points.device)
    return points[order[kept:]], points[order[:kept]]


def _batches(
    x: torch.Tensor, y: torch.Tensor, shape: tuple[int, ...], batch: int | None, rng: np.random.Generator
) -> Iterator[torch.Tensor]:
    """Without end, b points of X followed by b of Y: all of them each time, or epoch by epoch in random order."""
    n = min(len(x), len(y))
    size = min(n, batch or (n if n <= FULL_BATCH else BATCH))
    if size == len(x) == len(y):
        everything = torch.cat([x, y]).view(-1, *shape)
        while True:
            yield everything
    while True:
        orders = [torch.from_numpy(rng.permutation(len(side))).to(side.device) for side in (x, y)]
        for start in range(0, n - size + 1, size):
            parts = [side[order[start : start + size]] for side, order in zip((x, y), orders, strict=True)]
            yield torch.cat(parts).view(-1, *shape)


def _maximise(
    model: _DeepKernel, batches: Iterator[torch.Tensor], kept: torch.Tensor | None, settings: DeepKernelSettings
) -> tuple[float, int]:
    """Adam on `-J`. Leaves in the model the last weights or, with points kept out, those best on them; returns that J
    and how many steps led there."""
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    best, best_step, best_state = -inf, 0, None
    objective = 0.0
    for step in range(1, settings.steps + 1):
        optimiser.zero_grad(set_to_none=True)
        power = model.power(next(batches))
        (-power).backward()
        optimiser.step()
        if kept is None or (step % settings.check_every and step < settings.steps):
            continue
        with torch.no_grad():
            objective = float(model.power(kept))
        if objective > best:
            best, best_step, best_state = objective, step, copy.deepcopy(model.state_dict())
        elif step - best_step >= CHECKS_WITHOUT_GAIN * settings.check_every:
            break
    if best_state is None:
        return float(power.detach()), settings.steps
    model.load_state_dict(best_state)
    return best, best_step
