"""The model on disk and in memory."""

import shutil

import pytest
import safetensors.torch
import torch

from gebm.cluster.errors import InputError
from gebm.trainer.model import (
    ModelSettings,
    build_model,
    freeze,
    from_uint8,
    load_model,
    model_digest,
    save_model,
    to_uint8,
)

SMALL = ModelSettings(latent_dimension=8, base_widths=(16, 8, 8, 8), energy_widths=(8, 8, 16))
SHAPE = (1, 32, 32)


def test_pixels_survive_the_way_to_floats_and_back():
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    images = from_uint8(pixels)
    assert (float(images.min()), float(images.max())) == (-1.0, 1.0)
    assert torch.equal(to_uint8(images), pixels)
    assert torch.equal(to_uint8(torch.tensor([-3.0, 3.0])), torch.tensor([0, 255], dtype=torch.uint8))


def narrow(network: str, **more) -> ModelSettings:
    return ModelSettings(network=network, latent_dimension=10, width_factor=1 / 16, **more)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (SMALL, SHAPE),
        (narrow("sngan_convnet"), (3, 32, 32)),
        (narrow("sngan_resnet", conditional=True), (3, 32, 32)),
        (narrow("dcgan", conditional=True, feature_dimension=4), (1, 28, 28)),
        (ModelSettings(network="mlp"), (2,)),
        (ModelSettings(network="mlp", base="realnvp", conditional=True), (3,)),
    ],
    ids=lambda value: getattr(value, "network", None),
)
def test_a_saved_model_gives_the_same_images_and_energies(tmp_path, settings, shape):
    model = build_model(settings, shape, classes=5, seed=0)
    labels = model.sample_labels(4, torch.Generator().manual_seed(0))
    model.energy(torch.rand(4, *shape), labels)  # a training pass: the spectral norm's vectors have moved
    model.log_partition.fill_(-3.25)
    digest = save_model(model, settings, str(tmp_path / "model"), card="# card")
    loaded = load_model(str(tmp_path))  # a run folder is as good as its model/
    model.eval()
    z = model.sample_prior(4, torch.Generator().manual_seed(1))
    with torch.no_grad():
        images = model.generate(z, labels)
        torch.testing.assert_close(loaded.generate(z, labels), images, rtol=0, atol=1e-6)
        torch.testing.assert_close(loaded.energy(images, labels), model.energy(images, labels))
    assert (loaded.image_shape, loaded.classes, loaded.has_density) == (shape, model.classes, model.has_density)
    assert float(loaded.log_partition) == -3.25
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert not any("parametrizations" in name for name, _ in loaded.named_parameters())
    assert model_digest(str(tmp_path)) == digest
    assert (tmp_path / "model" / "README.md").read_text() == "# card"


def test_a_model_of_the_first_version_still_loads(tmp_path):
    """Its description knew neither classes nor kinds of base and energy; its tensors had these names."""
    model = build_model(SMALL, SHAPE, seed=0).eval()
    digest = save_model(model, SMALL, str(tmp_path / "model"))
    names = set(safetensors.torch.load_file(tmp_path / "model" / "weights.safetensors"))
    assert names == {
        "log_partition",
        "log_partition_error",
        "base.project.weight",
        "base.to_image.weight",
        "base.to_image.bias",
        "energy_network.to_energy.weight",
        *(f"base.convolutions.{k}.weight" for k in range(3)),
        *(f"energy_network.convolutions.{k}.{kind}" for k in range(3) for kind in ("weight", "bias")),
        *(
            f"base.{norm}.{kind}"
            for norm in ("project_norm", "norms.0", "norms.1", "norms.2")
            for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
        ),
    }
    (tmp_path / "model" / "model.toml").write_text(
        f"""format_version = 1
image_shape = [1, 32, 32]
weights_sha256 = "{digest}"

[network]
network = "resize_convnet"
latent_dimension = 8
base_widths = [16, 8, 8, 8]
energy_widths = [8, 8, 16]
"""
    )
    loaded, z = load_model(str(tmp_path)), torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.generate(z), model.generate(z).detach())


def test_weights_depend_on_the_seed_and_leave_the_global_random_state_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = (build_model(SMALL, SHAPE, seed=s).base.project.weight for s in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_prior_is_standard_normal():
    model = build_model(SMALL, SHAPE, seed=0)
    z = torch.randn(5, 8)
    expected = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(model.log_prior(z), expected)


def test_images_of_another_size_than_the_networks_are_refused():
    with pytest.raises(InputError, match=r"base_widths \[16, 8, 8, 8\] make images of 32 pixels, the data has 64"):
        build_model(SMALL, (1, 64, 64))
    with pytest.raises(
        InputError, match=r'"sngan_convnet" makes and reads images of 32x32, 48x48 or 64x64, the data has 28'
    ):
        build_model(ModelSettings(network="sngan_convnet"), (3, 28, 28))
    with pytest.raises(InputError, match="only square images"):
        build_model(SMALL, (1, 32, 16))


def test_a_damaged_missing_or_foreign_model_is_refused_with_its_name(tmp_path):
    save_model(build_model(SMALL, SHAPE, seed=0), SMALL, str(tmp_path / "model"))
    weights, description = tmp_path / "model" / "weights.safetensors", tmp_path / "model" / "model.toml"
    whole, text = weights.read_bytes(), description.read_text()

    weights.write_bytes(whole[:-4] + b"abcd")
    with pytest.raises(InputError, match=r"weights\.safetensors: damaged"):
        load_model(str(tmp_path))
    weights.write_bytes(whole)

    description.write_text(text.replace("latent_dimension = 8", "latent_dimension = 9"))
    with pytest.raises(InputError, match="another architecture"):
        load_model(str(tmp_path))
    description.write_text("network = [")
    with pytest.raises(InputError, match=r"model\.toml: not a model description"):
        load_model(str(tmp_path))
    description.write_text(text.replace("format_version = 1", "format_version = 99"))
    with pytest.raises(InputError, match="format_version 99"):
        load_model(str(tmp_path))
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(InputError, match=r"no model\.toml here"):
        load_model(str(tmp_path))


def test_freezing_folds_the_spectral_norm_without_changing_the_energy():
    model = build_model(ModelSettings(network="sngan_convnet", latent_dimension=4), (3, 32, 32), seed=0).eval()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = model.energy(images)
        torch.testing.assert_close(freeze(model).energy(images), before)
