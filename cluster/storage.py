"""Files by URL, on local disk and on object stores alike, published whole or not at all.

A URL is anything that fsspec knows (`s3://bucket/run`, `gs://...`, `memory://...`) or a plain local path.
Object stores can neither append nor rename, so nothing here needs it: a file is written in one piece, and a
reader sees the old bytes or the new ones, never a part. A protocol that is not known, or whose package is not
installed, is an InputError.

On other storage than local disk, what fails for a while is done again (`gebm.cluster.retries`), also reads that come
out shorter than the file; StorageError, an OSError, names what kept failing. Local disk is not asked twice.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.implementations.local import LocalFileSystem

from gebm.cluster.errors import InputError
from gebm.cluster.retries import ShortReadError, persist

PART_SUFFIX = ".part"
"""Ending of a local file that is still being written. Its name starts with a dot."""

_BLOCK = 16 << 20
_T = TypeVar("_T")


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
    local = local_path(url)
    if local is not None:
        return local.exists()
    filesystem, path = _open_filesystem(url)
    return persist("looking", url, lambda: filesystem.exists(path))


def read_bytes(url: str) -> bytes:
    """Return the content of a file. Raises FileNotFoundError."""
    local = local_path(url)
    if local is not None:
        return local.read_bytes()
    filesystem, path = _open_filesystem(url)

    def read() -> bytes:
        # Between the two another process may put a longer or shorter one there: that is read again, too.
        expected, data = _size(filesystem, path), filesystem.cat_file(path)
        return _whole(data, expected)

    return persist("reading", url, read)


def read_range(url: str, start: int, stop: int | None) -> bytes:
    """Return bytes [start, stop) of a file, or fewer where the file ends before. Raises FileNotFoundError."""
    local = local_path(url)
    if local is not None:
        with local.open("rb") as file:
            file.seek(start)
            return file.read() if stop is None else file.read(max(0, stop - start))
    filesystem, path = _open_filesystem(url)

    def read() -> bytes:
        data = filesystem.cat_file(path, start=start, end=stop)
        if stop is not None and len(data) == stop - start:
            return data
        end = _size(filesystem, path)
        return _whole(data, max(0, (end if stop is None else min(stop, end)) - start))

    return persist(f"reading bytes {start} to {'the end' if stop is None else stop}", url, read)


def read_text(url: str) -> str:
    """Return the content of a UTF-8 file. Raises FileNotFoundError."""
    return read_bytes(url).decode()


def read_json(url: str) -> Any:
    """Return the parsed content of a JSON file. Raises FileNotFoundError and json.JSONDecodeError."""
    return json.loads(read_bytes(url))


def write_bytes_atomic(url: str, data: bytes) -> None:
    """Write a file whole, replacing what stood there, and make the directories above it.

    Local disk: a temporary file in the same directory, fsync, then `os.replace`; a full disk is an OSError that names
    the file, and nothing is left of it. Object store: one put.
    """
    local = local_path(url)
    if local is None:
        filesystem, path = _open_filesystem(url)
        persist("writing", url, lambda: filesystem.pipe_file(path, data))
        return
    local.parent.mkdir(parents=True, exist_ok=True)
    part = local.with_name(f".{local.name}.{secrets.token_hex(6)}{PART_SUFFIX}")
    _write_local(part, data, local)
    try:
        os.replace(part, local)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_directory(local.parent)


def create_bytes(url: str, data: bytes) -> None:
    """Write a file that must not be there yet, and make the directories above it; raises FileExistsError.

    Local disk and S3 tell exactly, also where several processes try; an object store that cannot refuse may overwrite
    what came a moment before. FileExistsError may be about this very file, where the answer to the first try was lost.
    """
    local = local_path(url)
    if local is None:
        filesystem, path = _open_filesystem(url)
        persist("creating", url, lambda: filesystem.pipe_file(path, data, mode="create"))
        return
    make_directory(str(local.parent))
    _write_local(local, data, local)


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
        _persist_elsewhere("removing", url, lambda: filesystem.rm(path, recursive=True))
    except FileNotFoundError:
        return


def size(url: str) -> int:
    """Return the size of a file in bytes. Raises FileNotFoundError."""
    filesystem, path = _open_filesystem(url)
    return _persist_elsewhere("measuring", url, lambda: _size(filesystem, path))


def make_directory(url: str) -> None:
    """Make a directory and those above it. Object stores have none and need none."""
    filesystem, path = _open_filesystem(url)
    _persist_elsewhere("making the directory", url, lambda: filesystem.makedirs(path, exist_ok=True))


def sha256(url: str) -> str:
    """Return the hexadecimal SHA-256 of a file's content. Raises FileNotFoundError."""
    local = local_path(url)
    if local is not None:
        with local.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    end, digest = size(url), hashlib.sha256()
    for start in range(0, end, _BLOCK):
        digest.update(read_range(url, start, min(start + _BLOCK, end)))
    return digest.hexdigest()


def _open_filesystem(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    local = local_path(url)
    if local is not None:
        return LocalFileSystem(), str(local)
    is_s3 = split_protocol(str(url))[0] in ("s3", "s3a")
    try:
        # Listings must be fresh: other processes write beside us.
        filesystem, path = url_to_fs(str(url), use_listings_cache=False, **(_s3_options() if is_s3 else {}))
    except (ImportError, ValueError) as error:  # an unknown protocol, or one whose package is not installed
        raise InputError(f"{url} cannot be opened: {error}") from error
    if is_s3:
        filesystem.retries = 1
    return filesystem, path


def _s3_options() -> dict[str, Any]:
    """The user's own configuration of botocore, without its retries, unless they are in there.

    botocore tries five times, and s3fs does that five times: with ours, a server that hangs would be asked for hours.
    """
    chosen = fsspec.config.conf.get("s3", {}).get("config_kwargs") or {}
    return {"config_kwargs": {"retries": {"total_max_attempts": 1}, **chosen}}


def _persist_elsewhere(operation: str, url: str, attempt: Callable[[], _T]) -> _T:
    """Local disk is asked once, other storage again."""
    return attempt() if local_path(url) is not None else persist(operation, url, attempt)


def _size(filesystem: fsspec.AbstractFileSystem, path: str) -> int:
    return int(filesystem.size(path) or 0)


def _whole(data: bytes, expected: int) -> bytes:
    if len(data) != expected:
        raise ShortReadError(f"{len(data)} bytes came, of {expected}")
    return data


def _write_local(path: Path, data: bytes, named: Path) -> None:
    """Write a file that is not there and sync it; a failure leaves none, and an OSError that names `named`."""
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno is not None:
                raise OSError(error.errno, error.strerror, str(named)) from error
            raise


def _entries(url: str) -> dict[str, dict[str, Any]]:
    filesystem, path = _open_filesystem(url)
    try:
        found = _persist_elsewhere("listing", url, lambda: filesystem.ls(path, detail=True))
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
