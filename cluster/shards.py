"""WebDataset shards: a tar whose members `KEY.EXTENSION` belong to one sample as long as KEY stays the same.

Written so that the same samples give the same bytes everywhere; read strictly, because a shard that was cut
short must be an error that names itself and not a data set that is a little smaller.
"""

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from pydantic import field_validator, model_validator

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import AS_STORED, ImageForm, bring_to_form, orientation_of
from gebm.cluster.pixel_arrays import decode_pixels, holds_pixels
from gebm.cluster.settings import StrictModel
from gebm.cluster.vectors import decode_vector

IMAGE_FIELDS = ("png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff", "ppm", "pgm")
ARRAY_FIELD = "npy"
"""A vector, or an image as raw pixels."""
LABEL_FIELD = "cls"
END_OF_ARCHIVE = bytes(2 * tarfile.BLOCKSIZE)
MEMBER = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
"""A member's name, as key and field: WebDataset's key ends at the name's first dot."""

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIGNATURES = {_PNG_SIGNATURE: "PNG", b"\xff\xd8\xff": "JPEG"}


class ShardRecord(StrictModel):
    """What an index knows of one shard."""

    name: str
    count: int
    """Samples in it."""
    bytes: int
    """Size of the file as stored (compressed, for a .tar.gz)."""
    sha256: str
    """Of the file as stored."""
    offsets: str
    """Packed, or given as numbers: where each sample's first header begins in the *uncompressed* tar (`starts`).

    Packed, because a set of a million samples has a million of them, in the file and in the memory of every worker:
    distances in tar blocks, compressed, in base64 (about a byte a sample).
    """

    @field_validator("offsets", mode="before")
    @classmethod
    def _pack(cls, offsets: Any) -> Any:
        return offsets if isinstance(offsets, str) else pack_offsets(offsets)

    @model_validator(mode="after")
    def _one_offset_a_sample(self) -> "ShardRecord":
        try:
            found = len(self.starts)
        except (ValueError, zlib.error) as error:
            raise ValueError(f"offsets cannot be unpacked ({error})") from error
        if found != self.count:
            raise ValueError(f"offsets of {found} samples where count is {self.count}")
        return self

    @property
    def starts(self) -> np.ndarray:
        """int64 (count,): where each sample's first header begins in the *uncompressed* tar, in bytes."""
        distances = np.frombuffer(zlib.decompress(base64.b64decode(self.offsets)), "<u4")
        return np.cumsum(distances, dtype=np.int64) * tarfile.BLOCKSIZE


class Sample(NamedTuple):
    """One sample as stored: undecoded."""

    key: str
    fields: dict[str, bytes]
    offset: int
    """Where its first header begins in the bytes that were parsed."""


def pack_offsets(offsets: Sequence[int]) -> str:
    """Return `ShardRecord.offsets` of samples that begin at these bytes, in order and each a multiple of 512.

    Raises ValueError for others.
    """
    blocks, rest = np.divmod(np.asarray(offsets, np.int64), tarfile.BLOCKSIZE)
    distances = np.diff(blocks, prepend=0)
    if rest.any() or (distances < 0).any():
        raise ValueError(f"must be in order, and multiples of {tarfile.BLOCKSIZE}")
    return base64.b64encode(zlib.compress(distances.astype("<u4").tobytes(), 9)).decode()


def write_shard(url: str, samples: Iterable[Mapping[str, str | bytes]]) -> ShardRecord:
    """Write samples `{"__key__": str, "png": bytes, "cls": b"7", ...}` as one shard, whole or not at all.

    The bytes depend on the samples alone: times, owners and modes are fixed, fields sorted. A name that ends
    in `.gz` is compressed. The shard is built in memory, so keep it to what a machine holds.
    Raises ValueError for a key that WebDataset would read as another, or that comes twice.
    """
    buffer = io.BytesIO()
    offsets: list[int] = []
    keys: set[str] = set()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for sample in samples:
            key = str(sample["__key__"])
            if key in keys or not MEMBER.match(f"{key}.x") or "." in key.rsplit("/", 1)[-1]:
                raise ValueError(f"sample key {key!r} is empty, holds a dot, or comes twice in {url}")
            keys.add(key)
            offsets.append(archive.offset)  # type: ignore[attr-defined]
            for field in sorted(set(sample) - {"__key__"}):
                data = sample[field]
                if not isinstance(data, bytes):
                    raise ValueError(f"field {field!r} of sample {key!r} is {type(data).__name__}, not bytes")
                member = tarfile.TarInfo(f"{key}.{field}")
                member.size, member.mode, member.mtime = len(data), 0o444, 0
                archive.addfile(member, io.BytesIO(data))
    data = buffer.getvalue()
    if url.endswith((".gz", ".tgz")):
        compressed = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=compressed, mtime=0) as file:
            file.write(data)
        data = compressed.getvalue()
    storage.write_bytes_atomic(url, data)
    return ShardRecord(
        name=url.rstrip("/").rsplit("/", 1)[-1],
        count=len(offsets),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        offsets=pack_offsets(offsets),
    )


