"""Samples as tables of features in files: extracted on the farm once, then mapped wherever they are read."""

import hashlib
import io
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.evaluation.extractors.raw import raw_values
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.features import (
    FarmReport,
    FeatureType,
    Range,
    features_folder,
    file_of_range,
    fold_feature_sets,
    split_into_ranges,
)
from gebm.evaluation.two_sample.distributed.table import FeatureTable, Part, table_of_file, table_of_parts

NPY = ".npy"
THREADS = 8  # files that are checked at a time


class FeatureTables(NamedTuple):
    """The samples' tables, in order, and the description of the extractor."""

    tables: list[FeatureTable]
    extractor: dict[str, Any]


def is_array(url: str) -> bool:
    """Whether a sample is a `.npy` file of vectors and not a shard set."""
    return url.endswith(NPY)


def feature_tables(
    samples: Mapping[str, str],
    settings: ExtractorSettings,
    *,
    cache: str,
    dtype: FeatureType = "float32",
    actors: int = 1,
    gpus_per_actor: float = 0,
    progress: FarmReport | None = None,
) -> FeatureTables:
    """Tables of samples that are shard sets, by the extractor's features, or all `.npy` files, as they are.

    Features are kept in `cache` by what they depend on: contents of shards, extractor, its weights, type. A file there
    that is cut short, or not what it was when it was first used, is made again. Needs a connection to Ray, unless all
    samples are `.npy` files.

    Args:
        samples: URLs by the names that messages call them.
        settings: the extractor; `raw` where samples are `.npy` files.
        cache: URL of a directory that all actors can read; on disk its files are mapped.
        dtype: of the files.
        actors: processes that extract.
        gpus_per_actor: 0 for the CPU.
        progress: called with the farm's progress.

    Raises:
        InputError: samples that cannot be read, or not be compared with each other.
    """
    arrays = {name: is_array(url) for name, url in samples.items()}
    if all(arrays.values()):
        of_files = [table_of_file(url, name) for name, url in samples.items()]
        return FeatureTables(of_files, dict(raw_values(of_files[0].dimension).description))
    if any(arrays.values()):
        name = next(name for name, array in arrays.items() if array)
        raise InputError(f"{samples[name]}: a .npy file is compared with .npy files only; make shards of all or none")
    from gebm.evaluation.extractors.extractor import make_extractor

    urls = {name: storage.absolute(url) for name, url in samples.items()}
    indexes = {name: load_index(url) for name, url in urls.items()}
    parts = {
        name: [(part, file_of_range(part, index)) for part in split_into_ranges(number, index, None)]
        for number, (name, index) in enumerate(indexes.items())
    }
    description = make_extractor(settings, image_shape=next(iter(indexes.values())).image_shape).description
    folder = features_folder(cache, description, dtype=dtype, on_gpu=gpus_per_actor > 0)
    named = {part: name for pairs in parts.values() for part, name in pairs}
    seals = _Seals(folder)
    seals.remove_damaged(set(named.values()))
    found: dict[str, str] = {}

    def fold(part: Range, features: np.ndarray) -> None:
        found[named[part]] = _digest(features)

    fold_feature_sets(
        list(urls.values()),
        settings,
        fold,
        cache=cache,
        actors=actors,
        gpus_per_actor=gpus_per_actor,
        dtype=dtype,
        progress=progress,
    )
    seals.add(found)
    dimension = int(description["dimension"] or 0)
    tables = []
    for name, pairs in parts.items():
        files = [Part(storage.join(folder, file), part.stop - part.start) for part, file in pairs]
        tables.append(table_of_parts(files, dimension, [found[file] for _, file in pairs], name))
    return FeatureTables(tables, description)


class _Seals:
    """SHA-256 of the features in a folder's files, in a file beside them: `seals.json`."""

    def __init__(self, folder: str) -> None:
        self._folder, self._url = folder, storage.join(folder, "seals.json")
        try:
            self._known: dict[str, str] = dict(storage.read_json(self._url))
        except (FileNotFoundError, ValueError):
            self._known = {}

    def remove_damaged(self, names: set[str]) -> None:
        """Remove those of these files that are not what they were: what is not there is extracted again."""
        there = sorted(names & self._known.keys() & set(storage.list_names(self._folder)))
        with ThreadPoolExecutor(THREADS) as threads:
            for name, sound in zip(there, threads.map(self._is_sound, there), strict=True):
                if not sound:
                    storage.remove(storage.join(self._folder, name))

    def add(self, digests: dict[str, str]) -> None:
        """Remember these."""
        if not digests.items() <= self._known.items():
            self._known |= digests
            storage.write_json_atomic(self._url, self._known)

    def _is_sound(self, name: str) -> bool:
        try:
            values = np.load(io.BytesIO(storage.read_bytes(storage.join(self._folder, name))), allow_pickle=False)
        except (ValueError, EOFError):  # cut short
            return False
        return _digest(values) == self._known[name]


def _digest(features: np.ndarray) -> str:
    """Of the numbers, whatever type of file they are in."""
    return hashlib.sha256(np.ascontiguousarray(features, np.float32).tobytes()).hexdigest()
