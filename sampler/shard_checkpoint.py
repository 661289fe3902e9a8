"""What a shard has come to so far, in storage: an actor that dies costs a minute of its chains and not all of them.

Every `seconds` the actor writes all that it needs to go on to `unfinished/<item>-<digest>.state` beside the shards, in
one piece. The digest is that of everything the shard's bytes depend on, so that only the same shard goes on from it,
whichever actor makes it; two attempts at one shard may both write, and either's file is right. It goes when the shard
is written, the folder when the run ends.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import time
from collections.abc import Callable
from typing import Any

import torch

from gebm.cluster import storage

FOLDER = "unfinished"
FORMAT = 1
"""Of what is written: another one, and checkpoints of older versions are no longer looked at."""

_DIGEST = hashlib.sha256
_log = logging.getLogger(__name__)


class ShardCheckpoint:
    """The checkpoint of one shard in the set at `output`.

    item: its name. depends_on: JSON-able, all that its bytes depend on. seconds: least time between two writings.
    """

    def __init__(self, output: str, item: str, depends_on: Any, seconds: float):
        text = json.dumps([FORMAT, item, depends_on], sort_keys=True)
        self.key = _DIGEST(text.encode()).hexdigest()
        self.url = storage.join(output, FOLDER, f"{item}-{self.key[:16]}.state")
        self._seconds, self._written = seconds, time.monotonic()

    def offer(self, make_content: Callable[[], dict[str, Any]]) -> None:
        """Write what `make_content()` returns, plain containers of tensors and numbers, when it is time.

        Storage that is away for a moment costs a checkpoint and a line in the log.
        """
        if time.monotonic() - self._written < self._seconds:
            return
        buffer = io.BytesIO()
        torch.save({**make_content(), "key": self.key}, buffer)
        data = buffer.getvalue()
        try:
            storage.write_bytes_atomic(self.url, _DIGEST(data).digest() + data)
        except Exception as error:  # each kind of storage has errors of its own
            _log.warning("%s cannot be written (%s); the chains go on without", self.url, error)
        self._written = time.monotonic()

    def load(self) -> dict[str, Any] | None:
        """What was written last, tensors on the CPU. None where nothing was, or nothing sound of this shard."""
        try:
            data = storage.read_bytes(self.url)
        except FileNotFoundError:
            return None
        size = _DIGEST().digest_size
        if _DIGEST(data[size:]).digest() != data[:size]:
            _log.warning("%s is damaged; the shard starts over", self.url)
            return None
        content: dict[str, Any] = torch.load(io.BytesIO(data[size:]), map_location="cpu", weights_only=True)
        if content.pop("key") != self.key:
            _log.warning("%s is of another shard; this one starts over", self.url)
            return None
        return content

    def remove(self) -> None:
        """Remove it. Nothing there is fine."""
        storage.remove(self.url)


def remove_checkpoints(output: str) -> None:
    """Remove those of all shards of a finished set: an attempt that came second may have left one."""
    storage.remove(storage.join(output, FOLDER))
