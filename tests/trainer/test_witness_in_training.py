"""With the maximum mean discrepancy the energy is the witness, from the first log-partition to the last reading."""

from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from gebm.trainer.loop import TrainingJob
from gebm.trainer.metrics import read_metrics
from gebm.trainer.model import ModelSettings
from gebm.trainer.model.settings import ForeignSettings
from gebm.trainer.objectives import mmd
from gebm.trainer.state import TrainingState, initial_state
from gebm.trainer.watch.fixed_samples import real_samples, share_of_draws
from gebm.trainer.watch.watch import Watch
from gebm.trainer.workers import Workers
from tests.trainer.tiny_runs import MLP, read_checkpoint, run_alone, tiny_job, write_points, write_vectors

WATCH = {"every": 2, "images": 40, "draws": 64, "tensorboard": False}
DISTANCES = {"fid_every": 2, "fid_images": 40, "fid_chain_steps": 3, "extractor": {"name": "raw"}}


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("points")
    return {"data": write_points(folder / "train"), "validation": write_points(folder / "validation", 50, seed=1)}


def last_state(job: TrainingJob, shape: tuple[int, ...] = (2,)) -> TrainingState:
    state = initial_state(job.model, job.settings, shape, 0, Workers(Accelerator(cpu=True)))
    state.load_dict(read_checkpoint(job.run))
    state.model.base.eval()
    return state


@pytest.mark.parametrize("joint", [{"steps": 2, "warmup_steps": 0, "energy_steps": 1}, {"steps": 0}])
def test_each_phase_starts_its_log_partition_from_the_witness(joint, sets, tmp_path):
    """`c` hardly moves at this rate, so the first line of each phase shows where it came from."""
    every = {"log_every": 1, "checkpoint_every": 1, "log_partition_rate": 1e-9}
    run_alone(tiny_job(tmp_path, sets["data"], objective="mmd", joint=joint, energy={"steps": 2}, **every))
    rows = read_metrics(str(tmp_path))
    firsts = [
        row for before, row in zip([{"phase": None}, *rows], rows, strict=False) if before["phase"] != row["phase"]
    ]
    assert len(firsts) == 1 + (joint["steps"] > 0)
    for row in firsts:
        assert row["log_partition"] == pytest.approx(row["log_mean_exp"], abs=1e-6)
    assert rows[-1]["log_partition"] == pytest.approx(rows[-2]["log_partition"], abs=1e-6)
    assert rows[-1]["log_mean_exp"] != pytest.approx(rows[-2]["log_mean_exp"], abs=1e-4)


def test_kale_and_log_partition_are_read_of_the_witness(sets, tmp_path):
    """Pair by pair from the last checkpoint: KALE of the averaged network's features, `c` of the trained one's."""
    job = tiny_job(tmp_path, **sets, objective="mmd", watch=WATCH)
    run_alone(job)
    row, state, workers = read_metrics(job.run)[-1], last_state(job), Workers(Accelerator(cpu=True))
    latents, _ = share_of_draws(64, "watch-draws", 0, state, workers)
    points = {name: real_samples(url, 40, seed=0, rank=0, world=1, state=state).images for name, url in sets.items()}

    def energies(network: torch.nn.Module) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            x, v = (network.features(points[name]).double() for name in ("data", "validation"))
            y = network.features(state.model.base(latents)).double()

        def energy(at: torch.Tensor, i: int | None = None, j: int | None = None) -> float:
            others = [k for k in range(40) if k != i], [k for k in range(64) if k != j]
            return float(mmd.kernel(at[None], y[others[1]]).mean() - mmd.kernel(at[None], x[others[0]]).mean())

        return {
            "train": torch.tensor([energy(at, i=i) for i, at in enumerate(x)]),
            "validation": torch.tensor([energy(at) for at in v]),
            "fake": torch.tensor([energy(at, j=j) for j, at in enumerate(y)]),
        }

    averaged, trained = energies(state.energy_average), energies(state.model.energy_network.eval())
    c = (-averaged["fake"]).exp().mean().log()
    for name in ("train", "validation"):
        assert row[f"kale_{name}"] == pytest.approx(float(-averaged[name].mean() - c), abs=1e-6)
    assert row["log_partition_fresh"] == pytest.approx(float((-trained["fake"]).exp().mean().log()), abs=1e-6)
    assert row["log_partition_tracked"] == float(state.log_partition)
    assert row["kale_gap"] == pytest.approx(row["kale_train"] - row["kale_validation"], abs=1e-6)


def test_a_witness_of_features_that_have_learnt_nothing_finds_no_gap_between_training_and_validation(tmp_path):
    """Base and data of one law; 4 standard errors, a false alarm in 16,000 (seeds are fixed). The own kernels of the
    training points, left in, would make a gap of nearly 5/40 by themselves."""
    random = np.random.default_rng(0)
    x, v = (write_vectors(tmp_path / name, random.normal(size=(40, 8)).astype(np.float32)) for name in ("x", "v"))
    foreign = ForeignSettings(generator="torch.nn:Identity")
    model = MLP.model_copy(update={"base": "foreign", "foreign": foreign, "latent_dimension": 8})
    job = tiny_job(tmp_path, x, model=model, validation=v, objective="mmd", watch=WATCH)
    state = initial_state(model, job.settings, (8,), 0, Workers(Accelerator(cpu=True)))
    with torch.no_grad():
        state.model.energy_network.hidden[0].weight.mul_(30.0)  # features so far apart that a point is near itself only
    values = Watch(job, state, Workers(Accelerator(cpu=True))).read(last=True).values
    assert abs(values["kale_gap"]) < 4 * values["kale_gap_error"] and 4 * values["kale_gap_error"] < 0.1


def test_no_reading_depends_on_the_last_layer_that_mmd_does_not_train(make_shards, tmp_path):
    """KALE, `c`, the order of the pictures, and the FID of chains in the energy phase."""
    model = ModelSettings(network="mlp", latent_dimension=3, base_widths=(16,), energy_widths=(16,))
    digits: dict[str, Any] = {"data": make_shards(size=8), "validation": make_shards((40,), size=8, seed=1)}
    watch = WATCH | DISTANCES | {"grid_images": 16}
    job = tiny_job(tmp_path, **digits, model=model, objective="mmd", watch=watch)
    run_alone(job)
    state = last_state(job, (1, 8, 8))
    assert state.phase == "energy"

    def read() -> tuple[dict[str, float], bytes]:
        reading = Watch(job, state, Workers(Accelerator(cpu=True))).read(last=True)
        return reading.values, reading.picture.tobytes()

    before = read()
    assert {"kale_gap", "log_partition_fresh", "fid"} <= before[0].keys()
    with torch.no_grad():
        for network in (state.model.energy_network, state.energy_average):
            network.to_energy.weight.neg_().mul_(100.0)
    assert read() == before
    with torch.no_grad():  # and of what it does train, they do
        state.energy_average.hidden[0].weight.neg_()
    after = read()
    assert (
        after[1] != before[1] and after[0]["fid"] != before[0]["fid"] and after[0]["kale_gap"] != before[0]["kale_gap"]
    )
