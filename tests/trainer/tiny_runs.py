"""Training runs in this process, without Ray: one worker, points of the plane, small perceptrons."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator

from gebm.cluster import storage
from gebm.cluster.index import build_index, write_index
from gebm.cluster.shards import write_shard
from gebm.cluster.vectors import encode_vector
from gebm.trainer.check import check_job
from gebm.trainer.checkpoints import folder
from gebm.trainer.loop import TrainingJob, train_worker
from gebm.trainer.metrics import read_metrics
from gebm.trainer.model import ModelSettings
from gebm.trainer.pulse import Pulse
from gebm.trainer.settings import TrainerSettings, WatchSettings
from gebm.trainer.workers import Workers

MLP = ModelSettings(network="mlp", latent_dimension=2, base_widths=(16,), energy_widths=(16,))
FLOW = MLP.model_copy(update={"base": "realnvp", "latent_dimension": None})
SETTINGS: dict[str, Any] = {
    "batch_size": 16,
    "lanes": 8,
    "log_every": 2,
    "checkpoint_every": 4,
    "log_partition_draws": 128,
    "batch_norm_draws": 64,
    "joint": {"steps": 8, "warmup_energy_steps": 3, "warmup_steps": 1},
    "energy": {"steps": 6},
    "watch": WatchSettings(every=0, tensorboard=False),
}


def write_points(url: Path, count: int = 200, seed: int = 0, labels: bool = False) -> str:
    """A shard set of points on a ring of radius 1; the label is the half that a point lies in."""
    random = np.random.default_rng(seed)
    angle = random.uniform(0, 2 * np.pi, count)
    points = (np.stack([np.cos(angle), np.sin(angle)], 1) + random.normal(0, 0.1, (count, 2))).astype(np.float32)
    return write_vectors(url, points, points[:, 1] > 0 if labels else None)


def write_vectors(url: Path, points: np.ndarray, labels: np.ndarray | None = None) -> str:
    """A shard set of vectors float32 `(n, d)`, with labels `(n,)` or without."""
    samples: list[dict[str, str | bytes]] = []
    for number, point in enumerate(points):
        sample: dict[str, str | bytes] = {"__key__": f"{number:05d}", "npy": encode_vector(point)}
        samples.append(sample if labels is None else sample | {"cls": b"%d" % labels[number]})
    url.mkdir(parents=True, exist_ok=True)
    write_shard(str(url / "0.tar"), samples)
    write_index(str(url), build_index(str(url)))
    return str(url)


def tiny_job(
    out: Path | str, data: str, *, model: ModelSettings = MLP, validation: str | None = None, **changes: Any
) -> TrainingJob:
    """A job of 8 joint and 6 energy rounds, unless `changes` of the trainer's settings say otherwise."""
    settings = TrainerSettings.model_validate(SETTINGS | changes)
    return TrainingJob(str(out), data, validation, "digest", model, settings, seed=0)


def run_alone(
    job: TrainingJob, watch: Callable[[dict[str, Any]], None] | None = None, pulse: Pulse | None = None
) -> list[dict[str, Any]]:
    """Check and run the job; returns what it posted. `watch` is told of each record as it is posted."""
    from gebm.cluster.index import load_index

    check_job(job, load_index(job.data), workers=1)
    posted: list[dict[str, Any]] = []

    def post(record: dict[str, Any]) -> None:
        posted.append(record)
        if watch is not None:
            watch(record)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train_worker(job, Workers(Accelerator(cpu=True)), post, pulse)
    finally:
        torch.set_num_threads(threads)
    return posted


def snapshot(job: TrainingJob) -> tuple[list[dict[str, Any]], str]:
    """All lines of metrics, and the digest of the exported weights."""
    return read_metrics(job.run), weights_digest(job.run)


def weights_digest(run: Path | str) -> str:
    """The digest of the weights that a run has exported."""
    return storage.sha256(storage.join(str(run), "model", "weights.safetensors"))


def read_checkpoint(run: Path | str, round_number: int | None = None) -> dict[str, Any]:
    """The newest checkpoint's state, as `TrainingState.as_dict` gave it, or that of a round."""
    whole = json.loads((Path(run) / "checkpoints" / "manifest.json").read_text())["checkpoints"]
    record = [each for each in whole if round_number in (None, each["round"])][-1]
    return folder.read(str(Path(run) / "checkpoints" / record["name"]))["state"]


class PulseWithWord(Pulse):
    """Says its word once `at` rounds are done."""

    def __init__(self, word: str, at: int):
        self._word, self._at, self._round = word, at, 0

    @property
    def round(self) -> int:  # type: ignore[override]
        return self._round

    @round.setter
    def round(self, number: int) -> None:
        self._round = number

    @property
    def word(self) -> str:  # type: ignore[override]
        return self._word if self._round >= self._at else ""


class Killed(BaseException):
    """What a test raises in the middle of a run."""


def run_until(job: TrainingJob, round_number: int) -> None:
    """Run the job and break off in the round after the line of metrics of `round_number`, as `kill -9` would."""

    def post(record: dict[str, Any]) -> None:
        if "event" not in record and record["round"] >= round_number:
            raise Killed

    torch.set_num_threads(1)
    try:
        train_worker(job, Workers(Accelerator(cpu=True)), post)
    except Killed:
        return
    raise AssertionError(f"the run ended before round {round_number}")
