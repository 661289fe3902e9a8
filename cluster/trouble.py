"""What an error says about the work: that it is wrong, or that the same work may well succeed later."""

from __future__ import annotations

from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayError

from gebm.cluster.scheduler import Trouble

_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
"""Errors of a file system that waiting does not mend. The others may pass: a full disk, storage that is away."""

# By name, so that a driver need not have the packages that its workers have.
_PASSING_NAMES = frozenset(
    {
        "OutOfMemoryError",  # torch
        *("HTTPClientError", "ConnectionError", "IncompleteReadError"),  # botocore, and those below them
        *("ClientConnectionError", "ClientPayloadError", "ServerTimeoutError"),  # aiohttp
        *("ServiceRequestError", "ServiceResponseError"),  # Azure
        *("TransportError", "FSTimeoutError"),  # Google, fsspec
    }
)
_PASSING_CODES = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "Throttling"})
"""Of botocore's ClientError, which may be anything."""

_PASSING_TEXTS = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Of torch's RuntimeErrors."""


def trouble_of_error(error: BaseException) -> Trouble:
    """What kind of trouble the exception is that a worker raised."""
    passing = Trouble.PASSING
    if isinstance(error, _LASTING):
        return Trouble.ERROR
    if isinstance(error, MemoryError | OSError):
        return passing
    if any(kind.__name__ in _PASSING_NAMES for kind in type(error).__mro__):
        return passing
    if any(text in str(error) for text in _PASSING_TEXTS):
        return passing
    response = getattr(error, "response", None)
    if isinstance(response, dict) and response.get("Error", {}).get("Code") in _PASSING_CODES:
        return passing
    return Trouble.ERROR


def trouble_of_death(error: RayError) -> Trouble:
    """What kind of trouble an actor's end is."""
    if isinstance(error, OutOfMemoryError | OutOfDiskError | ObjectStoreFullError):
        return Trouble.PASSING
    return Trouble.EVICTION if getattr(error, "preempted", False) else Trouble.DEATH


def spell(error: BaseException) -> str:
    """An error in one line."""
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first_line[:300]}"
