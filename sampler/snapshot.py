"""Nested tuples of tensors, such as a kernel's state, as plain lists that any file format holds, and back again."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class OtherChains(ValueError):
    """A snapshot is of chains that have another state than those that were to go on from it."""


def packed(value: Any) -> Any:
    """Tensors as copies on the CPU, tuples as lists; numbers and None as they are."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, tuple):
        return [packed(part) for part in value]
    if value is None or isinstance(value, int | float):
        return value
    raise TypeError(f"a snapshot holds tensors, numbers and tuples of them, not {type(value).__name__}")


def unpacked(saved: Any, like: Any) -> Any:
    """What was `packed`, with the structure and on the devices of `like`, whose values do not matter.

    Raises `OtherChains` when structure, shapes or types are others.
    """
    if isinstance(like, Tensor):
        if not isinstance(saved, Tensor) or saved.shape != like.shape or saved.dtype != like.dtype:
            raise OtherChains(f"a snapshot of {_spell(saved)} where {_spell(like)} belongs")
        return saved.to(like.device, copy=True)
    if isinstance(like, tuple):
        if not isinstance(saved, list) or len(saved) != len(like):
            raise OtherChains(f"a snapshot of {_spell(saved)} where {type(like).__name__} belongs")
        parts = [unpacked(part, of) for part, of in zip(saved, like, strict=True)]
        return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)
    if type(saved) is not type(like):
        raise OtherChains(f"a snapshot of {_spell(saved)} where {_spell(like)} belongs")
    return saved


def throw_away(device: torch.device) -> torch.Generator:
    """A generator for what is drawn only to see its structure."""
    return torch.Generator(device).manual_seed(0)


def _spell(value: Any) -> str:
    return f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
