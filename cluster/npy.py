"""`.npy` files: written the same everywhere, and their headers read without unpickling anything."""

import io
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from gebm.cluster.errors import InputError

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


class NpyHeader(NamedTuple):
    """What a `.npy` says of its array."""

    shape: tuple[int, ...]
    fortran_order: bool
    dtype: np.dtype
    begin: int
    """Where the values begin, in bytes."""


def encode_npy(array: np.ndarray) -> bytes:
    """Return the `.npy` of an array of numbers of any shape: format 1.0, in C order."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.asarray(array, order="C"), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def read_header(data: bytes, *, source: str) -> NpyHeader:
    """Return the header of a `.npy`. Raises InputError that begins with `source` when it has none."""
    long = data[6:7] == b"\2"  # format 2.0 has four bytes for the header's length, 1.0 two
    end = 12 + int.from_bytes(data[8:12], "little") if long else 10 + int.from_bytes(data[8:10], "little")
    try:
        return _parse(data[:end])
    except Exception as error:  # a header that is not one fails in any way whatever
        raise InputError(f"{source} holds no sound .npy array ({error}); write or fetch it again") from error


@lru_cache(maxsize=16)
def _parse(header: bytes) -> NpyHeader:
    """Remembered: all files of a set have the same header, and parsing it takes longer than all else."""
    file = io.BytesIO(header)
    shape, fortran_order, dtype = _HEADERS[np.lib.format.read_magic(file)](file)
    return NpyHeader(shape, fortran_order, dtype, file.tell())
