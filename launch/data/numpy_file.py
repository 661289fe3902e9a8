"""A table of numbers in a `.npy` file, one row a vector, as shards."""

from __future__ import annotations

import hashlib
import io

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.launch.data.splits import Progress, split_counts, write_dataset
from gebm.launch.data.vector_sets import Vectors, split_rows, standardise, write_vector_splits


def write_numpy_file(
    file: str,
    out: str,
    *,
    labels: str | None = None,
    standardised: bool = False,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    shard_size: int = 1000,
    progress: Progress | None = None,
) -> bool:
    """Write the rows of `file`, `(n, d)` of any real type, as `train`, `validation` and `test` vectors into `out`.

    labels: a `.npy` file of class numbers `(n,)`. standardised: every column shifted and scaled to mean 0 and
    deviation 1 over the training rows. Stored as float32. Which row goes where depends on `seed` alone. Returns
    False when the same was written before. Raises `InputError` naming a file that does not hold what it should.
    """
    values, digest = _read_array(file)
    if values.dtype.kind not in "fiu" or values.ndim != 2 or 0 in values.shape:
        raise InputError(f"{file} holds {_spell(values)}; give real numbers of shape (n, d), one row a vector")
    # A float64 may be infinite as float32.
    with np.errstate(over="ignore"):
        finite = np.isfinite(values.astype(np.float32)).all(axis=1)
    if not finite.all():
        raise InputError(f"{file}: row {int(np.argmin(finite))} holds a value that is not finite as float32")
    table = Vectors(values.astype(np.float64), None)
    description = {"source": "vectors", "values": digest}
    if labels is not None:
        classes, description["labels"] = _read_array(labels)
        if classes.dtype.kind not in "iu" or classes.shape != values.shape[:1] or classes.min() < 0:
            raise InputError(
                f"{labels} holds {_spell(classes)}; give class numbers 0, 1, 2, ... of shape ({len(values)},), "
                "one for each vector"
            )
        table = table._replace(labels=classes)
    counts = split_counts(len(values), fractions)

    def write(out: str) -> None:
        splits = split_rows(table, counts, seed, "vectors")
        if standardised:
            names = [str(column) for column in range(values.shape[1])]
            splits = standardise(splits, names, out, source=file)
        number = None if table.labels is None else int(table.labels.max()) + 1
        write_vector_splits(out, splits, number, shard_size, progress)

    options = {"standardised": standardised, "fractions": list(fractions), "seed": seed, "shard_size": shard_size}
    return write_dataset(out, description | options, write)


def _read_array(file: str) -> tuple[np.ndarray, str]:
    """The array in a file, and the SHA-256 of the file. Raises `InputError`; objects are never unpickled."""
    url = storage.absolute(file)
    try:
        data = storage.read_bytes(url)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{url}: no such file; give a .npy file") from error
    buffer = io.BytesIO(data)
    try:
        array = np.lib.format.read_array(buffer, allow_pickle=False)
        if left := len(data) - buffer.tell():
            raise ValueError(f"{left} bytes come after the array")
    except Exception as error:  # bytes that are no .npy fail in any way whatever
        raise InputError(f"{url} is not a sound .npy file of numbers ({error}); write it with numpy.save") from error
    return array, hashlib.sha256(data).hexdigest()


def _spell(array: np.ndarray) -> str:
    return f"{array.dtype} of shape {array.shape}"
