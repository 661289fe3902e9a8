"""A lease on an output directory, `lease.json` in it: one process at a time writes there.

The holder renews it every RENEW_SECONDS. Another process that wants the directory looks whether the holder is there:

- on the holder's machine, by the number and the birth of its process: one that has ended is followed at once, one that
  lives is left alone, unless its lease has run out (it is stopped, say);
- elsewhere, by watching the lease: it is the holder's as long as it changes. After EXPIRY_SECONDS without a change the
  holder is taken to be gone. Clocks of different hosts are never compared, so it does not matter what they show.

A lease is created by a write that fails where a file stands (local disk; S3 and what honours its If-None-Match). Not
all stores can do that, and none of fsspec's replaces a file only if it is the one that was read: so whoever has taken
a lease over, or taken one on an object store, waits for SETTLE_SECONDS and reads again; the last one to write has it.

What stays possible: a holder that is paused between its `check` and the publication after it, for longer than a lease,
publishes once more when it wakes, and its next `check` ends it. Whoever follows begins to read only when the lease has
settled, so a publication that takes less than that is seen by it.
"""

from __future__ import annotations

import getpass
import logging
import os
import secrets
import shlex
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.processes import birth, is_alive
from gebm.cluster.settings import StrictModel

LEASE_NAME = "lease.json"
RENEW_SECONDS = 10.0
EXPIRY_SECONDS = 60.0
SETTLE_SECONDS = 2.0
LOCAL_SETTLE_SECONDS = 0.3
LOOK_SECONDS = 0.5

_log = logging.getLogger(__name__)


class Lease(StrictModel):
    """What `lease.json` holds. Times are the holder's own."""

    token: str
    """This holder's alone."""
    user: str
    host: str
    machine: str
    """Tells one running system, and one space of process numbers in it, from all others; "" where nothing does."""
    pid: int
    born: str
    """When the process began: its number may be given anew."""
    command: str
    since: str
    renewed: str
    until: str
    uptime: float
    """At the last renewal: seconds since the machine was started, in which it slept included."""


class Hold:
    """A lease that this process has, or asks for."""

    def __init__(self, output: str) -> None:
        self._output, self._url, self._lease = output, storage.join(output, LEASE_NAME), _new_lease()

    def acquire(self) -> None:
        """Wait until the lease is this process's; raises InputError as soon as another one turns out to be there."""
        seen, since = _read(self._url), time.monotonic()
        told = False
        while True:
            there = _read(self._url)
            found = _parse(there)
            if self._is_mine(found):
                return
            if there is None:
                self._create()
                seen, since = _read(self._url), time.monotonic()
                continue
            patience = EXPIRY_SECONDS if found is None else _patience(found)
            if patience is None or (there != seen and found is not None):
                raise _in_use(self._output, found)
            if there != seen:
                seen, since = there, time.monotonic()
            if time.monotonic() - since >= patience:
                self._write()
                self._settle()  # another one who has written after us is at work: that is a change
                continue
            if not told:
                _log.warning("%s has a lease; waiting up to %.0f s for a sign of its holder", self._output, patience)
                told = True
            time.sleep(min(LOOK_SECONDS, patience))

    def check(self) -> None:
        """Raise InputError when the lease is not this process's any more: it must publish nothing from now on."""
        found = _parse(_read(self._url))
        if self._is_mine(found):
            return
        who = "its lease was removed" if found is None else f"{_spell(found)} has it since {found.since}"
        raise InputError(
            f"{self._output} is no longer this process's: {who}. This process was paused, or cut off from its storage, "
            f"for longer than {EXPIRY_SECONDS:g} s; it has stopped, and what it had published stays"
        )

    def renew(self) -> bool:
        """Write the lease anew; False, and nothing written, when it is another's by now."""
        if not self._is_mine(_parse(_read(self._url))):
            return False
        self._write()
        return True

    def release(self) -> None:
        """Remove the lease, if it is this process's."""
        try:
            if self._is_mine(_parse(_read(self._url))):
                storage.remove(self._url)
        except OSError as error:
            _log.warning("a lease could not be removed, and will run out: %s", error)

    def _is_mine(self, found: Lease | None) -> bool:
        return found is not None and found.token == self._lease.token

    def _create(self) -> None:
        self._lease = _renewed(self._lease)
        try:
            storage.create_bytes(self._url, _encode(self._lease))
        except FileExistsError:
            return  # another's; or ours, where only the answer was lost: reading tells
        if storage.local_path(self._url) is None:
            self._settle()

    def _write(self) -> None:
        self._lease = _renewed(self._lease)
        storage.write_bytes_atomic(self._url, _encode(self._lease))

    def _settle(self) -> None:
        time.sleep(SETTLE_SECONDS if storage.local_path(self._url) is None else LOCAL_SETTLE_SECONDS)


