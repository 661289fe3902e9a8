"""Labels of a conditional model's samples: one a chain, drawn before it starts and kept."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gebm.cluster.errors import InputError
from gebm.sampler.settings import SamplerSettings
from gebm.trainer.model import GEBM


def check_label(settings: SamplerSettings, classes: int | None) -> None:
    """Raise `InputError` when `settings.label` is no class of a model that has `classes` (None: no labels)."""
    if settings.label is None:
        return
    if classes is None:
        raise InputError(f"sampler.label {settings.label}: the model is not conditional; leave the label out")
    if settings.label >= classes:
        raise InputError(f"sampler.label {settings.label}: the model's classes are 0 to {classes - 1}")


def draw_labels(model: GEBM, settings: SamplerSettings, count: int, generator: torch.Generator) -> Tensor | None:
    """`(count,)` int64 labels on the generator's device, None for a model without classes.

    Uniform over the classes, or all `settings.label`. Raises `InputError` when that is no class of the model.
    """
    check_label(settings, model.classes)
    if model.classes is not None and settings.label is not None:
        return torch.full((count,), settings.label, device=generator.device)
    return model.sample_labels(count, generator)


def check_labels(labels: Tensor, count: int, classes: int | None) -> None:
    """Raise `ValueError` unless `labels` are `count` classes of a model that has `classes`."""
    if classes is None:
        raise ValueError("labels are given, but the model is not conditional")
    if labels.dtype != torch.int64 or labels.shape != (count,):
        raise ValueError(f"labels must be int64 of shape ({count},), not {labels.dtype} {tuple(labels.shape)}")
    if count and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(f"labels must be classes 0 to {classes - 1}, not {int(labels.min())} to {int(labels.max())}")


def chain_batches(
    prior: Tensor, labels: Tensor | None, chains: int, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The latents `(n, p)` that chains start from, at most `chains` at a time, with their labels, on `device`."""
    for first in range(0, len(prior), chains):
        rows = slice(first, first + chains)
        yield prior[rows].to(device), None if labels is None else labels[rows].to(device)
