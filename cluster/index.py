"""The index of a shard set, `index.json`: what is in it, where each sample begins, and that all is sound.

A set holds images or vectors, all of one shape: stored so, or brought to one form when they are read.

The index is the commit point of a shard set: shards are written first, and a directory without an index is
not a shard set yet.
"""

import hashlib
import math
from collections.abc import Callable
from fnmatch import fnmatch

from pydantic import PositiveInt, ValidationError, field_validator

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import AS_STORED, ImageForm
from gebm.cluster.settings import StrictModel
from gebm.cluster.shards import ShardRecord, decompress, pack_offsets, parse_tar, sample_label, sample_values
from gebm.cluster.vectors import VECTOR_TYPE

INDEX_NAME = "index.json"
FORMAT_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""1 had offsets as numbers, and no form: it is read as what it says."""
SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz")


class ShardIndex(StrictModel):
    """What a shard set holds. Sample order is shard order, then the order inside each shard."""

    format_version: int = FORMAT_VERSION
    image_shape: tuple[int, ...]
    """(channels, height, width), the same for every image as it is read; (d,) in a set of vectors of d numbers."""
    size: PositiveInt | None = None
    """Side of the squares that images are cropped and resized to when they are read; None: they are not."""
    channels: int | None = None
    """What images are converted to when they are read, 1 (grey) or 3 (RGB); None: they are not."""
    labels: bool
    """Whether samples have class numbers: all of them or none."""
    classes: int | None
    """Number of classes (largest class number plus one), None without labels."""
    total: int
    """Samples in all shards."""
    shards: tuple[ShardRecord, ...]

    @field_validator("image_shape")
    @classmethod
    def _image_or_vector(cls, shape: tuple[int, ...]) -> tuple[int, ...]:
        if len(shape) not in (1, 3) or min(shape) < 1:
            raise ValueError("must be (channels, height, width) of images or (d,) of vectors")
        return shape

    @field_validator("channels")
    @classmethod
    def _rgb_or_grey(cls, channels: int | None) -> int | None:
        if channels not in (None, 1, 3):
            raise ValueError("must be 1 (grey) or 3 (RGB)")
        return channels

    @property
    def form(self) -> ImageForm:
        """What images are brought to when they are read."""
        return ImageForm(self.size, self.channels)

    @property
    def holds_vectors(self) -> bool:
        """Whether samples are float32 vectors and not uint8 images."""
        return len(self.image_shape) == 1

    @property
    def sample_bytes(self) -> int:
        """Bytes of one decoded sample."""
        return math.prod(self.image_shape) * (VECTOR_TYPE.itemsize if self.holds_vectors else 1)


def build_index(
    url: str,
    pattern: str = "*.tar*",
    progress: Callable[[int, int], None] | None = None,
    form: ImageForm = AS_STORED,
) -> ShardIndex:
    """Read every sample of every shard at `url` whose name matches `pattern`, and return their index.

    Every sample is decoded, its image brought to `form`. `progress(done, total)` is called after each shard. One
    shard at a time is held in memory. Raises InputError naming shard and key for an empty, truncated or corrupt
    shard, a corrupt image, a vector that is not finite float32, a sample of another shape than the first, a bad
    label, labels on only some samples; and for a `form` that is asked of vectors.
    """
    names = [
        name
        for name in storage.list_sizes(url)
        if name.endswith(SHARD_ENDINGS) and not name.startswith(".") and fnmatch(name, pattern)
    ]
    if not names:
        raise InputError(f"{url} holds no shard (.tar or .tar.gz) that matches {pattern!r}; check the path")
    shape: tuple[int, ...] | None = None
    labelled: bool | None = None
    classes = 0
    records = []
    for done, name in enumerate(names, 1):
        source = storage.join(url, name)
        record, shape, labelled, largest = _scan_shard(source, form, shape, labelled)
        records.append(record)
        classes = max(classes, largest + 1)
        if progress is not None:
            progress(done, len(names))
    assert shape is not None  # _scan_shard refuses a shard without samples
    if len(shape) == 1 and form != AS_STORED:
        raise InputError(f"{url} holds vectors; --size and --channels are for images")
    return make_index(records, shape, classes if labelled else None, form)


def make_index(
    records: list[ShardRecord], image_shape: tuple[int, ...], classes: int | None, form: ImageForm = AS_STORED
) -> ShardIndex:
    """Return the index of shards that are known, whose images have `image_shape` when brought to `form`."""
    return ShardIndex(
        image_shape=image_shape,
        size=form.size,
        channels=form.channels,
        labels=classes is not None,
        classes=classes,
        total=sum(record.count for record in records),
        shards=tuple(records),
    )


def write_index(url: str, index: ShardIndex) -> None:
    """Publish the index of the shard set at `url`: from now on it exists."""
    storage.write_bytes_atomic(storage.join(url, INDEX_NAME), index.model_dump_json().encode() + b"\n")


def load_index(url: str) -> ShardIndex:
    """Return the index of the shard set at `url`, its shards found to be there with the recorded size.

    Raises InputError when there is no index or it is not readable, and naming each shard that is missing or
    has another size.
    """
    location = storage.join(url, INDEX_NAME)
    try:
        index = ShardIndex.model_validate_json(storage.read_bytes(location))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(f"{url} has no {INDEX_NAME}; run `gebm data index {url}`") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InputError(
            f"{location} is not a readable index ({field}: {first['msg']}); run `gebm data index {url}`"
        ) from error
    if index.format_version not in READABLE_VERSIONS:
        raise InputError(
            f"{location} has format_version {index.format_version}, this gebm reads {FORMAT_VERSION}; "
            f"run `gebm data index {url}`"
        )
    sizes = storage.list_sizes(url)
    for record in index.shards:
        source = storage.join(url, record.name)
        if record.name not in sizes:
            raise InputError(f"shard {source} is missing; put it back or run `gebm data index {url}`")
        if sizes[record.name] != record.bytes:
            raise InputError(
                f"shard {source} has {sizes[record.name]:,} bytes where its index says {record.bytes:,}; "
                f"fetch it again, or run `gebm data index {url}` if it was changed on purpose"
            )
    return index


def index_digest(index: ShardIndex) -> str:
    """Return the hexadecimal SHA-256 of a set's contents as they are read, whatever its shards are called."""
    form = [] if index.form == AS_STORED else [f"size {index.size} channels {index.channels}"]
    return hashlib.sha256("\n".join([record.sha256 for record in index.shards] + form).encode()).hexdigest()