@contextmanager
def held(output: str) -> Iterator[Hold]:
    """Have the output directory for oneself inside the `with` block; `hold.check()` before whatever is published.

    A directory that is made for the lease and holds nothing else at the end is removed again. Raises InputError that
    names the holder when another process has the directory.
    """
    local = storage.local_path(output)
    if local is not None and local.is_file():
        raise InputError(f"{output} is a file; choose another output directory")
    is_new = local is not None and not local.exists()
    hold = Hold(output)
    over = threading.Event()
    keeper = threading.Thread(target=_keep, args=(hold, over), name="lease", daemon=True)
    try:
        hold.acquire()
        keeper.start()
        yield hold
    finally:
        over.set()
        if keeper.ident is not None:
            keeper.join()
        hold.release()
        if is_new and local is not None:
            with suppress(OSError):  # it is not empty
                local.rmdir()


def _keep(hold: Hold, over: threading.Event) -> None:
    """Renew until it is over. A renewal that fails is tried again at the next turn: `check` tells in the end."""
    while not over.wait(RENEW_SECONDS):
        try:
            if not hold.renew():
                return
        except Exception as error:
            _log.warning("a lease could not be renewed: %s", error)


def _patience(found: Lease) -> float | None:
    """Seconds without a change after which the holder is taken to be gone; None for one that is there."""
    if not found.machine or found.machine != _machine():
        return EXPIRY_SECONDS
    if not is_alive(found.pid, found.born):
        return 0.0
    # It lives and may be stopped. A machine that has just woken gives its processes the time for a renewal.
    return None if _uptime() - found.uptime < EXPIRY_SECONDS else 2.5 * RENEW_SECONDS


def _in_use(output: str, found: Lease | None) -> InputError:
    who = _spell(found) if found is not None else "another process"
    times = f" since {found.since}, until {found.until} at least" if found is not None else ""
    return InputError(
        f"{output} is in use: {who} has it{times}; wait for that process to end, or stop it, or choose another output "
        "directory"
    )


def _spell(lease: Lease) -> str:
    return f"{lease.user}@{lease.host}, process {lease.pid} (`{lease.command}`),"


def _new_lease() -> Lease:
    now = _now()
    return Lease(
        token=secrets.token_hex(8),
        user=_user(),
        host=socket.gethostname(),
        machine=_machine(),
        pid=os.getpid(),
        born=birth(os.getpid()),
        command=shlex.join([_program(), *sys.argv[1:]])[:300],
        since=_spell_time(now),
        renewed="",
        until="",
        uptime=0.0,
    )


def _program() -> str:
    """The program as it was started, without its path; `python -m package` by the package's name."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name.removesuffix(".__main__") if spec is not None else Path(sys.argv[0]).name


def _renewed(lease: Lease) -> Lease:
    now = _now()
    until = now + timedelta(seconds=EXPIRY_SECONDS)
    return lease.model_copy(
        update={"renewed": _spell_time(now), "until": _spell_time(until), "uptime": round(_uptime(), 3)}
    )


def _read(url: str) -> bytes | None:
    try:
        return storage.read_bytes(url)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _parse(data: bytes | None) -> Lease | None:
    """The lease; None for none, and for one that cannot be read: one that is just being created, or damaged."""
    try:
        return None if data is None else Lease.model_validate_json(data)
    except ValidationError:
        return None


def _encode(lease: Lease) -> bytes:
    return lease.model_dump_json(indent=1).encode() + b"\n"


def _now() -> datetime:
    return datetime.now(UTC)


def _spell_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container's user may have no name
        return str(getattr(os, "getuid", lambda: "unknown")())


def _machine() -> str:
    """The boot and the space of process numbers: containers of one host have numbers of their own."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _uptime() -> float:
    """Seconds since the start of the machine, in which it slept included."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
