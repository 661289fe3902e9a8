"""The input sides that ours is compared with: plain ones, as their authors show them, over the same tar shards."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader, Dataset

IMAGES = ("png", "jpg", "jpeg")


class TarImages(Dataset):
    """Images of plain .tar shards at random access: where each begins is looked up once, then read and decoded."""

    def __init__(self, folder: str) -> None:
        self.paths = sorted(str(path) for path in Path(folder).glob("*.tar"))
        self._files: dict[int, int] = {}
        places = []
        for shard, path in enumerate(self.paths):
            with tarfile.open(path) as archive:
                labels: dict[str, int] = {}
                for member in archive:
                    key, ending = member.name.rsplit(".", 1)
                    if ending == "cls":
                        labels[key] = int(archive.extractfile(member).read())  # type: ignore[union-attr]
                    elif ending in IMAGES:
                        places.append((shard, member.offset_data, member.size, labels.get(key, 0)))
        # As an array, so that a worker process gets it quickly.
        self.places = np.array(places)

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        shard, offset, size, label = (int(value) for value in self.places[number])
        if shard not in self._files:
            self._files[shard] = os.open(self.paths[shard], os.O_RDONLY)
        data = os.pread(self._files[shard], size, offset)
        pixels = np.array(Image.open(io.BytesIO(data)))
        return torch.from_numpy(np.atleast_3d(pixels)).permute(2, 0, 1).contiguous(), label


def data_loader(folder: str, batch_size: int, workers: int) -> Iterator[torch.Tensor]:
    """Batches uint8 `(n, channels, height, width)` of one shuffled epoch, by `torch.utils.data.DataLoader`."""
    loader = DataLoader(
        TarImages(folder),
        batch_size,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
    )
    for images, _ in loader:
        yield images


def webdataset_pipeline(folder: str, batch_size: int) -> Iterator[np.ndarray]:
    """Batches uint8 `(n, height, width, channels)` of one shuffled epoch, by WebDataset in this process."""
    shards = sorted(str(path) for path in Path(folder).glob("*.tar"))
    pipeline = (
        webdataset.WebDataset(shards, shardshuffle=len(shards))
        .shuffle(1000)
        .decode("rgb8")
        .to_tuple(";".join(IMAGES), "cls")
        .batched(batch_size)
    )
    for images, _ in pipeline:
        yield images
