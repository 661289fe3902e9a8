"""Conditional and vector models: labels are drawn once, kept by their chains and stored; vectors are not rounded."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from gebm.cluster.errors import InputError
from gebm.cluster.image_form import AS_STORED
from gebm.cluster.index import build_index, load_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.reader import ImageBatch, read_all, read_shard
from gebm.cluster.shards import ShardRecord
from gebm.sampler import SamplerSettings, draw
from gebm.sampler.labels import draw_labels
from gebm.sampler.work import make_shard_worker, sample, shard_items, stored_samples
from gebm.trainer.model import GEBM, ModelSettings, build_model, freeze, load_model, save_model, to_stored

CLASSES, COUNT, SEED = 4, 90, 3
SETTINGS = SamplerSettings(name="mala", step_size=0.2, steps=6, chains=16, shard_size=20)
VECTORS = ModelSettings(network="mlp", latent_dimension=3, base_widths=(16,), energy_widths=(16,), conditional=True)
IMAGES = ModelSettings(
    network="resize_convnet", latent_dimension=4, base_widths=(6, 4), energy_widths=(6,), conditional=True
)


def loud(model: GEBM) -> GEBM:
    """The model with noise on its weights: freshly initialised, the gains and shifts of all classes are alike."""
    stream = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=stream), alpha=0.5)
    return freeze(model)


@pytest.fixture(scope="module")
def vector_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("run") / "model")
    save_model(loud(build_model(VECTORS, (2,), CLASSES, seed=1)), VECTORS, url)
    return url


@pytest.fixture(scope="module")
def image_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    url = str(tmp_path_factory.mktemp("run") / "model")
    save_model(loud(build_model(IMAGES, (1, 8, 8), CLASSES, seed=1)), IMAGES, url)
    return url


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, vector_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The shards of vectors that one actor made."""
    output = str(tmp_path_factory.mktemp("one"))
    made = sample(model_url=vector_url, output=output, settings=SETTINGS, count=COUNT, seed=SEED, actors=1)
    return {"output": output, **made}


def first_shard(model_url: str, output: Path, settings: SamplerSettings) -> ImageBatch:
    """The samples of the first shard, made in this process and read back."""
    threads = torch.get_num_threads()
    try:
        item = shard_items(settings, COUNT, SEED)[0]
        record = make_shard_worker(model_url, str(output), settings, 0, "cpu")()(item, "here")
    finally:
        torch.set_num_threads(threads)
    assert record["classes"] == CLASSES
    fields = {key: record[key] for key in ShardRecord.model_fields}
    return read_shard(str(output), ShardRecord.model_validate(fields), form=AS_STORED)


def test_two_actors_write_the_vectors_and_labels_of_one(undisturbed: dict, vector_url: str, tmp_path: Path) -> None:
    made = sample(model_url=vector_url, output=str(tmp_path), settings=SETTINGS, count=COUNT, seed=SEED, actors=2)
    assert [record["sha256"] for record in made["shards"].values()] == [
        record["sha256"] for record in undisturbed["shards"].values()
    ]


def test_samples_of_a_vector_model_are_a_labelled_set_of_vectors(undisturbed: dict, vector_url: str) -> None:
    index, batch = load_index(undisturbed["output"]), read_all(undisturbed["output"])
    assert (index.total, index.image_shape, index.classes) == (COUNT, (2,), CLASSES)
    assert batch.images.dtype == np.float32 and batch.images.shape == (COUNT, 2)
    assert batch.labels is not None and set(batch.labels.tolist()) == set(range(CLASSES))
    assert batch.images.std() > 0.1  # nothing was rounded to grey levels
    assert build_index(undisturbed["output"]) == index


def test_the_first_shard_of_a_process_of_its_own_is_that_of_the_farm(
    undisturbed: dict, vector_url: str, tmp_path: Path
) -> None:
    batch, whole = first_shard(vector_url, tmp_path, SETTINGS), read_all(undisturbed["output"], limit=20)
    assert batch.labels is not None and whole.labels is not None
    assert np.array_equal(batch.images, whole.images) and np.array_equal(batch.labels, whole.labels)


def test_labels_are_uniform_over_the_classes_and_change_with_the_seed(vector_url: str) -> None:
    """Chi-square over 4,000 labels, p > 1e-4 (the false-alarm rate)."""
    model = load_model(vector_url)
    first, second = (draw_labels(model, SETTINGS, 4000, torch.Generator().manual_seed(s)) for s in (0, 1))
    assert first is not None and second is not None and not torch.equal(first, second)
    assert stats.chisquare(torch.bincount(first, minlength=CLASSES).numpy()).pvalue > 1e-4


