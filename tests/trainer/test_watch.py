"""What is seen of a run is right, and looking changes nothing."""

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.reader import read_all
from gebm.evaluation.frechet import FrechetStatistics, frechet_distance
from gebm.trainer.loop import TrainingJob
from gebm.trainer.metrics import TIMINGS, read_metrics
from gebm.trainer.model import ModelSettings, load_model
from gebm.trainer.model.settings import ForeignSettings
from gebm.trainer.state import TrainingState, initial_state
from gebm.trainer.watch.fixed_samples import apply_in_chunks, real_samples, share, share_of_draws
from gebm.trainer.watch.grids import grids
from gebm.trainer.workers import Workers
from tests.trainer.tiny_runs import (
    FLOW,
    read_checkpoint,
    run_alone,
    run_until,
    snapshot,
    tiny_job,
    write_points,
    write_vectors,
)

ALL = {"every": 2, "images": 40, "draws": 64, "fid_every": 2, "fid_images": 40, "extractor": {"name": "raw"}}
# Batch norm in the base and spectral norms in the energy: what a look could change if it were careless.
CONV = ModelSettings(network="sngan_convnet", latent_dimension=4, width_factor=1 / 64)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


@pytest.fixture(scope="module")
def validation(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("validation"), count=50, seed=1)


def last_state(job: TrainingJob) -> TrainingState:
    state = initial_state(job.model, job.settings, (2,), 0, Workers(Accelerator(cpu=True)))
    state.load_dict(read_checkpoint(job.run))
    return state


def test_watching_changes_the_training_by_not_one_bit(make_shards, tmp_path):
    digits, held_out = make_shards(), make_shards((40,), seed=1)
    short = {"joint": {"steps": 4, "warmup_steps": 0}, "energy": {"steps": 4}}
    everything = ALL | {"grid_images": 9, "fid_chain_steps": 2, "extractor": {"name": "raw"}, "tensorboard": True}
    seen = tiny_job(tmp_path / "seen", digits, model=CONV, validation=held_out, watch=everything, **short)
    unseen = tiny_job(tmp_path / "unseen", digits, model=CONV, **short)
    run_alone(seen)
    run_alone(unseen)
    rows, plain = read_metrics(seen.run), read_metrics(unseen.run)
    assert all("fid" in row and "log_partition_fresh" in row for row in rows)
    assert [{name: row[name] for name in bare} for row, bare in zip(rows, plain, strict=True)] == plain
    assert snapshot(seen)[1] == snapshot(unseen)[1]


def test_readings_of_a_run_that_was_killed_are_those_of_one_that_was_not(data, validation, tmp_path):
    calm, stormy = (
        tiny_job(tmp_path / name, data, model=FLOW, validation=validation, base={"steps": 4}, watch=ALL)
        for name in ("calm", "stormy")
    )
    run_alone(calm)
    for round_number in (2, 10, 16):
        run_until(stormy, round_number)
    run_alone(stormy)
    assert snapshot(stormy) == snapshot(calm)


def test_kale_is_taken_on_as_many_training_as_validation_images_and_the_same_fakes(data, validation, tmp_path):
    """Against the definition, from the last checkpoint: F(E, c) at the best c of the generated points."""
    job = tiny_job(tmp_path, data, validation=validation, watch=ALL | {"images": 512})
    run_alone(job)
    row, state, workers = read_metrics(job.run)[-1], last_state(job), Workers(Accelerator(cpu=True))
    latents, _ = share_of_draws(64, "watch-draws", 0, state, workers)
    with torch.no_grad():
        fake = state.energy_average(state.model.base.eval()(latents)).double()
        c = torch.log(torch.exp(-fake).mean())
        sets = {
            name: real_samples(url, 50, seed=0, rank=0, world=1, state=state).images  # 50: all that validation has
            for name, url in (("train", data), ("validation", validation))
        }
        on = {name: state.energy_average(images).double() for name, images in sets.items()}
    for name in on:
        bound = -(on[name] + c).mean() - torch.exp(-(fake + c)).mean() + 1
        assert row[f"kale_{name}"] == pytest.approx(float(bound), abs=1e-6)
    assert row["kale_gap"] == pytest.approx(row["kale_train"] - row["kale_validation"], abs=1e-6)
    error = math.sqrt(sum(float(values.var()) / 50 for values in on.values()))
    assert row["kale_gap_error"] == pytest.approx(error, rel=1e-5)
    assert len(torch.unique(sets["validation"], dim=0)) == 50


