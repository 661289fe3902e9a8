"""A folder of image files, cropped to squares and resized, as shards. Sub-folders are classes."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.randomness import derive_seed
from gebm.cluster.shards import decode_image, encode_png
from gebm.launch.data.splits import SPLITS, Progress, counting, split_counts, write_dataset, write_split

ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def write_image_folder(
    source: str,
    out: str,
    *,
    size: int = 32,
    channels: int = 3,
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
    seed: int = 0,
    shard_size: int = 1000,
    progress: Progress | None = None,
) -> bool:
    """Write the images below the local folder `source` as `train`, `validation` and `test` shards in `out`.

    Every image is turned upright (EXIF), cropped to its central square and resampled (Lanczos) to
    `size` x `size` with 1 (grey) or 3 (RGB) channels. When all images lie in sub-folders, the first level is
    the class. Returns False when the same was written before. Raises `InputError` naming a corrupt file.
    """
    if channels not in (1, 3):
        raise InputError(f"--channels {channels}: give 1 (grey) or 3 (RGB)")
    folder = Path(source).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give one that holds images")
    files = sorted(
        (path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file()),
        key=lambda path: path.relative_to(folder).as_posix(),
    )
    if not files:
        raise InputError(f"{folder} holds no image ({', '.join(sorted(ENDINGS))}); check the path")
    counts = split_counts(len(files), fractions)
    labels, classes = _labels(folder, files)
    description = {
        "source": "folder",
        "files": _listing_digest(folder, files),
        "size": size,
        "channels": channels,
        "fractions": list(fractions),
        "seed": seed,
        "shard_size": shard_size,
        "class_names": classes,
    }

    def write(out: str) -> None:
        order = np.random.default_rng(derive_seed(seed, "data", "folder")).permutation(len(files))
        advance = counting(progress, len(files))
        for split, count, end in zip(SPLITS, counts, np.cumsum(counts), strict=True):
            if count:
                chosen = [int(index) for index in order[end - count : end]]
                write_split(
                    storage.join(out, split),
                    _samples(files, labels, chosen, size, channels, split),
                    image_shape=(channels, size, size),
                    classes=len(classes) or None,
                    shard_size=shard_size,
                    progress=advance,
                )

    return write_dataset(out, description, write)


def _samples(
    files: list[Path], labels: list[int] | None, chosen: list[int], size: int, channels: int, split: str
) -> Iterator[dict[str, str | bytes]]:
    """Samples in the order of `chosen`, decoded by a few threads that stay a bounded way ahead."""

    def encode(index: int) -> bytes:
        path = files[index]
        image = decode_image(path.read_bytes(), source=str(path), form=ImageForm(size, channels))
        return encode_png(image.transpose(1, 2, 0))

    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        ahead = deque(pool.submit(encode, index) for index in chosen[: 8 * threads])
        for number, index in enumerate(chosen):
            if number + len(ahead) < len(chosen):
                ahead.append(pool.submit(encode, chosen[number + len(ahead)]))
            try:
                png = ahead.popleft().result()
            except InputError:
                pool.shutdown(cancel_futures=True)
                raise
            sample: dict[str, str | bytes] = {"__key__": f"{split}-{number:08d}", "png": png}
            if labels is not None:
                sample["cls"] = str(labels[index]).encode()
            yield sample


def _labels(folder: Path, files: list[Path]) -> tuple[list[int] | None, list[str]]:
    """Class numbers, in alphabetical order of the first-level sub-folders, or None when some have none."""
    parents = [path.relative_to(folder).parts[:-1] for path in files]
    if not all(parents):
        return None, []
    names = sorted({parent[0] for parent in parents})
    return [names.index(parent[0]) for parent in parents], names


def _listing_digest(folder: Path, files: list[Path]) -> str:
    """Tells one folder content from another without reading it: names and sizes."""
    listing = "\n".join(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files)
    return hashlib.sha256(listing.encode()).hexdigest()
