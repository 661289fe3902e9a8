"""The random numbers of a step: drawn from a generator where they are needed, or all of them beforehand.

Kernels draw through `normal` and `uniform`. Given a `torch.Generator`, that is all. A step can also be told to note
which numbers it draws (`Noting`), and be given such numbers from then on (`DrawnBefore`): it is then a pure function of
its state and of them, which can be compiled as a whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Drawing(NamedTuple):
    """Numbers that are drawn in one go: independent `N(0, 1)`, or uniform on [0, 1)."""

    law: Literal["normal", "uniform"]
    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def draw(self, generator: torch.Generator) -> Tensor:
        law = torch.randn if self.law == "normal" else torch.rand
        return law(self.shape, generator=generator, dtype=self.dtype, device=self.device)


class Noting:
    """A generator that keeps a note of what is drawn, in order."""

    def __init__(self, generator: torch.Generator):
        self.generator, self.notes = generator, list[Drawing]()

    def take(self, drawing: Drawing) -> Tensor:
        self.notes.append(drawing)
        return drawing.draw(self.generator)


class DrawnBefore:
    """Numbers that were drawn before, in the order in which they will be asked for."""

    def __init__(self, numbers: Sequence[Tensor]):
        self.numbers = list(numbers)

    def take(self, drawing: Drawing) -> Tensor:
        return self.numbers.pop(0)


Source = torch.Generator | Noting | DrawnBefore


def normal(like: Tensor, source: Source) -> Tensor:
    """Independent `N(0, 1)` entries of the shape, type and device of `like`."""
    return _take(Drawing("normal", like.shape, like.dtype, like.device), source)


def uniform(like: Tensor, source: Source) -> Tensor:
    """Independent entries, uniform on [0, 1), of the shape, type and device of `like`."""
    return _take(Drawing("uniform", like.shape, like.dtype, like.device), source)


def _take(drawing: Drawing, source: Source) -> Tensor:
    return drawing.draw(source) if isinstance(source, torch.Generator) else source.take(drawing)
