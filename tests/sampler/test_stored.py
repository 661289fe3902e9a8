"""What is stored of a sample is what was asked for: its format, its latent, its energy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import webdataset

from gebm.cluster.errors import InputError
from gebm.cluster.index import build_index, load_index
from gebm.cluster.manifest import load_manifest
from gebm.cluster.reader import read_all
from gebm.sampler import SamplerSettings
from gebm.sampler.stored import StoreSettings
from gebm.sampler.work import make_shard_worker, publish_index, sample, shard_items
from gebm.trainer.model import ModelSettings, PriorSettings, build_model, load_model, save_model, to_stored

SETTINGS = SamplerSettings(name="mala", step_size=0.1, steps=5, chains=4, shard_size=7)
COUNT = 12
ALL = StoreSettings(format="npy", save=("latents", "energies"))
NETWORKS = {"base_widths": (6, 4), "energy_widths": (6,), "latent_dimension": 4}
CONDITIONAL_IMAGES = ModelSettings(conditional=True, **NETWORKS)
VECTORS = ModelSettings(network="mlp", **NETWORKS)
UNIFORM = ModelSettings(prior=PriorSettings(kind="uniform"), **NETWORKS)

Draw = Callable[..., str]


@pytest.fixture
def draw(tmp_path: Path) -> Draw:
    """Draws a set of a model with random weights, in this process."""

    def drawn(
        network: ModelSettings, shape: tuple[int, ...], store: StoreSettings, name: str = "set", **changes: Any
    ) -> str:
        settings = SamplerSettings.model_validate({**SETTINGS.model_dump(), **changes})
        classes = 3 if network.conditional else None
        save_model(build_model(network, shape, classes, seed=2), network, str(tmp_path / "model"))
        url, threads = str(tmp_path / name), torch.get_num_threads()
        work = make_shard_worker(str(tmp_path / "model"), url, settings, 0, "cpu", store)()
        publish_index(url, [work(item, "here") for item in shard_items(settings, COUNT, 3)])
        torch.set_num_threads(threads)
        return url

    return drawn


def fields(url: str) -> list[dict[str, Any]]:
    """All samples as WebDataset decodes them."""
    shards = [os.path.join(url, shard.name) for shard in load_index(url).shards]
    return list(webdataset.WebDataset(shards, shardshuffle=False).decode())


def test_raw_images_are_those_of_the_png_and_keep_their_labels(draw: Draw) -> None:
    png = draw(CONDITIONAL_IMAGES, (3, 8, 8), StoreSettings(), "png")
    npy = draw(CONDITIONAL_IMAGES, (3, 8, 8), StoreSettings(format="npy"), "npy")
    assert np.array_equal(read_all(png).images, read_all(npy).images)
    assert np.array_equal(read_all(png).labels, read_all(npy).labels)
    assert build_index(npy) == load_index(npy)
    decoded = fields(npy)
    assert {key for sample in decoded for key in sample if not key.startswith("__")} == {"npy", "cls"}
    assert decoded[0]["npy"].dtype == np.uint8 and decoded[0]["npy"].shape == (8, 8, 3)


@pytest.mark.parametrize("store", [ALL, StoreSettings(save=("energies", "latents"))])
@pytest.mark.parametrize(
    ("network", "shape", "changes"),
    [
        (CONDITIONAL_IMAGES, (3, 8, 8), {}),
        (UNIFORM, (1, 8, 8), {"samples_per_chain": 3, "thin": 2}),
        (CONDITIONAL_IMAGES, (1, 8, 8), {"name": "base"}),
        (VECTORS, (2,), {}),
    ],
    ids=["labels", "several a chain, uniform prior", "base", "vectors"],
)
def test_latents_and_energies_are_those_of_the_sample_beside_them(
    network: ModelSettings, shape: tuple[int, ...], changes: dict[str, Any], store: StoreSettings, draw: Draw
) -> None:
    if len(shape) == 1:
        store = store.model_copy(update={"format": "npy"})
    url = draw(network, shape, store, **changes)
    read, decoded, model = read_all(url), fields(url), load_model(str(Path(url).parent / "model"))
    latents = torch.from_numpy(np.stack([sample["latent.npy"] for sample in decoded]))
    energies = torch.from_numpy(np.stack([sample["energy.npy"] for sample in decoded]))
    assert latents.shape == (COUNT, 4) and latents.dtype == energies.dtype == torch.float32
    assert energies.shape == (COUNT,) and len({*energies.tolist()}) > 3
    labels = None if read.labels is None else torch.from_numpy(read.labels)
    made = model.generate(latents, labels)
    close = to_stored(made).numpy().astype(float) - read.images.astype(float)
    assert np.abs(close).max() <= (1 if len(shape) == 3 else 1e-5)
    torch.testing.assert_close(model.energy(made, labels), energies, rtol=1e-4, atol=1e-5)
    assert build_index(url) == load_index(url)


def test_what_is_stored_is_in_the_manifest_and_is_not_changed_half_way(ray_cluster: None, tmp_path: Path) -> None:
    save_model(build_model(UNIFORM, (1, 8, 8), seed=2), UNIFORM, str(tmp_path / "model"))
    out = str(tmp_path / "out")
    request: dict[str, Any] = {
        "model_url": str(tmp_path / "model"), "output": out, "settings": SETTINGS, "count": 3, "seed": 0, "actors": 1
    }  # fmt: skip
    sample(**request)
    manifest = load_manifest(out)
    assert manifest is not None and manifest.settings["stored"] == {"format": "png", "save": []}
    for store, difference in (
        (StoreSettings(format="npy"), r"stored\.format is 'png' there and 'npy' here"),
        (StoreSettings(save=("latents",)), r"stored\.save is \[\] there and \['latents'\] here"),
    ):
        with pytest.raises(InputError, match=difference):
            sample(**request, store=store)
    # Neither how often checkpoints are made nor a format that is spelt out is another run.
    sample(**request, store=StoreSettings(format="png"), checkpoint_seconds=1)
    with pytest.raises(InputError, match="--checkpoint-seconds 0: give a number above 0"):
        sample(**request, checkpoint_seconds=0)


def test_vectors_have_one_format_and_saved_fields_one_order() -> None:
    assert StoreSettings().of_samples((2,)).format == "npy" and StoreSettings().of_samples((1, 8, 8)).format == "png"
    with pytest.raises(InputError, match="--format png: the model makes vectors"):
        StoreSettings(format="png").of_samples((2,))
    assert StoreSettings(save=("latents", "energies", "latents")) == StoreSettings(save=("energies", "latents"))