def test_memorisation_shows_in_kale(tmp_path):
    """Data, base and validation data have one law, N(0, I): all that the energy finds in 96 points is by heart.

    Seen on three seeds of the points: a gap of 6.5 to 7.7 standard errors.
    """
    random = np.random.default_rng(0)
    few, held_out = (
        write_vectors(tmp_path / name, random.normal(size=(96, 32)).astype(np.float32)) for name in ("few", "held-out")
    )
    foreign = ForeignSettings(generator="torch.nn:Identity")
    model = ModelSettings(network="mlp", base="foreign", foreign=foreign, latent_dimension=32, energy_widths=(128,))
    energy = {"steps": 150, "learning_rate": 3e-3, "gradient_penalty": 0.05, "energy_average": 0.9}
    watch = {"every": 150, "images": 96, "draws": 512, "tensorboard": False}
    phases = {"joint": {"steps": 0}, "energy": energy}
    run_alone(tiny_job(tmp_path / "run", few, model=model, validation=held_out, watch=watch, **phases))
    row = read_metrics(str(tmp_path / "run"))[-1]
    assert row["kale_gap"] > 5 * row["kale_gap_error"] and row["kale_train"] > 0 > row["kale_validation"]


def test_the_fresh_log_partition_is_that_of_other_draws_within_its_error(data, tmp_path):
    """4 standard errors of both together: a false alarm in 16,000 (the seed is fixed)."""
    job = tiny_job(tmp_path, data, watch=ALL | {"draws": 2000, "fid_every": 0})
    run_alone(job)
    row, state = read_metrics(job.run)[-1], last_state(job)
    assert row["log_partition_tracked"] == float(state.log_partition)
    draws = torch.randn(4000, 2, generator=torch.Generator().manual_seed(7))
    with torch.no_grad():
        weights = torch.exp(-state.model.energy_network(state.model.base.eval()(draws)).double())
    estimate, error = float(weights.mean().log()), float(weights.std() / weights.mean() / 4000**0.5)
    assert abs(row["log_partition_fresh"] - estimate) < 4 * math.hypot(row["log_partition_fresh_error"], error)
    assert 0 < row["log_partition_fresh_error"] < 0.1


def test_fid_at_the_end_of_the_joint_phase_is_that_of_the_exported_base(data, validation, tmp_path):
    job = tiny_job(tmp_path, data, validation=validation, energy={"steps": 0}, watch=ALL)
    run_alone(job)
    model, workers = load_model(job.run), Workers(Accelerator(cpu=True))
    latents, _ = share_of_draws(40, "watch-fid", 0, last_state(job), workers)
    real = real_samples(validation, 40, seed=0, rank=0, world=1, state=last_state(job)).images.numpy()
    expected = frechet_distance(FrechetStatistics.of(model.generate(latents).numpy()), FrechetStatistics.of(real))
    row = read_metrics(job.run)[-1]
    assert row["fid"] == pytest.approx(expected, rel=1e-5) and math.isfinite(row["kid"])


def test_fid_in_the_energy_phase_is_that_of_chains_of_the_model_where_they_are_asked_for(data, validation, tmp_path):
    readings = {}
    for steps in (0, 5):
        job = tiny_job(tmp_path / str(steps), data, validation=validation, watch=ALL | {"fid_chain_steps": steps})
        run_alone(job)
        readings[steps] = [row.get("fid") for row in read_metrics(job.run) if row["phase"] == "energy"]
    assert readings[0] == [None] * 3
    assert all(readings[5]) and len(set(readings[5])) == 3


def test_grids_are_pictures_of_fixed_latents_at_intervals(make_shards, tmp_path):
    model = ModelSettings(network="mlp", latent_dimension=3, base_widths=(16,), energy_widths=(16,))
    job = tiny_job(tmp_path, make_shards(size=8), model=model, watch={"every": 4, "grid_images": 9})
    run_alone(job)
    assert list(grids(job.run)) == [4, 8, 12, 14]
    pictures = {
        number: np.asarray(Image.open(io.BytesIO(storage.read_bytes(url)))) for number, url in grids(job.run).items()
    }
    assert {picture.shape for picture in pictures.values()} == {(3 * 8 + 2, 3 * 8 + 2, 4)}
    assert not np.array_equal(pictures[4], pictures[8])
    # In the energy phase the base stands still: the same nine images, in another order.
    tiles = {number: sorted_tiles(picture) for number, picture in pictures.items()}
    assert tiles[4] != tiles[8] == tiles[12] == tiles[14]
    assert not np.array_equal(pictures[8], pictures[12])


def sorted_tiles(picture: np.ndarray) -> list[bytes]:
    corners = [(top, left) for top in range(0, 26, 9) for left in range(0, 26, 9)]
    return sorted(picture[top : top + 8, left : left + 8].tobytes() for top, left in corners)


def test_grids_beyond_the_checkpoint_of_a_resumed_run_are_dropped(make_shards, tmp_path):
    model = ModelSettings(network="mlp", latent_dimension=3, base_widths=(16,), energy_widths=(16,))
    job = tiny_job(tmp_path, make_shards(size=8), model=model, watch={"every": 2, "grid_images": 4})
    run_until(job, 6)
    assert list(grids(job.run)) == [2, 4, 6]
    run_until(job, 6)  # from the checkpoint of round 4
    assert list(grids(job.run)) == [2, 4, 6]
    (Path(job.run) / "metrics" / "grids" / "round-00000010.png").write_bytes(b"of a run that was longer")
    run_until(job, 6)
    assert list(grids(job.run)) == [2, 4, 6]