def decompress(data: bytes, *, source: str) -> bytes:
    """Return the tar inside the bytes of a .tar or .tar.gz file.

    Raises InputError naming `source` when the compressed stream is cut short or corrupt.
    """
    if not source.endswith((".gz", ".tgz")):
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        what = "is truncated" if isinstance(error, EOFError) or not data else "is not a sound gzip file"
        raise InputError(f"shard {source} {what} ({error}); fetch or write it again") from error


def parse_tar(data: bytes, *, source: str) -> Iterator[Sample]:
    """Yield the samples of an uncompressed tar, in order, undecoded.

    Raises InputError naming `source` and the last good key when the archive is empty, corrupt, or ends
    without its end-of-archive mark, which is how a shard that was cut short shows.
    """
    if not data:
        raise InputError(f"shard {source} is empty (0 bytes); fetch or write it again")
    key, fields, begin = "", dict[str, bytes](), 0
    archive = _open_tar(data, source)
    while True:
        member = _next_member(archive, source, key)
        if member is None:
            break
        match = MEMBER.match(member.name)
        if not member.isfile() or match is None or is_metadata(member.name):
            continue
        if member.offset_data + member.size > len(data):
            raise _truncated(source, match[1])
        if match[1] != key:
            if fields:
                yield Sample(key, fields, begin)
            key, fields, begin = match[1], {}, member.offset
        field = match[2].lower()
        if field in fields:
            raise InputError(f"shard {source}: sample {key!r} has the field {field!r} twice; write it again")
        fields[field] = data[member.offset_data : member.offset_data + member.size]
    # tarfile takes any bad header after the first for the end of the archive: look at what is really there.
    end: int = archive.offset  # type: ignore[attr-defined]
    mark = data[end : end + tarfile.BLOCKSIZE]
    if len(mark) < tarfile.BLOCKSIZE:
        raise _truncated(source, key)
    if any(mark):
        raise InputError(f"shard {source} is corrupt after sample {key!r} (bad header); fetch or write it again")
    if data.count(0, end) != len(data) - end:
        raise InputError(
            f"shard {source} goes on after its end-of-archive mark, behind sample {key!r}: a hole, or several tars "
            "joined; write it again as one tar"
        )
    if fields:
        yield Sample(key, fields, begin)


def sample_values(sample: Sample, *, source: str, form: ImageForm = AS_STORED) -> np.ndarray:
    """Decode what a sample holds: its image in `form`, uint8 (channels, height, width), or its vector, float32 (d,).

    An array beside an image is one of the fields that nobody reads, and so is `latent.npy` beside `npy`.
    Raises InputError.
    """
    images, arrays = [], []
    for field in sample.fields:
        ending = field.rsplit(".", 1)[-1]
        if ending in IMAGE_FIELDS:
            images.append(field)
        elif ending == ARRAY_FIELD:
            arrays.append(field)
    if ARRAY_FIELD in arrays:
        arrays = [ARRAY_FIELD]
    where = f"shard {source}: sample {sample.key!r}"
    if not images and len(arrays) == 1:
        return _array_values(sample.fields[arrays[0]], source=where, form=form)
    if len(images) != 1:
        raise InputError(
            f"{where} has {len(images)} images and {len(arrays)} vectors among its fields "
            f"{sorted(sample.fields)}; exactly one of {', '.join((*IMAGE_FIELDS, ARRAY_FIELD))} is needed"
        )
    return decode_image(sample.fields[images[0]], source=where, form=form)


