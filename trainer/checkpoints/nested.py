"""A nested dict of tensors and plain values, as flat tensors by name and one JSON text; and back, to the bit.

`torch.distributed.checkpoint` stores flat tensors well, and plain Python values only as pickles. The text keeps what
JSON itself would lose: keys that are numbers, tuples, and how a tensor lies in memory (a fused optimiser reads its
moments in the order in which the weights lie).
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def flatten(content: Mapping[str, Any]) -> tuple[dict[str, Tensor], str]:
    """The tensors of `content` by the path that leads to them, detached, and the JSON text of all the rest.

    Raises `TypeError`, naming the path, for what is neither a tensor, a plain value, a dict, a list nor a tuple.
    """
    tensors: dict[str, Tensor] = {}

    def describe(value: Any, path: str) -> Any:
        if isinstance(value, Tensor):
            if path in tensors:
                raise TypeError(f"{path}: two tensors of a checkpoint have this path")
            tensors[path] = value.detach()
            return {"tensor": path, "dtype": str(value.dtype), "shape": list(value.shape), "stride": _stride(value)}
        if isinstance(value, Mapping):
            if odd := [key for key in value if not isinstance(key, (str, int))]:
                raise TypeError(f"{path}: a checkpoint cannot hold the key {odd[0]!r}")
            pairs = [[key, describe(each, f"{path}.{key}" if path else str(key))] for key, each in value.items()]
            # The versions of modules, by which `load_state_dict` reads a state dict.
            versions = getattr(value, "_metadata", None)
            return {"dict": pairs} if versions is None else {"dict": pairs, "versions": describe(versions, path)}
        if isinstance(value, (list, tuple)):
            kind = "list" if isinstance(value, list) else "tuple"
            return {kind: [describe(each, f"{path}.{number}") for number, each in enumerate(value)]}
        if value is None or type(value) in (bool, int, float, str):
            return value
        raise TypeError(f"{path}: a checkpoint cannot hold a {type(value).__name__}")

    return tensors, json.dumps(describe(content, ""))


def empty_tensors(text: str) -> dict[str, Tensor]:
    """The tensors that `text` of `flatten` speaks of, on the CPU, by path, to be filled."""
    tensors: dict[str, Tensor] = {}

    def note(entry: dict[str, Any]) -> dict[str, Any]:
        if "tensor" in entry:
            dtype = getattr(torch, entry["dtype"].removeprefix("torch."))
            tensors[entry["tensor"]] = torch.empty_strided(entry["shape"], entry["stride"], dtype=dtype)
        return entry

    json.loads(text, object_hook=note)
    return tensors


def unflatten(tensors: Mapping[str, Tensor], text: str) -> dict[str, Any]:
    """Inverse of `flatten`."""

    def rebuild(entry: Any) -> Any:
        match entry:
            case {"tensor": path}:
                return tensors[path]
            case {"dict": pairs, "versions": versions}:
                state_dict = OrderedDict((key, rebuild(each)) for key, each in pairs)
                state_dict._metadata = rebuild(versions)  # type: ignore[attr-defined]
                return state_dict
            case {"dict": pairs}:
                return {key: rebuild(each) for key, each in pairs}
            case {"list": values}:
                return [rebuild(each) for each in values]
            case {"tuple": values}:
                return tuple(rebuild(each) for each in values)
            case _:
                return entry

    return rebuild(json.loads(text))


def _stride(tensor: Tensor) -> list[int]:
    """The strides of a copy of `tensor`: its own where it fills its memory, else those of a contiguous one."""
    return list(torch.empty_like(tensor, device="meta").stride())
