"""Phases can be stacked in any way, and each is resumed to the bit."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gebm.cluster.errors import InputError
from gebm.trainer.metrics import read_metrics
from gebm.trainer.model import ModelSettings, load_model
from gebm.trainer.model.settings import ForeignSettings
from gebm.trainer.model.witness import WitnessEnergy
from tests.trainer.model.foreign_generators import TinyGenerator
from tests.trainer.tiny_runs import FLOW, MLP, read_checkpoint, run_alone, run_until, snapshot, tiny_job, write_points

BASE = {"base": {"steps": 6}}
ALL = BASE | {"log_every": 2, "checkpoint_every": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_points(tmp_path_factory.mktemp("points"))


def rounds_of_phases(run: Path) -> dict[str, list[int]]:
    phases: dict[str, list[int]] = {}
    for row in read_metrics(str(run)):
        phases.setdefault(row["phase"], []).append(row["round"])
    return phases


def weights(run: Path, network: str) -> dict[str, torch.Tensor]:
    tensors = load_file(run / "model" / "weights.safetensors")
    return {name: tensor for name, tensor in tensors.items() if name.startswith(f"{network}.")}


def checkpointed(run: Path, round_number: int, network: str) -> dict[str, torch.Tensor]:
    return read_checkpoint(run, round_number)["networks"][network]


def test_three_phases_follow_each_other_and_the_model_is_a_normalised_density(data, tmp_path):
    run_alone(tiny_job(tmp_path, data, model=FLOW, **ALL))
    assert rounds_of_phases(tmp_path) == {"base": [2, 4, 6], "joint": [8, 10, 12, 14], "energy": [16, 18, 20]}
    rows = read_metrics(str(tmp_path))
    assert {"negative_log_likelihood", "base_gradient_norm", "learning_rate_base"} <= rows[0].keys()
    assert {"energy_gap", "base_loss", "learning_rate_base", "learning_rate_energy"} <= rows[4].keys()
    assert "learning_rate_base" not in rows[-1] and rows[-1]["energy_gradient_norm"] > 0
    model = load_model(str(tmp_path))
    assert model.has_density
    # The integral of p over the plane, on a grid that holds nearly all of a barely trained flow's mass.
    axis = torch.linspace(-8, 8, 401)
    points = torch.cartesian_prod(axis, axis)
    total = float(model.log_density(points).double().exp().sum() * (axis[1] - axis[0]) ** 2)
    assert total == pytest.approx(1.0, abs=5 * float(model.log_partition_error) + 0.02)


def test_maximum_likelihood_raises_the_likelihood(data, tmp_path):
    phases = {"base": {"steps": 60, "learning_rate": 1e-3}, "joint": {"steps": 0}, "energy": {"steps": 0}}
    run_alone(tiny_job(tmp_path, data, model=FLOW, **phases))
    rows = read_metrics(str(tmp_path))
    assert {row["phase"] for row in rows} == {"base"}
    assert rows[-1]["negative_log_likelihood"] < rows[0]["negative_log_likelihood"] - 0.25


@pytest.mark.parametrize("round_number", [4, 8, 12, 16])
def test_a_run_killed_in_any_phase_ends_like_one_that_was_not(round_number, data, tmp_path):
    calm, stormy = (tiny_job(tmp_path / name, data, model=FLOW, **ALL) for name in ("calm", "stormy"))
    run_alone(calm)
    run_until(stormy, round_number)
    run_alone(stormy)
    assert snapshot(stormy) == snapshot(calm)


def test_the_energy_phase_leaves_the_base_as_it_is(data, tmp_path):
    run_alone(tiny_job(tmp_path, data, keep_checkpoints=9))
    before, after = (checkpointed(tmp_path, number, "base_average") for number in (8, 14))
    assert all(torch.equal(before[name], after[name]) for name in before)
    before, after = (checkpointed(tmp_path, number, "energy") for number in (8, 14))
    assert not all(torch.equal(before[name], after[name]) for name in before)


@pytest.fixture
def foreign(tmp_path) -> ModelSettings:
    """Someone else's generator of 8x8 images, with batch norm, its weights in a file."""
    torch.manual_seed(5)
    generator = TinyGenerator().train()
    generator(torch.randn(64, 4))  # gives the batch norm statistics of its own
    torch.save(generator.state_dict(), tmp_path / "generator.pt")
    settings = ForeignSettings(
        generator="tests.trainer.model.foreign_generators:TinyGenerator", weights=str(tmp_path / "generator.pt")
    )
    return ModelSettings(network="mlp", base="foreign", foreign=settings, latent_dimension=4, energy_widths=(16,))


