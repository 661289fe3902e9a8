"""The files of one checkpoint, by `torch.distributed.checkpoint`: every worker writes a share of the tensors.

The tensors are in its format (`.metadata`, `__0_0.distcp`, ...). It keeps plain values only as pickles; they are in
`plain.json` instead, so that reading a checkpoint runs no code.
"""

from __future__ import annotations

import io
import pickle
import warnings
from concurrent.futures import Future
from enum import EnumType
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint._fsspec_filesystem import FsspecReader, FsspecWriter  # has no public name
from torch.distributed.checkpoint.staging import AsyncStager

from gebm.cluster import storage
from gebm.trainer.checkpoints.manifest import FileRecord
from gebm.trainer.checkpoints.nested import empty_tensors, flatten, unflatten

METADATA, PLAIN = ".metadata", "plain.json"
TENSORS = "tensors"

# One worker alone has no process group, which is as it should be.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


class _CopyToCpu(AsyncStager):
    """What is written is how things were: training goes on while the file is made."""

    _synchronize_after_execute = False

    def stage(self, state_dict: dict[str, Any]) -> dict[str, Any]:
        return {
            key: {name: torch.empty_like(tensor, device="cpu").copy_(tensor) for name, tensor in tensors.items()}
            for key, tensors in state_dict.items()
        }

    def synchronize_staging(self) -> None:
        """`stage` has copied when it returns."""
        return

    def close(self) -> None:
        """There is nothing to close."""
        return


def begin_writing(
    url: str, content: dict[str, Any], *, rank: int, world: int, group: dist.ProcessGroup | None
) -> tuple[Future[Any], str]:
    """Copy this worker's share of `content` and begin to write it below `url`, in the background.

    `content` is the same on every worker, and every worker comes here; `group`, of all of them, takes CPU tensors.
    Returns a future that is done when all have written, with their exception, of each of them, where one has failed;
    and the text of the plain values, which rank 0 has still to write.
    """
    tensors, text = flatten(content)
    writer: dcp.FileSystemWriter
    if storage.local_path(url) is not None:
        writer = dcp.FileSystemWriter(url, per_thread_copy_ahead=0)
    else:
        writer = FsspecWriter(url, sync_files=False, per_thread_copy_ahead=0)  # there is nothing to sync there
    future = dcp.async_save(
        # One level down: the library takes its time over each value of the first.
        {TENSORS: share(tensors, rank, world)},
        storage_writer=writer,
        process_group=group,
        async_stager=_CopyToCpu(),
        no_dist=world == 1,
    )
    return cast("Future[Any]", future), text


def share(tensors: dict[str, Tensor], rank: int, world: int) -> dict[str, Tensor]:
    """The tensors that worker `rank` of `world` writes: about equally many bytes each, and each tensor once."""
    loads = [0] * world
    mine = {}
    for name in sorted(tensors, key=lambda name: (-tensors[name].nbytes, name)):
        lightest = loads.index(min(loads))
        loads[lightest] += tensors[name].nbytes
        if lightest == rank:
            mine[name] = tensors[name]
    return mine


def written_files(url: str, rank: int) -> list[FileRecord]:
    """The files that worker `rank` has written below `url`, read back."""
    names = [name for name in storage.list_names(url) if name.startswith(f"__{rank}_")]
    names += [METADATA, PLAIN] if rank == 0 else []
    return [
        FileRecord(name=name, bytes=storage.size(there), sha256=storage.sha256(there))
        for name in names
        for there in [storage.join(url, name)]
    ]


def read(url: str) -> dict[str, Any]:
    """The content of a checkpoint, its tensors on the CPU. Any worker reads all of it by itself.

    Raises `pickle.UnpicklingError` when its `.metadata` is more than data, `OSError` when a file cannot be read.
    """
    text = storage.read_text(storage.join(url, PLAIN))
    _refuse_code(storage.read_bytes(storage.join(url, METADATA)))
    tensors = empty_tensors(text)
    reader = dcp.FileSystemReader(url) if storage.local_path(url) is not None else FsspecReader(url)
    dcp.load({TENSORS: tensors}, storage_reader=reader, no_dist=True)
    return unflatten(tensors, text)


class _DataOnly(pickle.Unpickler):
    """Refuses to make anything but what describes tensors and files."""

    DESCRIPTIONS = "torch.distributed.checkpoint.metadata"
    OTHERS = (
        ("torch", "Size"),
        ("torch.serialization", "_get_layout"),
        ("torch.distributed.checkpoint.filesystem", "_StorageInfo"),
        ("pathlib", "PosixPath"),
    )

    def find_class(self, module: str, name: str) -> Any:
        if module == self.DESCRIPTIONS and getattr(dcp.metadata, name, None).__class__ in (type, EnumType):
            allowed = getattr(dcp.metadata, name).__module__ == module
        else:
            allowed = (module, name) in self.OTHERS
        if allowed or (module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{METADATA} asks for {module}.{name}, which no checkpoint needs")


def _refuse_code(metadata: bytes) -> None:
    """Raise `pickle.UnpicklingError` where unpickling, which the library will do, would run code."""
    _DataOnly(io.BytesIO(metadata)).load()
