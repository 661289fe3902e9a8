"""What an error says about the work: that it is wrong, or that the same work may well succeed later."""

from __future__ import annotations

from ray.exceptions import ObjectStoreFullError, OutOfDiskError, OutOfMemoryError, RayError

from gebm.cluster.retries import LASTING, may_pass
from gebm.cluster.scheduler import Trouble

_OUT_OF_MEMORY = ("CUDA out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""In texts of torch's RuntimeErrors."""


def trouble_of_error(error: BaseException) -> Trouble:
    """What kind of trouble the exception is that a worker raised."""
    if isinstance(error, LASTING):
        return Trouble.ERROR
    # Of the other errors of a file system a full disk may pass too, and storage that was asked often enough already.
    if isinstance(error, MemoryError | OSError) or may_pass(error):
        return Trouble.PASSING
    # torch's by name: a driver need not have the packages that its workers have.
    is_memory = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return Trouble.PASSING if is_memory or any(text in str(error) for text in _OUT_OF_MEMORY) else Trouble.ERROR


def trouble_of_death(error: RayError) -> Trouble:
    """What kind of trouble an actor's end is."""
    if isinstance(error, OutOfMemoryError | OutOfDiskError | ObjectStoreFullError):
        return Trouble.PASSING
    return Trouble.EVICTION if getattr(error, "preempted", False) else Trouble.DEATH


def spell(error: BaseException) -> str:
    """An error in one line."""
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first_line[:300]}"
