"""Which errors are taken to pass, and which not."""

from __future__ import annotations

import errno
from typing import Any

import pytest
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayActorError

from gebm.cluster.errors import StorageError
from gebm.cluster.scheduler import Trouble
from gebm.cluster.trouble import spell, trouble_of_death, trouble_of_error


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str):
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


def kind(package: str, name: str, base: type[Exception] = Exception) -> type[Exception]:
    return type(name, (base,), {"__module__": f"{package}.exceptions"})


def of_package(package: str, name: str, base: type[Exception] = Exception) -> Exception:
    return kind(package, name, base)("no answer")


def torch_out_of_memory() -> Exception:
    import torch

    return torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("storage is away"),
        StorageError("s3://bucket/run: no answer"),
        TimeoutError(),
        ConnectionResetError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        of_package("botocore", "EndpointConnectionError", kind("botocore", "ConnectionError")),
        of_package("botocore", "ReadTimeoutError", kind("botocore", "HTTPClientError")),
        of_package("aiohttp", "ClientPayloadError"),
        ClientError("SlowDown"),
        torch_out_of_memory(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_pass(error: Any) -> None:
    assert trouble_of_error(error) is Trouble.PASSING


@pytest.mark.parametrize(
    "error",
    [
        ValueError("energy is nan"),
        RuntimeError("shapes do not match"),
        FileNotFoundError(errno.ENOENT, "No such file"),
        PermissionError(errno.EACCES, "Permission denied"),
        NotADirectoryError(),
        ClientError("AccessDenied"),
        of_package("botocore", "NoCredentialsError"),
        KeyError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_does_not_pass(error: Any) -> None:
    assert trouble_of_error(error) is Trouble.ERROR


def test_deaths() -> None:
    assert trouble_of_death(ActorDiedError()) is Trouble.DEATH
    assert trouble_of_death(NodeDiedError("node 3")) is Trouble.DEATH
    assert trouble_of_death(OutOfMemoryError("the node was running low")) is Trouble.PASSING
    assert trouble_of_death(RayActorError(preempted=True)) is Trouble.EVICTION


def test_an_error_is_spelled_in_one_short_line() -> None:
    assert spell(ValueError("one\ntwo")) == "ValueError: one" and spell(KeyError()) == "KeyError: no message"
    assert len(spell(ValueError("x" * 5000))) < 400
