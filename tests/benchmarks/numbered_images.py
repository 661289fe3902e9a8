"""A million small images in seconds: grey 16x16 noise, each with its number in its first pixels, as indexed shards."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np

from gebm.cluster.index import make_index, write_index
from gebm.cluster.shards import END_OF_ARCHIVE, ShardRecord, pack_offsets

SIDE = 16
BLOCK = 512
SHARD_SIZE = 10_000


def write_numbered_images(url: Path, count: int, seed: int = 0) -> str:
    """Write `count` images into shards of 10,000 in the folder `url`, one shard at a time in memory."""
    url.mkdir(parents=True)
    random = np.random.default_rng(seed)
    records = []
    for first in range(0, count, SHARD_SIZE):
        numbers = range(first, min(first + SHARD_SIZE, count))
        rows = np.zeros((len(numbers), SIDE, 1 + SIDE), np.uint8)  # each row of a PNG begins with its filter, 0
        rows[:, :, 1:] = random.integers(0, 256, (len(numbers), SIDE, SIDE), dtype=np.uint8)
        rows[:, 0, 1:5] = np.array(numbers, "<u4")[:, None].view(np.uint8)
        tar = b"".join(_member(number, _png(image.tobytes())) for number, image in zip(numbers, rows, strict=True))
        tar += END_OF_ARCHIVE
        name = f"{first // SHARD_SIZE:05d}.tar"
        (url / name).write_bytes(tar)
        records.append(
            ShardRecord(
                name=name,
                count=len(numbers),
                bytes=len(tar),
                sha256=hashlib.sha256(tar).hexdigest(),
                offsets=pack_offsets(range(0, len(tar) - len(END_OF_ARCHIVE), 2 * BLOCK)),
            )
        )
    write_index(str(url), make_index(records, (1, SIDE, SIDE), None))
    return str(url)


def numbers_of(images: np.ndarray) -> np.ndarray:
    """The numbers, int64 (n,), of images uint8 (n, 1, 16, 16)."""
    return np.ascontiguousarray(images[:, 0, 0, :4]).view("<u4")[:, 0].astype(np.int64)


def _png(rows: bytes) -> bytes:
    """An uncompressed grey PNG of rows that begin with their filter: what takes a compressor's time is left out."""
    stored = b"\x78\x01\x01" + struct.pack("<HH", len(rows), len(rows) ^ 0xFFFF) + rows
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, 8, 0, 0, 0, 0))
        + _chunk(b"IDAT", stored + struct.pack(">I", zlib.adler32(rows)))
        + _chunk(b"IEND", b"")
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _member(number: int, data: bytes) -> bytes:
    """Header and data of a file `NUMBER.png` in a tar; `data` fits in one block."""
    header = bytearray(BLOCK)
    header[:13] = b"%09d.png" % number
    header[100:148] = b"0000444\0" + b"0000000\0" * 2 + b"%011o\0" % len(data) + b"%011o\0" % 0
    header[148:157] = b"        0"
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data.ljust(BLOCK, b"\0")
