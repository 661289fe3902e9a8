"""Someone else's network as the feature extractor, named by import path.

`package.module:name` is a `torch.nn.Module`, or a callable that makes one (called with the path of the weights, when
`weights` is given). The module maps uint8 RGB images `(n, 3, height, width)` to features `(n, d)`: resizing and
normalisation are its own. The actors import it too, so it must be importable there.
"""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import nn

from gebm.cluster.errors import InputError


class Imported(nn.Module):
    """The module that was imported, returning a tuple of one feature tensor, as extractors do."""

    def __init__(self, network: nn.Module, name: str):
        super().__init__()
        self.network = network
        self._name = name

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.network(images)
        if isinstance(features, tuple | list) and len(features) == 1:
            features = features[0]
        if not isinstance(features, torch.Tensor) or features.dim() != 2 or len(features) != len(images):
            got = tuple(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
            raise InputError(
                f"extractor {self._name}: features of {len(images)} images must be a tensor ({len(images)}, d), "
                f"got {got}"
            )
        return (features.to(torch.float32),)


def is_import_path(name: str) -> bool:
    """Whether an extractor is named by import path."""
    return ":" in name


def import_network(name: str, weights: str | None) -> Imported:
    """The module at `name`.

    Raises:
        InputError: it cannot be imported or made, or is no `torch.nn.Module`.
    """
    module_name, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
        for part in attribute.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"extractor.name: {name} cannot be imported ({error}); give 'package.module:name' of a torch.nn.Module, "
            f"or of what makes one, importable here and on every node"
        ) from error
    if not isinstance(found, nn.Module):
        call = f"{name}({'' if weights is None else repr(weights)})"
        try:
            found = found() if weights is None else found(weights)
        except Exception as error:  # of the user's own code: anything
            raise InputError(f"extractor.name: {call} failed: {type(error).__name__}: {error}") from error
        if not isinstance(found, nn.Module):
            raise InputError(f"extractor.name: {call} gives a {type(found).__name__}, not a torch.nn.Module")
    elif weights is not None:
        raise InputError(f"extractor.weights: {name} is a module that has its weights; leave it out")
    return Imported(found, name)
