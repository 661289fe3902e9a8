"""Images as raw `.npy`, uint8 (height, width, 1 or 3): nothing to compress or decode, for several times the bytes.

A set of vectors has `.npy` files too: float32 (d,). The header tells which of the two a file is.
"""

import math

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.npy import encode_npy, read_header


def encode_pixels(image: np.ndarray) -> bytes:
    """Return the `.npy` of a uint8 image (height, width, 1 or 3). Raises ValueError for anything else."""
    if not _is_image(image.dtype, image.shape):
        raise ValueError(f"an image must be uint8 of shape (height, width, 1 or 3), not {image.dtype} {image.shape}")
    return encode_npy(image)


def holds_pixels(data: bytes, *, source: str) -> bool:
    """Say whether a `.npy` is an image. Raises InputError that begins with `source` when it has no sound header."""
    header = read_header(data, source=source)
    return _is_image(header.dtype, header.shape)


def decode_pixels(data: bytes, *, source: str) -> np.ndarray:
    """Return a `.npy` that `holds_pixels` as uint8 (height, width, channels).

    Raises InputError that begins with `source` when it is cut short or goes on after its end.
    """
    header = read_header(data, source=source)
    if len(data) - header.begin != math.prod(header.shape):
        raise InputError(
            f"{source} has {len(data) - header.begin} bytes of pixels where its header says "
            f"{math.prod(header.shape)}; write or fetch it again"
        )
    pixels = np.frombuffer(data, np.uint8, offset=header.begin)
    return pixels.reshape(header.shape, order="F" if header.fortran_order else "C")


def _is_image(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    return dtype == np.uint8 and len(shape) == 3 and min(shape) > 0 and shape[2] in (1, 3)