def test_energy_alone_on_a_foreign_base_leaves_its_weights_and_statistics_alone(foreign, make_shards, tmp_path):
    digits = make_shards(size=8)
    calm, stormy = (tiny_job(tmp_path / name, digits, model=foreign, joint={"steps": 0}) for name in ("calm", "stormy"))
    run_alone(calm)
    assert rounds_of_phases(tmp_path / "calm") == {"energy": [2, 4, 6]}
    given = torch.load(tmp_path / "generator.pt", weights_only=True)
    exported = weights(tmp_path / "calm", "base")
    assert len(exported) == len(given)
    assert all(torch.equal(exported[f"base.generator.{name}"], tensor) for name, tensor in given.items())
    assert load_model(calm.run).log_partition_error > 0
    run_until(stormy, 4)
    run_alone(stormy)
    assert snapshot(stormy) == snapshot(calm)


def test_a_foreign_base_is_trained_on_when_the_joint_phase_has_steps(foreign, make_shards, tmp_path):
    run_alone(tiny_job(tmp_path / "run", make_shards(size=8), model=foreign, joint={"steps": 2}, energy={"steps": 2}))
    given = torch.load(tmp_path / "generator.pt", weights_only=True)
    assert not torch.equal(weights(tmp_path / "run", "base")["base.generator.linear.weight"], given["linear.weight"])


def without_weights() -> torch.nn.Module:
    return torch.nn.Tanh()


def test_a_base_without_weights_can_be_given_an_energy_but_cannot_be_trained(data, tmp_path):
    settings = ForeignSettings(generator="tests.trainer.test_phases:without_weights")
    model = MLP.model_copy(update={"base": "foreign", "foreign": settings})
    with pytest.raises(InputError, match=r"trainer\.joint\.steps = 8: the base has no weights to train"):
        run_alone(tiny_job(tmp_path, data, model=model))
    run_alone(tiny_job(tmp_path, data, model=model, joint={"steps": 0}))
    assert load_model(str(tmp_path)).log_partition_error > 0


def test_a_conditional_model_is_trained_on_the_labels_of_the_data(tmp_path):
    labelled = write_points(tmp_path / "points", labels=True)
    model = FLOW.model_copy(update={"conditional": True})
    run_alone(tiny_job(tmp_path / "run", labelled, model=model, **ALL))
    trained = load_model(str(tmp_path / "run"))
    assert trained.classes == 2
    points = torch.zeros(2, 2)
    first, second = trained.energy(points, torch.tensor([0, 1]))
    assert first != second


def test_labels_that_are_missing_are_refused_before_anything_starts(data, tmp_path):
    conditional = MLP.model_copy(update={"conditional": True})
    with pytest.raises(InputError, match=r"model\.conditional = true, but the data has no labels"):
        run_alone(tiny_job(tmp_path / "run", data, model=conditional))
    labelled = write_points(tmp_path / "points", labels=True)
    with pytest.raises(InputError, match=r"conditional = true needs its labels, of the 2 classes .* it has none"):
        run_alone(tiny_job(tmp_path / "run", labelled, model=conditional, validation=data))
    assert not (tmp_path / "run").exists()


def test_training_with_mmd_hands_over_the_witness(data, tmp_path):
    run_alone(tiny_job(tmp_path, data, objective="mmd", witness_samples=64))
    model = load_model(str(tmp_path))
    assert isinstance(model.energy_network, WitnessEnergy)
    assert model.energy_network.real_features.shape[0] == 64
    assert model.log_partition_error > 0 and model.energy(torch.zeros(3, 2)).shape == (3,)


def test_without_phases_that_have_steps_there_is_nothing_to_train():
    with pytest.raises(ValueError, match="all 0: give at least one of them steps"):
        tiny_job(Path("x"), "y", joint={"steps": 0}, energy={"steps": 0})


def test_maximum_likelihood_of_a_base_without_density_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"trainer\.base\.steps = 6: maximum likelihood needs a base with a density"):
        run_alone(tiny_job(tmp_path, data, **BASE))
    assert not list(tmp_path.iterdir())
