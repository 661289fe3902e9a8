"""Joining a Ray cluster, or starting one on this machine for as long as it is needed."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from gebm.cluster.errors import InputError

OBJECT_STORE_BYTES = 256 << 20
"""Of a local Ray. Images never pass through it, only records and small settings do."""

KNOCK_SECONDS = 10.0


@contextmanager
def connection(address: str | None, *, cpus: int | None = None, quiet: bool = True) -> Iterator[None]:
    """Be connected to Ray inside the `with` block.

    A process that is connected already stays as it is. Otherwise `address` (or RAY_ADDRESS) names the cluster
    to join; without either, Ray is started here with `cpus` CPUs (all of them when None), without dashboard
    and usage reports, and ended on leaving. What was not started here is never ended here.
    `quiet` keeps Ray's own messages and the workers' output off the terminal.
    Raises InputError when the cluster cannot be reached.
    """
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's coming default, chosen now: without it every actor without a GPU prints a warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    address = address or os.environ.get("RAY_ADDRESS")
    level = logging.ERROR if quiet else logging.INFO
    if address is None or address == "local":
        # "local" and not None: None would join whatever cluster someone has started on this machine.
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=not quiet,
            logging_level=level,
        )
    else:
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=not quiet, logging_level=level)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"no Ray cluster answers at {address} ({error}); check --address") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError at once when nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_SECONDS).close()
