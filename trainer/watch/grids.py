"""Pictures of the base's images of fixed latents: `metrics/grids/round-00000100.png`."""

from __future__ import annotations

import io
import re

import numpy as np
from PIL import Image
from torch import Tensor

from gebm.cluster import storage
from gebm.evaluation.report.tiles import tile
from gebm.trainer.model import to_uint8

NAME = re.compile(r"round-(\d+)\.png")


def folder(run: str) -> str:
    """Where the grids of a run lie."""
    return storage.join(run, "metrics", "grids")


def grid(images: Tensor) -> np.ndarray:
    """uint8 RGBA `(height, width, 4)`: images `(n, 1 or 3, h, w)` in [-1, 1] in a square, row by row."""
    return tile(to_uint8(images).cpu().numpy(), columns=max(1, round(len(images) ** 0.5)))


def write_grid(run: str, round_number: int, picture: np.ndarray) -> None:
    """Keep the picture of a round."""
    buffer = io.BytesIO()
    Image.fromarray(picture, "RGBA").save(buffer, "PNG")
    storage.make_directory(folder(run))
    storage.write_bytes_atomic(storage.join(folder(run), f"round-{round_number:08d}.png"), buffer.getvalue())


def grids(run: str) -> dict[int, str]:
    """The URLs of a run's grids by round, in order."""
    found = {name: NAME.fullmatch(name) for name in storage.list_names(folder(run))}
    return {int(match[1]): storage.join(folder(run), name) for name, match in sorted(found.items()) if match}


def drop_grids_after(run: str, round_number: int) -> None:
    """Remove what a resumed or rolled back run will draw anew."""
    for number, url in grids(run).items():
        if number > round_number:
            storage.remove(url)