def _array_values(data: bytes, *, source: str, form: ImageForm) -> np.ndarray:
    """What a `.npy` holds, as `sample_values` gives it."""
    if not holds_pixels(data, source=source):
        return decode_vector(data, source=source)
    pixels = decode_pixels(data, source=source)
    if form != AS_STORED:
        plain = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
        plain = bring_to_form(plain, form, None)
        pixels = np.asarray(plain).reshape(plain.height, plain.width, -1)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def sample_label(sample: Sample, *, source: str) -> int | None:
    """Return the class number of a sample, or None when it has none. Raises InputError."""
    text = sample.fields.get(LABEL_FIELD)
    if text is None:
        return None
    if not text.strip().isdigit():
        raise InputError(
            f"shard {source}: sample {sample.key!r} has the label {text[:40]!r}; "
            f"its field {LABEL_FIELD!r} must be a class number 0, 1, 2, ..."
        )
    return int(text)


def encode_png(image: np.ndarray) -> bytes:
    """Return the PNG of a uint8 image, (height, width), (height, width, 1) or (height, width, 3)."""
    if image.dtype != np.uint8:
        raise ValueError(f"an image must be uint8, not {image.dtype}")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_image(data: bytes, *, source: str, form: ImageForm = AS_STORED) -> np.ndarray:
    """Return an encoded image in `form` as uint8 (channels, height, width), one channel for grey, else three.

    Bilevel and 16-bit grey become 8-bit grey, palettes and other colour spaces RGB; alpha is dropped.
    Raises InputError that begins with `source` when it is corrupt, cut short or of a kind without a plain
    8-bit reading (32-bit integers, floats).
    """
    try:
        if data.startswith(_PNG_SIGNATURE):
            _check_png(data)
        # Told the kind, Pillow need not try all that it knows: a tenth of the time of a small image.
        kinds = [kind for signature, kind in _SIGNATURES.items() if data.startswith(signature)] or None
        with Image.open(io.BytesIO(data), formats=kinds) as image:
            image.load()
            if image.mode in ("I", "F"):
                raise InputError(f"{source} is an image of mode {image.mode}; convert it to 8 bits a channel")
            plain = _eight_bit(image)
            if form != AS_STORED:
                plain = bring_to_form(plain, form, orientation_of(image))
            pixels = np.frombuffer(plain.tobytes(), np.uint8).reshape(plain.height, plain.width, -1)
    except InputError:
        raise
    except Exception as error:  # Pillow's plugins raise a dozen kinds on bad bytes, struct.error among them
        raise InputError(f"{source} holds a corrupt image ({error}); replace or remove it") from error
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _eight_bit(image: Image.Image) -> Image.Image:
    """The image in mode L or RGB."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    mode = "L" if image.mode in ("L", "1", "LA", "La") else "RGB"
    return image if image.mode == mode else image.convert(mode)


def _check_png(data: bytes) -> None:
    """Raise ValueError unless every chunk to the last is there with its checksum: Pillow does not look."""
    position, kind = len(_PNG_SIGNATURE), b""
    while kind != b"IEND":
        length = int.from_bytes(data[position : position + 4], "big")
        kind = data[position + 4 : position + 8]
        end = position + 8 + length
        if end + 4 > len(data):
            raise ValueError("PNG cut short")
        if zlib.crc32(data[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise ValueError("PNG checksum differs")
        position = end + 4


def _open_tar(data: bytes, source: str) -> tarfile.TarFile:
    try:
        return tarfile.open(fileobj=io.BytesIO(data), mode="r:")
    except (tarfile.TarError, ValueError, EOFError) as error:
        if not any(data[: tarfile.BLOCKSIZE]):
            raise InputError(f"shard {source} holds no samples; write it again") from error
        raise InputError(f"shard {source} is not a tar archive ({error}); fetch or write it again") from error


def _next_member(archive: tarfile.TarFile, source: str, key: str) -> tarfile.TarInfo | None:
    try:
        member = archive.next()
    except tarfile.ReadError as error:
        raise _truncated(source, key) from error
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise InputError(f"shard {source} is corrupt after sample {key!r} ({error}); write it again") from error
    archive.members.clear()  # type: ignore[attr-defined]  # it would keep every header of a large shard
    return member


def is_metadata(name: str) -> bool:
    """Say whether a member is about the archive and belongs to no sample."""
    base = name.rsplit("/", 1)[-1]
    return base.startswith("__") and base.endswith("__")


def _truncated(source: str, key: str) -> InputError:
    return InputError(f"shard {source} is truncated at sample {key!r}; fetch or write it again")
