"""Vectors as samples: one `.npy` of float32 `(d,)` a sample, written the same everywhere and read strictly."""

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.npy import encode_npy, read_header

VECTOR_TYPE = np.dtype("<f4")


def encode_vector(vector: np.ndarray) -> bytes:
    """Return the `.npy` of a finite float32 vector (d,). Raises ValueError for anything else."""
    if vector.dtype != VECTOR_TYPE or vector.ndim != 1 or not len(vector):
        raise ValueError(f"a vector must be float32 of shape (d,), not {vector.dtype} {vector.shape}")
    if not np.isfinite(vector).all():
        raise ValueError("a vector must be finite; it holds NaN or infinity")
    return encode_npy(vector)


def decode_vector(data: bytes, *, source: str) -> np.ndarray:
    """Return a `.npy` as float32 (d,), finite.

    Nothing is converted: a vector of another type or shape is a mistake of whoever wrote it. Objects are never
    unpickled. Raises InputError that begins with `source`.
    """
    header = read_header(data, source=source)
    shape, dtype = header.shape, header.dtype
    if dtype != VECTOR_TYPE or len(shape) != 1 or shape[0] < 1:
        what = "Python objects" if dtype.hasobject else f"{dtype.str} of shape {shape}"
        raise InputError(
            f"{source} is an array of {what}; a vector must be little-endian float32 of shape (d,), "
            "an image uint8 of shape (height, width, 1 or 3)"
        )
    if len(data) - header.begin != shape[0] * VECTOR_TYPE.itemsize:
        raise InputError(
            f"{source} has {len(data) - header.begin} bytes of values where its header says {shape[0]} float32; "
            "write or fetch it again"
        )
    vector = np.frombuffer(data, VECTOR_TYPE, offset=header.begin)
    if not np.isfinite(vector).all():
        raise InputError(f"{source} holds NaN or infinity; repair or remove it")
    return vector
