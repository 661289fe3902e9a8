"""The other libraries of `two_sample.py`, driven as a process, and the published deep-kernel code's fast path, written
here."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch

ENVIRONMENT = Path(sys.prefix) / "peers" / "two_sample"
PYTHON = ENVIRONMENT / "bin" / "python"
SCRIPT = Path(__file__).with_name("two_sample_peer.py")
ABSENT = f"{ENVIRONMENT} is not there; `make peers` makes it"


class Peers:
    """The process of `two_sample_peer.py`: starts when first asked, and anew after a request that took too long."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="gebm-two-sample-")

    def __enter__(self) -> Peers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop()
        self._folder.cleanup()

    def ask(self, x: np.ndarray, y: np.ndarray, request: dict[str, Any], limit_seconds: float) -> dict[str, Any]:
        """The answer to a request about two samples; `{"error"}` where there is none within the limit."""
        if not PYTHON.exists():
            return {"error": ABSENT}
        files = {name: str(Path(self._folder.name) / f"{name}.npy") for name in ("x", "y")}
        for name, sample in (("x", x), ("y", y)):
            np.save(files[name], sample)
        if self._process is None:
            self._process = subprocess.Popen(
                [str(PYTHON), "-I", str(SCRIPT)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({**files, **request}) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], limit_seconds)[0]:
            self._stop()
            return {"error": f"no answer in {limit_seconds:.0f} s"}
        line = self._process.stdout.readline()
        if not line:
            self._stop()
            return {"error": "the process ended without an answer"}
        return json.loads(line)

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None


def einsum_test(x: torch.Tensor, y: torch.Tensor, bandwidth: float, permutations: int, seed: int = 0) -> float:
    """The p-value of `MMD²_u` less its cross terms i = j, all permutations by one three-way einsum on the stored
    kernel, as the published code of the deep-kernel paper computes it; n = m."""
    pooled, n = torch.cat([x, y]), len(x)
    squared = pooled.square().sum(1)
    kernel = (squared[:, None] + squared - 2.0 * pooled @ pooled.T).clamp_(min=0.0).mul_(-0.5 / bandwidth**2).exp_()
    generator = torch.Generator().manual_seed(seed)
    weights = torch.full((permutations + 1, 2 * n), -1.0)
    weights[-1, :n] = 1.0
    for row in weights[:-1]:
        row[torch.randperm(2 * n, generator=generator)[:n]] = 1.0
    forms = torch.einsum("pi,ij,pj->p", weights, kernel, weights)
    is_x = weights > 0
    x_places = is_x.nonzero()[:, 1].view(permutations + 1, n)
    y_places = (~is_x).nonzero()[:, 1].view(permutations + 1, n)
    flat = kernel.reshape(-1)
    cross = (flat.take(y_places * 2 * n + x_places) + flat.take(x_places * 2 * n + y_places)).sum(1)
    values = (forms - kernel.trace() + cross) / (n * (n - 1))
    return (1 + int((values[:-1] >= values[-1]).sum())) / (permutations + 1)
