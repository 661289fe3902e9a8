"""Operations on storage that fails for a while: done again after growing waits, a few times, and then given up by name.

What may pass: timeouts, connections that cannot be made or break, answers that a server is overloaded or has failed,
and bodies that are cut short. What will not: a file that is not there, or that one may not touch; it is raised at once.
Libraries of stores have errors of their own, known here by their names and by the answer that they hold, so that none
of them has to be installed.
"""

from __future__ import annotations

import errno
import logging
import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from gebm.cluster.errors import StorageError

ATTEMPTS = 6
FIRST_WAIT_SECONDS = 0.5
LONGEST_WAIT_SECONDS = 15.0

LASTING = (FileNotFoundError, FileExistsError, PermissionError, NotADirectoryError, IsADirectoryError)
"""Errors of a file system that waiting does not mend."""
_PASSING_ERRNOS = {
    getattr(errno, name)
    for name in (
        *("EAGAIN", "EBUSY", "EINTR", "EIO", "EREMOTEIO", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "ENETRESET"),
        *("EHOSTDOWN", "EHOSTUNREACH"),
    )
    if hasattr(errno, name)
}
_PASSING_STATUS = {408, 425, 429}
# Of S3, with a status below 500. A body that came broken is sent again.
_PASSING_CODES = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "RequestTimeout", "OperationAborted"),
    *("IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "ConditionalRequestConflict"),
}
_PASSING_CLASSES = {
    *("botocore.HTTPClientError", "botocore.ConnectionError", "botocore.IncompleteReadError", "botocore.ChecksumError"),
    *("botocore.ResponseParserError", "aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError"),
    *("requests.ConnectionError", "requests.Timeout", "requests.ChunkedEncodingError", "urllib3.HTTPError"),
    *("http.IncompleteRead", "azure.ServiceRequestError", "azure.ServiceResponseError", "google.TransportError"),
}

_jitter = random.Random()  # not the one that `random.seed` seeds: waits must not move anybody's numbers
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class ShortReadError(OSError):
    """Fewer bytes than the file has."""


def persist(operation: str, url: str, attempt: Callable[[], _T]) -> _T:
    """Return `attempt()`, done again while its error may pass, ATTEMPTS times in all.

    Waits double from FIRST_WAIT_SECONDS to LONGEST_WAIT_SECONDS, each drawn between half of it and all of it: many
    processes that failed together must not come back together. Raises `StorageError` naming URL, operation and the
    last cause; an error that will not pass goes up at once, as it is.
    """
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except Exception as error:
            if not may_pass(error):
                raise
            cause = error
        if number < ATTEMPTS:
            wait = min(FIRST_WAIT_SECONDS * 2 ** (number - 1), LONGEST_WAIT_SECONDS) * _jitter.uniform(0.5, 1.0)
            _log.info("%s: %s failed (%s); again in %.1f s", url, operation, describe(cause), wait)
            time.sleep(wait)
    raise StorageError(f"{url}: {operation} failed {ATTEMPTS} times, the last time: {describe(cause)}") from cause


def may_pass(error: BaseException) -> bool:
    """Whether the same operation may work a little later."""
    if isinstance(error, (StorageError, *LASTING)):
        return False
    # s3fs turns a store's answer into an OSError, with the answer below it. Below a body that was cut short, aiohttp
    # has an error with the code 400 that nobody answered.
    for each in _with_causes(error):
        if any(_name(kind) in _PASSING_CLASSES for kind in type(each).__mro__):
            return True
        status, code = _answer(each)
        if status is not None or code is not None:
            failed = status is not None and status >= 500 and status != 501
            return failed or status in _PASSING_STATUS or code in _PASSING_CODES
    if isinstance(error, TimeoutError | ConnectionError | ShortReadError):
        return True
    return isinstance(error, OSError) and error.errno in _PASSING_ERRNOS


def describe(error: BaseException) -> str:
    """An error in a line."""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def _answer(error: BaseException) -> tuple[int | None, str | None]:
    """Status and error code of the answer that an error of botocore, aiohttp, gcsfs or Azure holds."""
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode"), str(response["Error"].get("Code"))
    if not isinstance(error, OSError):
        for name in ("status", "status_code", "code"):
            status = getattr(error, name, None)
            if isinstance(status, int) and 100 <= status < 600:
                return status, None
    return None, None


def _name(kind: type) -> str:
    return f"{kind.__module__.partition('.')[0]}.{kind.__name__}"