def _scan_shard(
    source: str, form: ImageForm, shape: tuple[int, ...] | None, labelled: bool | None
) -> tuple[ShardRecord, tuple[int, ...], bool, int]:
    """Check a shard against the shape and labelling of those before; return its record and largest label."""
    data = storage.read_bytes(source)
    offsets = []
    largest = -1
    for sample in parse_tar(decompress(data, source=source), source=source):
        own_shape = sample_values(sample, source=source, form=form).shape
        label = sample_label(sample, source=source)
        if shape is None:
            shape, labelled = own_shape, label is not None
        if own_shape != shape:
            raise InputError(
                f"shard {source}: sample {sample.key!r} has {_spell(own_shape)} where the first of the set has "
                f"{_spell(shape)}; convert or remove it{_way_out(own_shape, shape)}"
            )
        if (label is not None) != labelled:
            raise InputError(
                f"shard {source}: sample {sample.key!r} has {'a' if labelled is False else 'no'} label, "
                "unlike the samples before it; give every sample a .cls or none"
            )
        offsets.append(sample.offset)
        largest = max(largest, -1 if label is None else label)
    if shape is None or labelled is None or not offsets:
        raise InputError(f"shard {source} holds no samples; remove or write it again")
    record = ShardRecord(
        name=source.rsplit("/", 1)[-1],
        count=len(offsets),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        offsets=pack_offsets(offsets),
    )
    return record, shape, labelled, largest


def _way_out(own: tuple[int, ...], first: tuple[int, ...]) -> str:
    """How images that differ can be read all the same."""
    if len(own) != 3 or len(first) != 3:
        return ""
    options = ["--size N"] * (own[1:] != first[1:]) + ["--channels 3"] * (own[0] != first[0])
    return f", or index with {' '.join(options)}, which brings every image to one form when it is read"


def _spell(shape: tuple[int, ...]) -> str:
    if len(shape) == 1:
        return f"a vector of length {shape[0]}"
    channels, height, width = shape
    return f"{height}x{width} pixels and {channels} channel{'s' if channels > 1 else ''}"
