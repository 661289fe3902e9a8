"""MALA and HMC against BlackJAX's, which runs in an environment of its own (`make peers`).

The same targets, step sizes, leapfrog steps, numbers of chains and of draws, and the same draws of the target to start
from; both in float32 on one core, ours with a compiled step. After as many steps that do not count, draws are timed, in
seconds of that core, so that what else the machine does hardly matters. ArviZ says how many independent ones they are
worth (bulk, the mean over 20 coordinates), by the same code for both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.preprocessing import StandardScaler

from gebm.sampler.algorithm import Algorithm, Potential
from gebm.sampler.compiled import compiled
from gebm.sampler.effective_size import effective_sample_size
from gebm.sampler.hmc import hmc
from gebm.sampler.mala import mala
from tests.benchmarks.harness import Record, machine

ENVIRONMENT = Path(sys.prefix) / "peers" / "blackjax"
PYTHON = ENVIRONMENT / "bin" / "python"
SCRIPT = Path(__file__).with_name("blackjax_peer.py")
SCALES = np.geomspace(0.5, 1.0, 100)


class Case(NamedTuple):
    """A target, a kernel and its parameters; `draws` of each of `chains` are timed.

    500 chains, as recipes have them on a GPU. A step of ours costs a tenth of a millisecond whatever it does, so that
    on targets as small as these BlackJAX, whose loop is compiled too, is as fast or faster below some 200 chains.
    """

    target: str
    kernel: str
    step_size: float
    leapfrog_steps: int
    draws: int
    chains: int = 500


CASES = (
    Case("gaussian", "mala", 0.12, 1, 600),
    Case("gaussian", "hmc", 0.3, 5, 200),
    Case("logistic", "mala", 0.018, 1, 1000),
    Case("logistic", "hmc", 0.13, 10, 200),
)


@dataclass(frozen=True)
class Draws:
    """seconds: of the core, for all draws. acceptance: mean probability. positions: `(draws, chains, d)`."""

    seconds: float
    acceptance: float
    positions: np.ndarray

    @property
    def coordinates(self) -> np.ndarray:
        """`(draws, chains, 20)`: those that are looked at."""
        return self.positions[:, :, np.linspace(0, self.positions.shape[2] - 1, 20).astype(int)]

    @cached_property
    def effective(self) -> float:
        """Bulk-effective draws, the mean over coordinates."""
        sizes = [effective_sample_size(column, "bulk") for column in np.moveaxis(self.coordinates, 2, 0)]
        return float(np.mean([0.0 if size is None else size for size in sizes]))


def table() -> np.ndarray:
    """Breast cancer data, float32 `(569, 31)`: features of unit variance and a constant, rows of one class negative.

    So a row's log-likelihood is `log sigmoid(row . w)` in either class.
    """
    features, labels = load_breast_cancer(return_X_y=True)
    features = np.column_stack([np.ones(len(features)), StandardScaler().fit_transform(features)])
    return (features * (2 * labels[:, None] - 1)).astype(np.float32)


def potential(target: str) -> Potential:
    """Minus the log-density, up to a constant: of `N(0, diag(SCALES²))`, or of the weights of a logistic regression
    with a standard normal prior."""
    if target == "gaussian":
        scales = torch.tensor(SCALES, dtype=torch.float32)
        return lambda z: (z / scales).square().sum(1) / 2
    rows = torch.from_numpy(table())
    return lambda z: z.square().sum(1) / 2 - torch.nn.functional.logsigmoid(z @ rows.T).sum(1)


def starts(case: Case) -> np.ndarray:
    """`(chains, d)` float32 draws of the target to start from: exact, or where long trajectories end."""
    generator = torch.Generator().manual_seed(0)
    if case.target == "gaussian":
        return (torch.randn(case.chains, len(SCALES), generator=generator) * torch.tensor(SCALES)).float().numpy()
    algorithm = compiled(hmc(potential(case.target), 0.05, 20))
    state = algorithm.init(0.1 * torch.randn(case.chains, table().shape[1], generator=generator), generator)
    for _ in range(300):
        state, _ = algorithm.step(state, generator)
    return state.position.numpy()


def our_algorithm(case: Case) -> Algorithm:
    if case.kernel == "mala":
        return compiled(mala(potential(case.target), case.step_size))
    return compiled(hmc(potential(case.target), case.step_size, case.leapfrog_steps))


def our_draws(case: Case, start: np.ndarray) -> Callable[[], Draws]:
    """`draws` steps that do not count, then a function that times as many more at every call."""
    algorithm, generator = our_algorithm(case), torch.Generator().manual_seed(0)
    state: Any = algorithm.init(torch.from_numpy(start), generator)
    positions = torch.empty(case.draws, *start.shape)
    acceptance = torch.zeros(case.chains)

    def advance() -> None:
        nonlocal state
        acceptance.zero_()
        for number in range(case.draws):
            state, info = algorithm.step(state, generator)
            positions[number] = state.position
            acceptance.add_(info.acceptance)

    def draw() -> Draws:
        begun = time.process_time()
        advance()
        seconds = time.process_time() - begun
        return Draws(seconds, float(acceptance.mean()) / case.draws, positions.numpy().copy())

    advance()
    return draw


@contextmanager
def peer_process() -> Iterator[Callable[[dict[str, Any]], dict[str, Any]]]:
    """A function that has a request answered by BlackJAX."""
    with subprocess.Popen(
        [str(PYTHON), "-I", str(SCRIPT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as peer:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(peer.pid, {min(os.sched_getaffinity(0))})
        assert peer.stdin is not None and peer.stdout is not None

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            peer.stdin.write(json.dumps(request) + "\n")
            peer.stdin.flush()
            answer = peer.stdout.readline()
            if not answer:
                raise RuntimeError(f"{SCRIPT.name} ended without an answer to {request}")
            return json.loads(answer)

        try:
            yield ask
        finally:
            peer.stdin.close()


def peer_draws(case: Case, start: np.ndarray, ask: Callable[[dict[str, Any]], dict[str, Any]], folder: Path) -> Draws:
    """The same draws by BlackJAX."""
    np.save(folder / "table.npy", table())
    np.save(folder / "start.npy", start)
    files = {name: str(folder / f"{name}.npy") for name in ("table", "start", "draws_file")}
    request = {**case._asdict(), "scales": SCALES.tolist(), "seed": 0, **files}
    answer = ask(request)
    return Draws(answer["seconds"], answer["acceptance"], np.load(folder / "draws_file.npy"))


def check_same_law(case: Case, ours: Draws, theirs: Draws) -> None:
    """Raise unless both sides sample one law with one kernel: acceptance to 0.02, means to 6 standard errors."""
    if abs(ours.acceptance - theirs.acceptance) > 0.02:
        raise AssertionError(f"{case}: our acceptance {ours.acceptance:.3f}, BlackJAX's {theirs.acceptance:.3f}")
    means = [side.coordinates.mean((0, 1), dtype=np.float64) for side in (ours, theirs)]
    spread = ours.coordinates.std((0, 1), dtype=np.float64)
    deviation = (means[0] - means[1]) / (spread * np.sqrt(1 / ours.effective + 1 / theirs.effective))
    if np.abs(deviation).max() > 6:
        raise AssertionError(f"{case}: means differ by {np.abs(deviation).max():.1f} standard errors")


def against_blackjax(quick: bool) -> Iterable[Record]:
    """A line a case, seconds an effective sample; what a gradient brings is printed."""
    if not PYTHON.exists():
        print(f"no BlackJAX beside ours: {ENVIRONMENT} is not there; `make peers` makes it")
        return
    here, repeats = machine(), 1 if quick else 3
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="gebm-blackjax-") as folder, peer_process() as ask:
        for case in (CASES[0]._replace(draws=300),) if quick else CASES:
            start = starts(case)
            draw = our_draws(case, start)
            turns = [(draw(), peer_draws(case, start, ask, Path(folder))) for _ in range(repeats)]
            check_same_law(case, *turns[-1])
            name = f"{case.target} {case.kernel} x{case.chains}"
            gradients = case.draws * case.chains * case.leapfrog_steps
            seconds = [statistics.median(d.seconds / d.effective for d in side) for side in zip(*turns, strict=True)]
            drawn = [statistics.median(d.effective for d in side) / gradients for side in zip(*turns, strict=True)]
            print(
                f"{name}: acceptance {turns[-1][0].acceptance:.2f}; effective draws per 1,000 gradients: "
                f"ours {1000 * drawn[0]:.1f}, BlackJAX {1000 * drawn[1]:.1f}; a second: "
                f"ours {1 / seconds[0]:.0f}, BlackJAX {1 / seconds[1]:.0f}"
            )
            yield Record(f"{name}: seconds an effective draw", seconds[0], "BlackJAX", seconds[1], None, here)
    torch.set_num_threads(threads)
