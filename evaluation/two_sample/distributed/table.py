"""Features as files: rows that are mapped into memory where they are read, by whatever process and in any order."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.evaluation.two_sample.samples import Extent, extent_of

SCAN_NUMBERS = 2**23  # that are looked at together
AS_FLOAT32 = ("float16", "float32", "uint8", "int8", "int16", "bool")  # types whose values float32 holds exactly


class Part(NamedTuple):
    """One `.npy` file of `rows` rows."""

    url: str
    rows: int


@dataclass(frozen=True)
class FeatureTable:
    """A sample: the rows of several `.npy` files, one after the other.

    Attributes:
        name: what messages call it.
        parts: its files. Actors on other nodes must be able to open them.
        dimension: numbers in a row.
        dtype: `float32`, or `float64` for files that hold what float32 cannot.
        digest: SHA-256 (hex) that changes when a row does.
    """

    name: str
    parts: tuple[Part, ...]
    dimension: int
    dtype: str
    digest: str

    def __len__(self) -> int:
        return sum(part.rows for part in self.parts)


def shape_of_file(path: str, name: str) -> tuple[int, int, str]:
    """Rows and numbers in a row of a `.npy` file of an array `(n, d)` or `(n, ...)`, whose rows are flattened, and the
    type that holds them.

    Raises:
        InputError: no such file, no array of real numbers, no rows.
    """
    url = storage.absolute(path)
    try:
        array = _map(url)
    except FileNotFoundError as error:
        raise InputError(f"{name}: no file {url}") from error
    except ValueError as error:
        raise InputError(f"{name}: {url} is not a .npy array ({error}); write it with numpy.save") from error
    if array.dtype.kind not in "fiub" or array.ndim < 2 or 0 in array.shape:
        raise InputError(
            f"{name}: {url} holds {array.dtype} of shape {array.shape}; a sample is an array (n, d) of real numbers"
        )
    dtype = "float32" if array.dtype.name in AS_FLOAT32 else "float64"
    return len(array), int(np.prod(array.shape[1:])), dtype


def table_of_file(path: str, name: str) -> FeatureTable:
    """The rows of a `.npy` file. Errors as for `shape_of_file`."""
    rows, dimension, dtype = shape_of_file(path, name)
    url = storage.absolute(path)
    return FeatureTable(name, (Part(url, rows),), dimension, dtype, storage.sha256(url))


def table_of_parts(parts: Sequence[Part], dimension: int, names: Sequence[str], name: str) -> FeatureTable:
    """Files of float16 or float32 rows, each of whose contents one of `names` stands for."""
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    return FeatureTable(name, tuple(parts), dimension, "float32", digest)


class OpenTable:
    """A table whose files are mapped, those on other storage than disk read when they are first asked for."""

    def __init__(self, table: FeatureTable) -> None:
        self._table = table
        self._starts = np.cumsum([0, *(part.rows for part in table.parts)])
        self._arrays: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self._table)

    def gather(self, index: np.ndarray, out: np.ndarray) -> None:
        """Write rows `index` `(n,)` into `out` `(n, d)`, in that order."""
        if len(self._table.parts) == 1:
            out[:] = self._array(0)[index]
            return
        sorting = np.argsort(index, kind="stable")
        numbers = np.searchsorted(self._starts, index[sorting], side="right") - 1
        bounds = np.flatnonzero(np.diff(numbers, prepend=-1))
        for begin, end in zip(bounds, [*bounds[1:], len(index)], strict=True):
            number, places = int(numbers[begin]), sorting[begin:end]
            out[places] = self._array(number)[index[places] - self._starts[number]]

    def pieces(self) -> Iterator[torch.Tensor]:
        """All rows in order, some at a time."""
        step = max(1, SCAN_NUMBERS // self._table.dimension)
        for number, part in enumerate(self._table.parts):
            array = self._array(number)
            for start in range(0, part.rows, step):
                yield torch.from_numpy(np.array(array[start : start + step], dtype=self._table.dtype))

    def _array(self, number: int) -> np.ndarray:
        if number not in self._arrays:
            part = self._table.parts[number]
            try:
                array = _map(part.url)
            except FileNotFoundError as error:
                raise InputError(
                    f"{part.url} of {self._table.name} is not there; where actors run on several machines, --cache "
                    f"must name a folder that all of them can read"
                ) from error
            except ValueError as error:
                raise InputError(
                    f"{part.url} of {self._table.name} is damaged ({error}); run the command again"
                ) from error
            self._arrays[number] = array.reshape(len(array), -1)
            if self._arrays[number].shape != (part.rows, self._table.dimension):
                raise InputError(f"{part.url} of {self._table.name} has changed since the comparison began")
        return self._arrays[number]


class Points:
    """The rows of several samples, one after the other, brought to one type and centred."""

    def __init__(self, tables: Sequence[FeatureTable], centre: np.ndarray | None) -> None:
        self._tables = [OpenTable(table) for table in tables]
        self._ends = np.cumsum([len(table) for table in tables])
        self._dtype, self._dimension = common_dtype(tables), tables[0].dimension
        self._centre = None if centre is None else torch.from_numpy(centre.astype(self._dtype))

    def rows(self, index: np.ndarray) -> torch.Tensor:
        """Rows `index` of the stacked samples, `(n, d)`."""
        values = np.empty((len(index), self._dimension), dtype=self._dtype)
        numbers = np.searchsorted(self._ends, index, side="right")
        for number, table in enumerate(self._tables):
            places = np.flatnonzero(numbers == number)
            if len(places) == len(index):
                table.gather(index - (self._ends[number] - len(table)), values)
            elif len(places):
                some = np.empty((len(places), self._dimension), dtype=self._dtype)
                table.gather(index[places] - (self._ends[number] - len(table)), some)
                values[places] = some
        points = torch.from_numpy(values)
        return points if self._centre is None else points.sub_(self._centre)


def common_dtype(tables: Sequence[FeatureTable]) -> str:
    """float64 if any sample needs it, else float32."""
    return "float64" if any(table.dtype == "float64" for table in tables) else "float32"


def check_tables(tables: Sequence[FeatureTable]) -> None:
    """Refuse samples that cannot be compared.

    Raises:
        InputError: fewer than two rows, different dimensions.
    """
    for table in tables:
        if len(table) < 2:
            raise InputError(f"{table.name}: a test needs at least two points, got {len(table)}")
        if table.dimension != tables[0].dimension:
            raise InputError(
                f"{tables[0].name} has dimension {tables[0].dimension} and {table.name} has {table.dimension}: two "
                f"samples can only be compared in the same space"
            )


def mean_of(tables: Sequence[FeatureTable]) -> np.ndarray:
    """The mean of all rows `(d,)`, float64.

    Raises:
        InputError: NaN or infinity among them.
    """
    total = torch.zeros(tables[0].dimension, dtype=torch.float64)
    for table in tables:
        bad = 0
        for piece in OpenTable(table).pieces():
            sums = piece.sum(0, dtype=torch.float64)
            if not bool(torch.isfinite(sums).all()):
                bad += int((~torch.isfinite(piece)).any(1).sum())
            total += sums
        if bad:
            raise InputError(f"{table.name}: {bad} of {len(table)} points hold NaN or infinity")
    return (total / sum(len(table) for table in tables)).numpy()


def extent_of_tables(tables: Sequence[FeatureTable], centre: np.ndarray | None, *, manhattan: bool) -> Extent:
    """The extent of all rows around the centre."""
    dtype = common_dtype(tables)
    middle = None if centre is None else torch.from_numpy(centre.astype(dtype))
    largest = Extent(0.0, 0.0)
    for table in tables:
        for piece in OpenTable(table).pieces():
            points = piece.to(getattr(torch, dtype))
            found = extent_of(points if middle is None else points.sub_(middle), manhattan=manhattan)
            largest = Extent(max(largest.squared, found.squared), max(largest.manhattan, found.manhattan))
    return largest


def _map(url: str) -> np.ndarray:
    """The array of a `.npy` file: mapped if it is on disk, else read."""
    path = storage.local_path(url)
    if path is None:
        return np.load(io.BytesIO(storage.read_bytes(url)), allow_pickle=False)
    return np.load(path, mmap_mode="r", allow_pickle=False)
