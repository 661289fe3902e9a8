"""Files by URL, on local disk and on object stores alike, published whole or not at all.

A URL is anything that fsspec knows (`s3://bucket/run`, `gs://...`, `memory://...`) or a plain local path.
Object stores can neither append nor rename, so nothing here needs it: a file is written in one piece, and a
reader sees the old bytes or the new ones, never a part. A protocol that is not known, or whose package is not
installed, is an InputError.
"""

import hashlib
import json
import os
import secrets
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem

from gebm.cluster.errors import InputError

PART_SUFFIX = ".part"
"""Ending of a local file that is still being written. Its name starts with a dot."""

_BLOCK = 1 << 20


def absolute(url: str) -> str:
    """Return `url` so that it means the same in every process: local paths made absolute, `~` expanded."""
    path = local_path(url)
    return url.rstrip("/") if path is None else str(path)


def local_path(url: str) -> Path | None:
    """Return the absolute local path that `url` stands for, or None when it is on another kind of storage."""
    protocol, rest = split_protocol(str(url))
    if protocol not in (None, "file", "local"):
        return None
    return Path(os.path.abspath(os.path.expanduser(str(rest))))


def join(url: str, *parts: str) -> str:
    """Append path components to a URL."""
    return "/".join([str(url).rstrip("/"), *(part.strip("/") for part in parts)])


def exists(url: str) -> bool:
    """Say whether a file or a directory stands at `url`."""
    filesystem, path = _open_filesystem(url)
    return filesystem.exists(path)


def read_bytes(url: str) -> bytes:
    """Return the content of a file. Raises FileNotFoundError."""
    filesystem, path = _open_filesystem(url)
    return filesystem.cat_file(path)


def read_range(url: str, start: int, stop: int | None) -> bytes:
    """Return bytes [start, stop) of a file, or fewer where the file ends before. Raises FileNotFoundError."""
    local = local_path(url)
    if local is not None:
        with local.open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(max(0, stop - start))
    filesystem, path = _open_filesystem(url)
    return filesystem.cat_file(path, start=start, end=stop)


def read_text(url: str) -> str:
    """Return the content of a UTF-8 file. Raises FileNotFoundError."""
    return read_bytes(url).decode()


def read_json(url: str) -> Any:
    """Return the parsed content of a JSON file. Raises FileNotFoundError and json.JSONDecodeError."""
    return json.loads(read_bytes(url))


def open_read(url: str) -> IO[bytes]:
    """Open a file for reading bytes. Raises FileNotFoundError."""
    filesystem, path = _open_filesystem(url)
    return filesystem.open(path, "rb")


def write_bytes_atomic(url: str, data: bytes) -> None:
    """Write a file whole, replacing what stood there, and make the directories above it.

    Local disk: a temporary file in the same directory, fsync, then `os.replace`. Object store: one put.
    """
    local = local_path(url)
    if local is None:
        filesystem, path = _open_filesystem(url)
        filesystem.pipe_file(path, data)
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    part = local.with_name(f".{local.name}.{secrets.token_hex(6)}{PART_SUFFIX}")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, local)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_directory(local.parent)


def write_json_atomic(url: str, value: Any) -> None:
    """Write `value` as readable JSON, whole or not at all. NaN and infinity are refused (ValueError)."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(url, text.encode() + b"\n")


def list_names(url: str) -> list[str]:
    """Return the names of all that stands directly in a directory, sorted; [] when there is no directory."""
    return sorted(_entries(url))


def list_sizes(url: str) -> dict[str, int]:
    """Return {name: bytes} of the files that stand directly in a directory, by one listing."""
    return {
        name: int(entry["size"] or 0) for name, entry in sorted(_entries(url).items()) if entry["type"] != "directory"
    }


def remove(url: str) -> None:
    """Remove a file, or a directory and all in it. Nothing there is fine."""
    filesystem, path = _open_filesystem(url)
    try:
        filesystem.rm(path, recursive=True)
    except FileNotFoundError:
        return


def size(url: str) -> int:
    """Return the size of a file in bytes. Raises FileNotFoundError."""
    filesystem, path = _open_filesystem(url)
    return int(filesystem.size(path) or 0)


def make_directory(url: str) -> None:
    """Make a directory and those above it. Object stores have none and need none."""
    filesystem, path = _open_filesystem(url)
    filesystem.makedirs(path, exist_ok=True)


def sha256(url: str) -> str:
    """Return the hexadecimal SHA-256 of a file's content. Raises FileNotFoundError."""
    digest = hashlib.sha256()
    with open_read(url) as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    local = local_path(url)
    if local is not None:
        return LocalFileSystem(), str(local)
    try:
        # Listings must be fresh: other processes write beside us.
        return url_to_fs(str(url), use_listings_cache=False)
    except (ImportError, ValueError) as error:  # an unknown protocol, or one whose package is not installed
        raise InputError(f"{url} cannot be opened: {error}") from error


def _entries(url: str) -> dict[str, dict[str, Any]]:
    filesystem, path = _open_filesystem(url)
    try:
        found = filesystem.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    inside = path.rstrip("/") + "/"
    entries = {}
    for entry in found:
        name = str(entry["name"]).rstrip("/")
        # An object store may list the directory's own marker; and a file lists itself.
        if name.startswith(inside) and name != inside:
            entries[name[len(inside) :]] = entry
    return entries


def _sync_directory(path: Path) -> None:
    """Make a rename survive a power cut, where the system can sync a directory."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
