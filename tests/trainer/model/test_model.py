"""The model on disk and in memory."""

import shutil

import pytest
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


@pytest.mark.parametrize(
    ("settings", "shape"), [(SMALL, SHAPE), (ModelSettings(network="sngan_convnet", latent_dimension=100), (3, 32, 32))]
)
def test_a_saved_model_gives_the_same_images_and_energies(tmp_path, settings, shape):
    model = build_model(settings, shape, seed=0)
    model.energy(torch.rand(4, *shape))  # a training pass: the spectral norm's vectors have moved
    model.log_partition.fill_(-3.25)
    digest = save_model(model, settings, str(tmp_path / "model"), card="# card")
    loaded = load_model(str(tmp_path))  # a run folder is as good as its model/
    model.eval()
    z = model.sample_prior(4, torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(loaded.generate(z), model.generate(z), rtol=0, atol=1e-6)
        torch.testing.assert_close(loaded.energy(loaded.generate(z)), model.energy(model.generate(z)))
    assert float(loaded.log_partition) == -3.25
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert not any("parametrizations" in name for name, _ in loaded.named_parameters())
    assert model_digest(str(tmp_path)) == digest
    assert (tmp_path / "model" / "README.md").read_text() == "# card"


def test_the_sngan_convnet_has_the_size_of_the_published_one():
    """Counted by hand from the list of layers in Miyato et al. (2018), table 3, with biases."""
    model = build_model(ModelSettings(network="sngan_convnet", latent_dimension=128), (3, 32, 32), seed=0)
    base = (128 + 1) * 8192 + 2 * 512 + sum((n * 16 + 1) * m + 2 * m for n, m in ((512, 256), (256, 128), (128, 64)))
    base += 64 * 9 * 3 + 3
    convolutions = (
        (3, 64, 9),
        (64, 128, 16),
        (128, 128, 9),
        (128, 256, 16),
        (256, 256, 9),
        (256, 512, 16),
        (512, 512, 9),
    )
    energy = sum((n * k + 1) * m for n, m, k in convolutions) + 8193
    assert sum(p.numel() for p in model.base.parameters()) == base
    assert sum(p.numel() for p in model.energy_network.parameters()) == energy


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