@pytest.mark.parametrize("url", ["vector_url", "image_url"])
def test_base_and_model_share_labels_and_latents(url: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The base's samples are `B(z, y)` of the very labels that are stored; a chain of no steps stays there."""
    model_url = request.getfixturevalue(url)
    base = first_shard(model_url, tmp_path / "base", SETTINGS.model_copy(update={"name": "base", "chains": 7}))
    model = first_shard(model_url, tmp_path / "model", SETTINGS)
    still = first_shard(model_url, tmp_path / "still", SETTINGS.model_copy(update={"steps": 0}))
    assert base.labels is not None and model.labels is not None and still.labels is not None
    assert np.array_equal(base.labels, model.labels) and np.array_equal(base.labels, still.labels)
    tolerance = 1 if base.images.dtype == np.uint8 else 1e-5
    assert np.allclose(base.images, still.images, atol=tolerance)
    assert not np.allclose(base.images, model.images, atol=tolerance)

    network = load_model(model_url)
    item = shard_items(SETTINGS, COUNT, SEED)[0]
    prior = network.sample_prior(20, torch.Generator().manual_seed(derive_seed(item.seed, "shard", "prior")))
    labels = torch.from_numpy(base.labels)
    expected, other = (to_stored(network.generate(prior, y)).numpy() for y in (labels, (labels + 1) % CLASSES))
    assert np.allclose(base.images, expected, atol=tolerance)
    assert not np.allclose(base.images, other, atol=tolerance)


@pytest.mark.parametrize("name", ["base", "ula", "ddls", "mala", "hmc", "kla", "rwmh", "imh", "dot"])
def test_every_sampler_keeps_the_one_class_that_it_is_asked_for(name: str, image_url: str, tmp_path: Path) -> None:
    settings = SamplerSettings(name=name, label=2, steps=3, chains=5, shard_size=9, step_size=0.01)
    labels = first_shard(image_url, tmp_path, settings).labels
    assert labels is not None and labels.tolist() == [2] * 9


class ShiftedByClass(nn.Module):
    """`B(z, y) = z + y`, and with it an energy `½ (y + 1) (x - 3)²` whose minimum and width depend on the class."""

    def __init__(self, energy: bool):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.is_energy = energy

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        if self.is_energy:
            return (labels + 1) * (x - 3).square().sum(1) / 2 * self.scale
        return x + labels[:, None] * self.scale


@pytest.mark.parametrize(
    "settings",
    [
        SamplerSettings(name="mala", step_size=0.15, steps=60, chains=3000),
        SamplerSettings(name="hmc", step_size=0.3, leapfrog_steps=4, steps=30, chains=3000),
        SamplerSettings(name="imh", steps=400, chains=3000),
        SamplerSettings(name="mala", step_size=0.15, steps=60, chains=3000, tempering={"hottest": 0.3, "rungs": 2}),
        SamplerSettings(name="mala", step_size=0.15, steps=90, chains=3000, anneal={"start": 0.3, "steps": 30}),
    ],
    ids=["mala", "hmc", "imh", "tempered", "annealed"],
)
def test_each_chain_has_the_law_of_its_own_label(settings: SamplerSettings) -> None:
    """`nu(z | y) ∝ N(z; 0, 1) exp(-½ (y + 1) (z + y - 3)²)` is normal: precision y + 2, mean (y + 1)(3 - y) / (y + 2).

    Kolmogorov-Smirnov on 1,000 chains of each class, three classes and five samplers: p > 1e-4, false alarm 1.5e-3.
    """
    model = freeze(GEBM(ShiftedByClass(False), ShiftedByClass(True), 1, (1,), classes=3))
    labels = torch.arange(3000) % 3
    points = draw(model, 3000, settings, labels=labels, seed=5)
    for label in range(3):
        latents = points[labels == label, 0].numpy() - label
        mean, deviation = (label + 1) * (3 - label) / (label + 2), 1 / math.sqrt(label + 2)
        assert stats.kstest(latents, stats.norm(mean, deviation).cdf).pvalue > 1e-4


def test_drawing_takes_labels_or_a_label_or_draws_them(vector_url: str) -> None:
    model = load_model(vector_url)
    settings = SamplerSettings(steps=2, chains=4)
    by_labels = draw(model, 6, settings, labels=torch.full((6,), 3), seed=1)
    assert by_labels.shape == (6, 2)
    assert torch.equal(by_labels, draw(model, 6, settings, label=3, seed=1))
    assert not torch.equal(by_labels, draw(model, 6, settings, seed=1))
    assert torch.equal(draw(model, 6, settings, seed=1), draw(model, 6, settings, seed=1))


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        (torch.zeros(5, dtype=torch.int64), {}, r"int64 of shape \(6,\), not torch.int64 \(5,\)"),
        (torch.zeros(6), {}, "not torch.float32"),
        (torch.full((6,), CLASSES), {}, "classes 0 to 3, not 4 to 4"),
        (torch.full((6,), -1), {}, "classes 0 to 3, not -1 to -1"),
        (torch.zeros(6, dtype=torch.int64), {"label": 1}, "give one of the two"),
        (None, {"label": CLASSES}, r"sampler\.label 4: the model's classes are 0 to 3"),
        (None, {"label": -1}, "label"),
    ],
)
def test_labels_that_the_model_does_not_have_are_refused(
    labels: Tensor | None, options: dict, message: str, vector_url: str
) -> None:
    with pytest.raises(ValueError, match=message):
        draw(load_model(vector_url), 6, labels=labels, **options)


def test_a_label_is_refused_before_anything_is_written(ray_cluster: None, vector_url: str, tmp_path: Path) -> None:
    plain = VECTORS.model_copy(update={"conditional": False})
    save_model(build_model(plain, (2,), seed=1), plain, str(tmp_path / "plain"))
    request = {"output": str(tmp_path / "out"), "count": 4, "seed": 0, "actors": 1}
    labelled = SETTINGS.model_copy(update={"label": 7})
    with pytest.raises(InputError, match=r"sampler\.label 7: the model is not conditional"):
        sample(model_url=str(tmp_path / "plain"), settings=labelled, **request)
    with pytest.raises(InputError, match=r"sampler\.label 7: the model's classes are 0 to 3"):
        sample(model_url=vector_url, settings=labelled, **request)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="not conditional"):
        draw(load_model(str(tmp_path / "plain")), 2, labels=torch.zeros(2, dtype=torch.int64))


def test_a_vector_that_is_not_finite_names_its_sample() -> None:
    values = np.array([[0.0, 1.0], [np.inf, 0.0]], dtype=np.float32)
    with pytest.raises(InputError, match=r"sample 41 is not finite.*smaller sampler\.step_size"):
        list(stored_samples(values, None, first=40))