@pytest.mark.parametrize("where", ["local", "memory"])
def test_tensorboard_reads_the_metrics_of_the_run(where, data, tmp_path):
    """On storage that cannot append, the files are written elsewhere and published."""
    run = str(tmp_path / "run") if where == "local" else "memory://watched-run"
    job = tiny_job(Path("unused"), data, watch={"every": 4, "tensorboard": True})
    job = TrainingJob(run, data, None, "digest", job.model, job.settings, seed=0)
    run_alone(job)
    folder = tmp_path / "copy"
    folder.mkdir()
    for name in storage.list_names(storage.join(run, "tensorboard")):
        (folder / name).write_bytes(storage.read_bytes(storage.join(run, "tensorboard", name)))
    events = EventAccumulator(str(folder)).Reload()
    rows = read_metrics(run)
    for name in ("critic_loss", "energy_gap", "learning_rate_energy"):
        seen = [(event.step, event.value) for event in events.Scalars(name)]
        assert seen == [(row["round"], pytest.approx(row[name], rel=1e-6)) for row in rows]
    assert [event.step for event in events.Scalars("images_per_second")] == [row["round"] for row in rows]
    assert [event.step for event in events.Scalars("log_partition_fresh")] == [4, 8, 12, 14]


def test_what_tensorboard_saw_beyond_the_checkpoint_is_void_after_a_resume(data, tmp_path):
    job = tiny_job(tmp_path, data, watch={"every": 4, "tensorboard": True})
    run_until(job, 6)
    run_alone(job)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("critic_loss")] == [2, 4, 6, 8, 10, 12, 14]


def test_workers_share_the_samples_that_one_would_see(data, validation):
    state = initial_state(FLOW, tiny_job(Path("x"), data).settings, (2,), 0, Workers(Accelerator(cpu=True)))

    class OneOf(Workers):
        def __init__(self, rank: int, world: int):
            self.rank, self.world, self.device = rank, world, torch.device("cpu")

    whole = real_samples(validation, 48, seed=3, rank=0, world=1, state=state).images
    parts = [real_samples(validation, 48, seed=3, rank=rank, world=2, state=state).images for rank in range(2)]
    assert torch.equal(torch.sort(torch.cat(parts), dim=0)[0], torch.sort(whole, dim=0)[0])
    draws = share_of_draws(9, "stage", 3, state, OneOf(0, 1))[0]
    halves = [share_of_draws(9, "stage", 3, state, OneOf(rank, 2))[0] for rank in range(2)]
    assert torch.equal(torch.stack(halves, 1).flatten(0, 1), draws[:8])
    assert [share(9, OneOf(rank, 2)).tolist() for rank in range(2)] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_a_network_is_looked_at_in_evaluation_mode_and_left_in_its_own():
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2)).train()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    inputs = torch.randn(300, 2, generator=torch.Generator().manual_seed(0))
    seen = apply_in_chunks(network, inputs, None)
    assert network.training and not seen.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    torch.testing.assert_close(seen, network.eval()(inputs))


def test_timings_leave_the_watching_out(data, validation, tmp_path):
    job = tiny_job(tmp_path, data, validation=validation, watch=ALL)
    run_alone(job)
    for row in read_metrics(job.run, TIMINGS):
        assert row["watch_seconds"] > 0 and row["seconds"] > 0 and row["images_per_second"] > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"watch": {"fid_every": 2}}, r"watch\.fid_every: FID is taken on validation samples"),
        (
            {"energy": {"steps": 2, "schedule": {"shape": "plateau", "metric": "kale"}}},
            r"trainer\.energy\.schedule: a plateau schedule reads kale on validation samples",
        ),
    ],
)
def test_what_needs_validation_samples_is_refused_without_them(changes: dict[str, Any], message, data, tmp_path):
    with pytest.raises(InputError, match=message):
        run_alone(tiny_job(tmp_path / "run", data, **changes))
    assert not (tmp_path / "run").exists()


def test_readings_that_would_fall_between_lines_are_refused():
    with pytest.raises(ValueError, match=r"watch\.fid_every \(3\) must be a multiple of log_every \(2\)"):
        tiny_job(Path("x"), "y", watch={"fid_every": 3})


def test_an_extractor_that_cannot_read_vectors_is_refused_before_anything_starts(data, validation, tmp_path):
    with pytest.raises(InputError, match="efficientnet-lite0 reads images"):
        run_alone(tiny_job(tmp_path / "run", data, validation=validation, watch={"fid_every": 2}))
    assert read_all(validation, 1).images.shape == (1, 2)
