"""The exported energy of a model that was trained with the maximum mean discrepancy."""

import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.trainer.model import GEBM, ModelSettings, WitnessEnergy, build_model, load_model, save_model
from gebm.trainer.objectives import mmd

SETTINGS = ModelSettings(network="sngan_convnet", latent_dimension=4, width_factor=1 / 32, feature_dimension=6)
SHAPE = (1, 32, 32)


def witness_model(settings: ModelSettings = SETTINGS, classes: int | None = None) -> GEBM:
    """A model that compares with 7 white images of the data and 5 of its own."""
    model = build_model(settings, SHAPE, classes, seed=0).eval()
    stream = torch.Generator().manual_seed(0)
    real_labels, fake_labels = model.sample_labels(7, stream), model.sample_labels(5, stream)
    real = 1 - 0.2 * torch.rand(7, *SHAPE, generator=stream)
    with torch.no_grad():
        fake = model.generate(model.sample_prior(5, stream), fake_labels)
        features = (model.energy_network.features(real, real_labels), model.energy_network.features(fake, fake_labels))
    model.energy_network = WitnessEnergy(model.energy_network, *features).eval()
    return model


def test_the_energy_is_the_mean_kernel_to_generated_images_minus_that_to_real_ones():
    model = witness_model()
    witness = model.energy_network
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        own = model.energy_network.features(images)
        energies = model.energy(images)

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        squared = float((a.double() - b.double()).square().sum())
        return sum((1 + squared / (2 * alpha)) ** -alpha for alpha in mmd.EXPONENTS)

    for phi, energy in zip(own, energies, strict=True):
        to_real = sum(kernel(phi, x) for x in witness.real_features) / 7
        to_fake = sum(kernel(phi, y) for y in witness.fake_features) / 5
        assert float(energy) == pytest.approx(to_fake - to_real, abs=1e-5)


def test_the_energy_is_low_on_what_looks_like_the_data_and_pulls_latents():
    model = witness_model()
    model.energy_network.network.to_energy.to_features.weight.data.mul_(20)
    white = torch.ones(4, *SHAPE) - 0.1
    latent = torch.randn(4, 4, generator=torch.Generator().manual_seed(2), requires_grad=True)
    with torch.no_grad():
        features = [model.energy_network.features(images) for images in (white, model.generate(latent))]
    model.energy_network = WitnessEnergy(model.energy_network.network, *features).eval()
    generated = model.energy(model.generate(latent))
    assert model.energy(white).max() < generated.min()
    generated.sum().backward()
    assert latent.grad is not None and (latent.grad != 0).any(1).all()


@pytest.mark.parametrize("conditional", [False, True])
def test_a_saved_witness_gives_the_same_energies_frozen(tmp_path, conditional):
    settings = SETTINGS.model_copy(update={"conditional": conditional})
    model = witness_model(settings, classes=3 if conditional else None)
    save_model(model, settings, str(tmp_path / "model"))
    loaded = load_model(str(tmp_path))
    images = torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([2, 0, 1]) if conditional else None
    with torch.no_grad():
        torch.testing.assert_close(loaded.energy(images, labels), model.energy(images, labels))
    assert not any("parametrizations" in name for name in loaded.state_dict())


def test_a_witness_without_its_references_is_refused(tmp_path):
    save_model(build_model(SETTINGS, SHAPE, seed=0), SETTINGS, str(tmp_path))
    description = tmp_path / "model.toml"
    description.write_text(description.read_text().replace('energy = "network"', 'energy = "witness"'))
    with pytest.raises(InputError, match=r"weights\.safetensors: weights of another architecture"):
        load_model(str(tmp_path))
