"""Training runs on a real Ray Train group: two workers, faults, and inputs that cannot be used."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.evaluation.extractors import ExtractorSettings
from gebm.trainer.driver import TrainResult, train
from gebm.trainer.guard import TrainingDivergedError
from gebm.trainer.metrics import read_metrics
from gebm.trainer.model import ModelSettings, load_model
from gebm.trainer.settings import EnergyPhase, JointPhase, TrainerSettings, WatchSettings
from gebm.trainer.watch.grids import grids
from tests.trainer.test_callbacks import SEEN

MODEL = ModelSettings(latent_dimension=8, base_widths=(8, 8, 8, 8), energy_widths=(8, 8, 8))
SETTINGS = TrainerSettings(
    batch_size=16,
    lanes=8,
    log_every=2,
    checkpoint_every=4,
    log_partition_draws=256,
    batch_norm_draws=64,
    joint=JointPhase(steps=10, warmup_energy_steps=3, warmup_steps=1),
    energy=EnergyPhase(steps=6, chain_steps=2),
    # Two workers take the readings together: on pixels, for a quick FID.
    watch=WatchSettings(
        images=32, draws=64, fid_every=8, fid_images=32, fid_chain_steps=1, extractor=ExtractorSettings(name="raw")
    ),
    callbacks=("tests.trainer.test_callbacks:remember",),
)


def run(out: Path | str, data: str, **changes: Any) -> TrainResult:
    arguments = {"run": str(out), "data": data, "model": MODEL, "settings": SETTINGS, "seed": 0, "workers": 2}
    return train(**{**arguments, "validation": data, **changes})


def snapshot(out: Path | str) -> tuple[list[dict[str, Any]], str]:
    return read_metrics(str(out)), storage.sha256(storage.join(str(out), "model", "weights.safetensors"))


@pytest.fixture(scope="module")
def data(ray_cluster, tmp_path_factory) -> str:
    """One shard set and one undisturbed run on it, for all tests of this file."""
    from gebm.cluster.index import build_index, write_index
    from gebm.cluster.shards import encode_png, write_shard
    from tests.conftest import draw_digit

    url = tmp_path_factory.mktemp("digits")
    random = np.random.default_rng(0)
    for number in range(2):
        images = [(k, draw_digit(k % 10, 32, 1, random)) for k in range(50)]
        write_shard(str(url / f"{number}.tar"), [{"__key__": f"{number}-{k}", "png": encode_png(i)} for k, i in images])
    write_index(str(url), build_index(str(url)))
    return str(url)


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    SEEN.clear()
    run(out, data)
    return out


def test_a_run_trains_both_phases_is_watched_and_exports_a_model(undisturbed):
    rows = read_metrics(str(undisturbed))
    assert [(row["phase"], row["round"]) for row in rows] == [
        *(("joint", k) for k in (2, 4, 6, 8, 10)),
        *(("energy", k) for k in (12, 14, 16)),
    ]
    assert all(row["base_loss"] for row in rows if row["phase"] == "joint")
    assert [row["round"] for row in rows if "fid" in row] == [8, 10, 16]
    # The validation set is the training set here: the same images from all over it, so the same KALE.
    kales = [(row["kale_train"], row["kale_validation"]) for row in rows if "kale_gap" in row]
    assert len(kales) == 5 and all(train == validation for train, validation in kales)
    assert [record["round"] for record in SEEN] == [row["round"] for row in rows]
    assert list(grids(str(undisturbed))) == [4, 8, 10, 12, 16]
    assert {row["round"] for row in read_metrics(str(undisturbed), "timings")} == {row["round"] for row in rows}
    assert len(list((undisturbed / "checkpoints").glob("round-*"))) == SETTINGS.keep_checkpoints
    assert not (undisturbed / ".ray-train").exists()
    model = load_model(str(undisturbed))
    images = model.generate(model.sample_prior(4, torch.Generator().manual_seed(0)))
    assert images.shape == (4, 1, 32, 32) and float(model.log_partition_error) > 0
    assert "Log-partition" in (undisturbed / "model" / "README.md").read_text()


def test_the_exported_log_partition_belongs_to_the_exported_pair(undisturbed):
    """Against a fresh Monte-Carlo estimate: both errors are known; 4 of them together are allowed (1 in 16,000)."""
    model = load_model(str(undisturbed))
    minus_energy = -model.energy(model.generate(model.sample_prior(4000, torch.Generator().manual_seed(9)))).double()
    fresh = torch.logsumexp(minus_energy, 0) - torch.log(torch.tensor(4000.0))
    error = torch.exp(minus_energy - fresh).std() / 4000**0.5
    allowed = 4 * (float(error) ** 2 + float(model.log_partition_error) ** 2) ** 0.5
    assert abs(float(fresh) - float(model.log_partition)) < allowed


def test_a_finished_run_is_recognised(undisturbed, data):
    before = storage.sha256(str(undisturbed / "model" / "weights.safetensors"))
    assert run(undisturbed, data).already_finished
    assert storage.sha256(str(undisturbed / "model" / "weights.safetensors")) == before


def test_another_runs_directory_is_refused_before_anything_starts(undisturbed, data):
    with pytest.raises(InputError, match=r"manifest\.json: run_digest.*another model"):
        run(undisturbed, data, seed=1)


HOLD = """
import sys, time
from gebm.cluster.lease import held
with held(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_run_that_another_process_trains_in_is_refused(data, tmp_path):
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None and other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match=rf"{tmp_path} is in use: .*process {other.pid} "):
            run(tmp_path, data)
    finally:
        other.kill()
        other.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["lease.json"]


def test_batches_that_workers_cannot_share_are_refused(data, tmp_path):
    with pytest.raises(InputError, match="workers cannot share equally"):
        run(tmp_path / "run", data, settings=SETTINGS.model_copy(update={"batch_size": 15}))
    assert not (tmp_path / "run").exists()


def test_divergence_of_two_workers_rolls_back_and_then_stops_the_run_and_names_the_round(data, tmp_path):
    wild = SETTINGS.joint.model_copy(update={"energy_learning_rate": 30.0, "gradient_penalty": 0.0, "steps": 200})
    settings = SETTINGS.model_copy(update={"joint": wild, "energy_limit": 1e7, "rollbacks": 1})
    events: list[dict[str, Any]] = []
    with pytest.raises(TrainingDivergedError, match=r"training diverged in round \d+: .*last good checkpoint is kept"):
        run(tmp_path / "run", data, settings=settings, progress=events.append)
    assert any("back at round" in record.get("event", "") for record in events)
    assert not (tmp_path / "run" / "model").exists()
