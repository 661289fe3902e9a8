"""A shard that is taken up again in the middle has the bytes of one that nobody disturbed, and costs only the rest."""

from __future__ import annotations

import hashlib
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from gebm.cluster import storage
from gebm.cluster.farm import FarmProgress
from gebm.sampler import SamplerSettings, mala
from gebm.sampler.chain import chains_for
from gebm.sampler.replay import replayed
from gebm.sampler.settings import SAMPLER_NAMES
from gebm.sampler.shard_checkpoint import FOLDER
from gebm.sampler.stored import StoreSettings
from gebm.sampler.work import make_shard_worker, sample, shard_items
from gebm.trainer.model import ModelSettings, PriorSettings, build_model, save_model
from tests.sampler.small_models import save_small_model
from tests.sampler.test_replay import by_running_again, on_a_gpu

CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in SAMPLER_NAMES},
    "step size tuned": {"name": "hmc", "warmup": 5, "target_acceptance": 0.7},
    "scales measured": {"name": "kla", "warmup": 6, "precondition": True},
    "both": {"name": "mala", "warmup": 7, "precondition": True, "target_acceptance": 0.6},
    "annealed": {"name": "kla", "anneal": {"start": 0.1, "steps": 4}},
    "tempered": {"name": "mala", "tempering": {"rungs": 3, "hottest": 0.1}},
    "tempered, tuned": {
        "name": "hmc",
        "tempering": {"rungs": 2, "hottest": 0.2},
        "warmup": 4,
        "target_acceptance": 0.7,
        "precondition": True,
    },
    "scheduled after warm-up": {
        "name": "ula",
        "schedule": {"shape": "stepwise", "every": 2, "factor": 0.5},
        "warmup": 4,
        "precondition": True,
    },
    "several a chain": {"name": "mala", "samples_per_chain": 2, "thin": 3},
    "bfloat16": {"name": "mala", "precision": "bfloat16"},
    "rescaled": {"name": "rwmh", "scale": (0.5, 1.0, 2.0, 0.1)},
    "compiled": {"name": "kla", "compile": True, "chains": 5, "steps": 3},
}
STORE = StoreSettings(save=("latents", "energies"))
ROUGH = 0.3  # large steps: proposals are refused as well as accepted


class Killed(BaseException):
    """Not an `Exception`: nothing may catch it, as nothing catches `kill -9`."""


def settings_of(case: str) -> SamplerSettings:
    layout = {"step_size": ROUGH, "steps": 5, "chains": 3, "shard_size": 5, "record_every": 2, "draws_per_sample": 4}
    return SamplerSettings.model_validate({**layout, **CASES[case]})


@pytest.fixture(scope="module")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A conditional model on a uniform prior: chains move in other coordinates than the latents that are kept."""
    network = ModelSettings(
        latent_dimension=4,
        base_widths=(6, 4),
        energy_widths=(6,),
        conditional=True,
        prior=PriorSettings(kind="uniform"),
    )
    url = str(tmp_path_factory.mktemp("run") / "model")
    save_model(build_model(network, (1, 8, 8), 3, seed=1), network, url)
    return url


@pytest.fixture
def killing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """`killing(n)`: from now on the process dies after every n-th checkpoint that it writes; 0: it lives."""
    write, written, every = storage.write_bytes_atomic, 0, 0

    def write_and_die(url: str, data: bytes) -> None:
        nonlocal written
        write(url, data)
        if f"/{FOLDER}/" in url:
            written += 1
            if every and written % every == 0:
                raise Killed

    def kill(n: int) -> None:
        nonlocal every, written
        every, written = n, 0

    monkeypatch.setattr(storage, "write_bytes_atomic", write_and_die)
    return kill


def worker(model_url: str, output: Path, settings: SamplerSettings, seconds: float = 1e-9, device: str = "cpu") -> Any:
    """A worker as of another process each time: it has nothing but storage from those before."""
    threads = torch.get_num_threads()
    work = make_shard_worker(model_url, str(output), settings, 7, device, STORE, seconds)()

    def and_threads(*arguments: Any) -> dict[str, Any]:
        try:
            return work(*arguments)
        finally:
            torch.set_num_threads(threads)

    return and_threads


def what_counts(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("sha256", "diagnostics", "count", "offsets")}


def by_deaths(url: str, folder: Path, settings: SamplerSettings, device: str = "cpu") -> tuple[dict[str, Any], int]:
    """The record of a shard, and how many attempts it took."""
    item = shard_items(settings, 5, seed=11)[0]
    for attempts in range(1, 100):
        try:
            return worker(url, folder, settings, device=device)(item, "here"), attempts
        except Killed:
            pass
    raise AssertionError("a hundred attempts come to no end")


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=on_a_gpu)])
@pytest.mark.parametrize("case", CASES)
def test_a_worker_that_dies_after_every_transition_makes_the_same_shard(
    case: str, device: str, model_url: str, tmp_path: Path, killing: Callable[[int], None]
) -> None:
    """Each attempt does one transition more than the one before it; so every point to stop at is tried."""
    settings = settings_of(case)
    item = shard_items(settings, 5, seed=11)[0]
    whole = worker(model_url, tmp_path / "whole", settings, 1e9, device)(item, "here")
    killing(1)
    record, attempts = by_deaths(model_url, tmp_path / "parts", settings, device)
    transitions = settings.warmup + settings.transitions if settings.name not in ("base", "sir") else 0
    batches = -(-chains_for(5, settings) // settings.chains)
    assert attempts == batches * (transitions + 1) + 1
    assert what_counts(record) == what_counts(whole)
    assert record["seconds_taken_over"] > 0 == whole["seconds_taken_over"]
    assert os.listdir(tmp_path / "parts" / FOLDER) == []


@pytest.mark.parametrize("case", ["ula", "tempered", "annealed"])
def test_so_does_one_whose_steps_are_recorded(
    case: str, model_url: str, tmp_path: Path, killing: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a CUDA graph is, by a recorder that works on any device."""
    settings = settings_of(case).model_copy(update={"compile": True})
    monkeypatch.setattr("gebm.sampler.samplers.compiled", lambda algorithm: replayed(algorithm, by_running_again))
    whole = worker(model_url, tmp_path / "whole", settings, 1e9)(shard_items(settings, 5, seed=11)[0], "here")
    killing(1)
    record, attempts = by_deaths(model_url, tmp_path / "parts", settings)
    assert attempts > 10 and what_counts(record) == what_counts(whole)


