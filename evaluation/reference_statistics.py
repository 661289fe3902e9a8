"""Mean and covariance of a set's features in a file: computed once, reused, exchanged.

The file is the `.npz` that FID programs share, with `mu` and `sigma`. Ours also holds what makes a comparison sound:
`count`, the extractor and the digest of the images; other programs pass over them.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import index_digest, load_index
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.features import FarmReport, Range, digest_of, fold_feature_sets
from gebm.evaluation.frechet import FrechetStatistics
from gebm.evaluation.grouped_statistics import RunningStatistics

ENDING = ".npz"


@dataclass(frozen=True)
class ReferenceStatistics:
    """What a statistics file holds.

    Attributes:
        mean: `(d,)` float64.
        covariance: `(d, d)` float64, divided by `count - 1`.
        count: images; None where the file does not say.
        extractor: its description (name, layer, input size, digest of the weights, dimension); None where unknown.
        content: digest of the images' index; None where unknown.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int | None
    extractor: dict[str, Any] | None
    content: str | None

    @property
    def dimension(self) -> int:
        return len(self.mean)


def is_statistics_file(url: str) -> bool:
    """Whether a reference is given by its statistics and not by its images."""
    return url.endswith(ENDING)


def read_statistics(url: str) -> ReferenceStatistics:
    """Read a statistics file, ours or another program's.

    Raises:
        InputError: no such file, not an `.npz` with `mu` and `sigma`, shapes that do not fit, values that are not
            finite, a covariance that is not symmetric.
    """
    try:
        data = storage.read_bytes(url)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url}: no such statistics file; `write_statistics` writes one") from error
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            held = {name: file[name] for name in file.files if name in ("mu", "sigma", "count", "extractor", "content")}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{url} is not an .npz file of arrays ({error}); write it again") from error
    if not {"mu", "sigma"} <= set(held):
        raise InputError(f"{url} has no 'mu' and 'sigma'; a statistics file has a mean and a covariance so called")
    mean, covariance = (np.asarray(held[name], dtype=np.float64) for name in ("mu", "sigma"))
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise InputError(f"{url}: mu has shape {mean.shape} and sigma {covariance.shape}; they must be (d,) and (d, d)")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise InputError(f"{url}: mu or sigma hold NaN or infinity; compute them again")
    if not np.allclose(covariance, covariance.T, rtol=1e-4, atol=1e-6 * float(np.abs(covariance).max(initial=0.0))):
        raise InputError(f"{url}: sigma is not symmetric, so it is no covariance; compute it again")
    return ReferenceStatistics(
        mean=mean,
        covariance=(covariance + covariance.T) / 2,
        count=int(held["count"]) if "count" in held else None,
        extractor=json.loads(str(held["extractor"])) if "extractor" in held else None,
        content=str(held["content"]) if "content" in held else None,
    )


def write_statistics(url: str, statistics: FrechetStatistics, *, extractor: dict[str, Any], content: str) -> None:
    """Write a statistics file, whole or not at all. Raises `InputError` for fewer than two images."""
    if not is_statistics_file(url):
        raise InputError(f"{url}: the name of a statistics file ends in {ENDING}")
    buffer = io.BytesIO()
    np.savez(
        buffer,
        mu=statistics.mean,
        sigma=statistics.covariance,
        count=np.int64(statistics.count),
        extractor=np.str_(json.dumps(extractor, sort_keys=True)),
        content=np.str_(content),
    )
    storage.write_bytes_atomic(url, buffer.getvalue())


def check_extractor(url: str, statistics: ReferenceStatistics, extractor: dict[str, Any]) -> list[str]:
    """Refuse statistics of other features than those of `extractor`; return what cannot be known, as warnings."""
    if statistics.extractor is None:
        if statistics.dimension != extractor["dimension"]:
            raise InputError(
                f"{url} is of features of dimension {statistics.dimension}, {extractor['name']} gives "
                f"{extractor['dimension']}; name the extractor that it was made with"
            )
        return [f"{url} does not say which extractor it was made with; the distance is meaningless if it was another."]
    for key, value in extractor.items():
        if statistics.extractor.get(key) != value:
            raise InputError(
                f"{url} was made with {key} {statistics.extractor.get(key)!r} of the extractor, not {value!r}; "
                f"make it again, or name that extractor"
            )
    return []


def set_statistics(
    urls: Sequence[str],
    settings: ExtractorSettings,
    *,
    cache: str | None = None,
    actors: int = 1,
    gpus_per_actor: float = 0,
    progress: FarmReport | None = None,
) -> tuple[list[FrechetStatistics | ReferenceStatistics], dict[str, Any]]:
    """Statistics of whole shard sets, and the description of the extractor; the features are never kept whole.

    With `cache`, they are kept in `<cache>/statistics-<digest of extractor and images>.npz`: a set is read once.
    Arguments and errors as for `fold_feature_sets`.
    """
    from gebm.evaluation.extractors.extractor import make_extractor

    urls = [storage.absolute(url) for url in urls]
    indexes = [load_index(url) for url in urls]
    description = make_extractor(settings, image_shape=indexes[0].image_shape).description
    contents = [index_digest(index) for index in indexes]
    files = [None if cache is None else _kept_at(cache, description, content) for content in contents]
    found: dict[str, FrechetStatistics | ReferenceStatistics] = {}
    for content, file in zip(contents, files, strict=True):
        if file is not None and storage.exists(file):
            found[content] = read_statistics(file)
    missing = [number for number, content in enumerate(contents) if content not in found]
    if missing:
        running = {number: RunningStatistics(int(description["dimension"] or 0)) for number in missing}

        def fold(part: Range, features: np.ndarray) -> None:
            running[missing[part.source]].add(features)

        fold_feature_sets(
            [urls[number] for number in missing],
            settings,
            fold,
            cache=cache,
            actors=actors,
            gpus_per_actor=gpus_per_actor,
            progress=progress,
        )
        for number in missing:
            statistics = running[number].statistics()
            found[contents[number]] = statistics
            if (file := files[number]) is not None:
                write_statistics(file, statistics, extractor=description, content=contents[number])
    return [found[content] for content in contents], description


def _kept_at(cache: str, description: dict[str, Any], content: str) -> str:
    key = digest_of({"extractor": description, "content": content})
    return storage.join(storage.absolute(cache), f"statistics-{key}{ENDING}")
