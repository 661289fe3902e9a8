"""Every packaged recipe: its networks fit the data that it is for, and its first rounds run, on shards of noise."""

from __future__ import annotations

import math
import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator

from gebm.cluster.index import build_index, load_index, write_index
from gebm.cluster.shards import encode_png, write_shard
from gebm.cluster.vectors import encode_vector
from gebm.launch.cli.data import app as data_commands
from gebm.launch.config import Recipe, load_recipe, recipe_names
from gebm.launch.data.sources import SOURCES, Content
from gebm.trainer.check import check_job
from gebm.trainer.loop import TrainingJob, train_worker
from gebm.trainer.metrics import read_metrics
from gebm.trainer.model import build_model, load_model
from gebm.trainer.schedules import Schedule
from gebm.trainer.workers import Workers

PAPERS = ["celeba", "cifar10_convnet", "cifar10_resnet", "imagenet32", "lsun_bedroom"]
PHASES = ("base", "joint", "energy")
FIRST_ROUNDS = (
    "trainer.batch_size=4",
    "trainer.lanes=4",
    "trainer.log_every=1",
    "trainer.checkpoint_every=1",
    "trainer.keep_checkpoints=1",
    "trainer.log_partition_draws=8",
    "trainer.batch_norm_draws=8",
    "trainer.joint.energy_steps=1",
    "trainer.joint.warmup_energy_steps=1",
    "trainer.watch.grid_images=4",
    "trainer.watch.images=8",
    "trainer.watch.draws=8",
    "trainer.watch.fid_every=0",
    "trainer.watch.tensorboard=false",
)


def header(name: str) -> str:
    """The comment that a recipe begins with."""
    text = (resources.files("gebm.launch.recipes") / f"{name}.toml").read_text(encoding="utf-8")
    return text[: text.index("\nname = ")]


def content(name: str, recipe: Recipe) -> Content:
    """What the recipe's data are, by its source or by the `gebm data` command of its header."""
    if recipe.data.source != "shards":
        return SOURCES[recipe.data.source].content(recipe.data)
    size = re.search(r"--size (\d+)", header(name))
    side = int(size[1]) if size else 32  # what `gebm data` makes when not told
    return Content((3, side, side), 10)


def write_noise(url: Path, data: Content, count: int = 16) -> str:
    """An indexed shard of noise; all classes are there when they are few."""
    random = np.random.default_rng(0)
    samples: list[dict[str, str | bytes]] = []
    for number in range(count):
        sample: dict[str, str | bytes] = {"__key__": f"{number:04d}"}
        if len(data.shape) == 1:
            sample["npy"] = encode_vector(random.normal(size=data.shape).astype(np.float32))
        else:
            channels, height, width = data.shape
            sample["png"] = encode_png(random.integers(0, 256, (height, width, channels), dtype=np.uint8))
        if data.classes is not None:
            sample["cls"] = b"%d" % (number % data.classes)
        samples.append(sample)
    url.mkdir()
    write_shard(str(url / "0.tar"), samples)
    write_index(str(url), build_index(str(url)))
    return str(url)


def first_rounds(name: str) -> Recipe:
    """The recipe with at most one round of each of its phases."""
    phases = load_recipe(name).trainer
    steps = [f"trainer.{phase}.steps={min(1, getattr(phases, phase).steps)}" for phase in PHASES]
    return load_recipe(name, [*FIRST_ROUNDS, *steps])


@pytest.mark.parametrize("name", recipe_names())
def test_the_networks_of_a_recipe_fit_its_data(name):
    recipe = load_recipe(name)
    shape, classes = content(name, recipe)
    model = build_model(recipe.model, shape, classes, seed=0)
    assert model.image_shape == shape
    assert (model.classes is not None) == recipe.model.conditional


@pytest.mark.parametrize("name", recipe_names())
def test_a_recipe_says_how_its_data_are_made(name):
    comment = header(name)
    assert all(line.startswith("#") for line in comment.splitlines())
    named = set(re.findall(r"`gebm data (\w+)", comment))
    assert named <= {command.name or command.callback.__name__ for command in data_commands.registered_commands}
    if load_recipe(name).data.source == "shards":
        assert named, f"{name}.toml reads shards and does not name the command that makes them"


@pytest.mark.parametrize("name", recipe_names())
def test_the_first_rounds_of_a_recipe_run(tmp_path, name):
    recipe = first_rounds(name)
    data = content(name, recipe)
    noise = write_noise(tmp_path / "noise", data)
    # The loop of a worker, without the group around it: a group starts in ten seconds, and the recipes are many.
    job = TrainingJob(
        run=str(tmp_path / "run"),
        data=noise,
        validation=noise,
        run_digest="noise",
        model=recipe.model,
        settings=recipe.trainer,
        seed=recipe.seed,
    )
    check_job(job, load_index(noise), workers=1)
    train_worker(job, Workers(Accelerator(cpu=True)), lambda record: None)
    rows = read_metrics(str(tmp_path / "run"))
    trained = [phase for phase in PHASES if getattr(recipe.trainer, phase).steps]
    assert [(row["round"], row["phase"]) for row in rows] == list(enumerate(trained, 1))
    assert all(math.isfinite(value) for row in rows for value in row.values() if isinstance(value, float))
    assert load_model(job.run).image_shape == data.shape


@pytest.mark.parametrize("name", PAPERS)
def test_the_image_recipes_have_the_settings_of_the_paper(name):
    recipe = load_recipe(name)
    assert recipe.model.network == ("sngan_resnet" if name == "cifar10_resnet" else "sngan_convnet")
    assert (recipe.model.latent_dimension, recipe.model.conditional) == (100, False)
    trainer, joint = recipe.trainer, recipe.trainer.joint
    assert (trainer.objective, trainer.batch_size, trainer.betas) == ("kale", 128, (0.5, 0.999))
    assert (joint.steps, joint.energy_steps, joint.warmup_energy_steps) == (150_000, 5, 100)
    assert (joint.warmup_steps, joint.warmup_every) == (2, 500)
    assert joint.base_learning_rate == joint.energy_learning_rate == 1e-4
    assert joint.base_schedule == joint.energy_schedule == Schedule(shape="step", factor=0.8, every=5000, times=30)
    assert joint.gradient_penalty == 1.0
    sampler = recipe.sampler
    assert (sampler.name, sampler.steps) == ("ula", 1000)
    assert (sampler.step_size, sampler.inverse_temperature) == (5e-5, 100.0)  # h = gamma / 2
    assert recipe.evaluation.extractor.name == "inception-v3-compat"