def test_what_was_done_before_is_not_done_again(
    model_url: str, tmp_path: Path, killing: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two batches of 40 transitions, killed after 70: the second attempt has 10 gradients to work out.

    And one more, by which it sees what a state of these chains looks like.
    """
    gradients = 0
    value_and_gradient = mala.value_and_gradient

    def counted(*arguments: Any) -> Any:
        nonlocal gradients
        gradients += 1
        return value_and_gradient(*arguments)

    monkeypatch.setattr(mala, "value_and_gradient", counted)
    settings = settings_of("mala").model_copy(update={"steps": 40})
    item = shard_items(settings, 5, seed=11)[0]
    killing(71)  # the end of a batch is written too
    with pytest.raises(Killed):
        worker(model_url, tmp_path, settings)(item, "one")
    assert gradients == 2 + 70
    killing(0)
    gradients = 0
    worker(model_url, tmp_path, settings)(item, "two")
    assert gradients == 1 + 10


def with_another_state(data: bytes) -> bytes:
    """A sound checkpoint of chains whose state lacks a tensor: as a version with another kernel would write it."""
    content = torch.load(io.BytesIO(data[32:]), weights_only=True)
    content["running"]["chains"][0].pop()
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign", "of another state"])
def test_a_checkpoint_that_is_not_this_shards_is_told_of_and_not_used(
    damage: str,
    model_url: str,
    tmp_path: Path,
    killing: Callable[[int], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings = settings_of("mala")
    item, other = (shard_items(settings, 5, seed)[0] for seed in (11, 12))
    whole = worker(model_url, tmp_path / "whole", settings, 1e9)(item, "here")
    killing(4)
    for each in (item, other):
        with pytest.raises(Killed):
            worker(model_url, tmp_path / "parts", settings)(each, "here")
    killing(0)
    folder = tmp_path / "parts" / FOLDER
    first, second = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    data = first.read_bytes()
    changed = {
        "flipped": data[:2000] + bytes([data[2000] ^ 1]) + data[2001:],
        "cut": data[:-1],
        "empty": b"",
        "foreign": second.read_bytes(),
        "of another state": with_another_state(data),
    }
    first.write_bytes(changed[damage])
    record = worker(model_url, tmp_path / "parts", settings)(item, "here")
    assert "starts over" in caplog.text and first.name in caplog.text
    assert what_counts(record) == what_counts(whole) and record["seconds_taken_over"] == 0
    assert not first.exists()


def test_storage_that_refuses_a_checkpoint_does_not_stop_the_chains(
    model_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = storage.write_bytes_atomic

    def refuse(url: str, data: bytes) -> None:
        if f"/{FOLDER}/" in url:
            raise OSError("no space left")
        write(url, data)

    monkeypatch.setattr(storage, "write_bytes_atomic", refuse)
    settings = settings_of("ula")
    record = worker(model_url, tmp_path, settings)(shard_items(settings, 5, 0)[0], "here")
    assert record["count"] == 5 and "cannot be written (no space left)" in caplog.text


def test_an_actor_killed_within_a_shard_costs_little_and_changes_nothing(ray_cluster: None, tmp_path: Path) -> None:
    """`kill -9` of a real actor, once it has written a checkpoint; one left by a second attempt goes with the end."""
    settings = SamplerSettings(name="kla", step_size=0.1, steps=900, chains=20, shard_size=20)
    url = save_small_model(str(tmp_path / "model"))
    request: dict[str, Any] = {"model_url": url, "settings": settings, "count": 40, "seed": 5, "actors": 1}
    whole = sample(**request, output=str(tmp_path / "whole"))
    folder, killed = tmp_path / "out" / FOLDER, []

    def kill(progress: FarmProgress) -> None:
        if not killed and progress.actor_pids and folder.exists() and os.listdir(folder):
            os.kill(progress.actor_pids[0], signal.SIGKILL)
            killed.append(progress.actor_pids[0])
            (folder / "shard-000000-0123456789abcdef.state").write_bytes(b"of a second attempt")

    made = sample(**request, output=str(tmp_path / "out"), checkpoint_seconds=0.05, progress=kill)
    assert killed
    records = list(made["shards"].values())
    assert [record["sha256"] for record in records] == [record["sha256"] for record in whole["shards"].values()]
    assert sum(record["seconds_taken_over"] > 0.04 for record in records) == 1
    names = {record["name"] for record in records} | {"manifest.json", "index.json", "summary.json"}
    assert set(os.listdir(tmp_path / "out")) == names
