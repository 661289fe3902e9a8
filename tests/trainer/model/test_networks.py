"""Every family at every size: shapes, ranges, gradients, seeds, labels, features."""

import math

import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from gebm.cluster.errors import InputError
from gebm.trainer.model import ModelSettings, build_model, freeze
from gebm.trainer.model.networks.energy_head import EnergyHead
from gebm.trainer.model.networks.residual_blocks import DownBlock, UpBlock

NARROW = {"width_factor": 1 / 32}
CASES = [
    *(("dcgan", (3, size, size), NARROW) for size in (28, 32, 48, 64, 128)),
    *(("sngan_convnet", (3, size, size), NARROW) for size in (32, 48, 64)),
    *(("sngan_resnet", (3, size, size), NARROW) for size in (28, 32, 48, 64, 128)),
    ("resize_convnet", (1, 32, 32), {"base_widths": (8, 4, 4, 4), "energy_widths": (4, 4, 8)}),
    ("mlp", (2,), {"base_widths": (8, 8), "energy_widths": (8, 8)}),
    ("mlp", (1, 4, 4), {"base_widths": (8,), "energy_widths": (8,)}),
]
IDS = [f"{network}-{'x'.join(map(str, shape))}" for network, shape, _ in CASES]


def settings_of(network: str, extra: dict, **more) -> ModelSettings:
    return ModelSettings.model_validate({"network": network, "latent_dimension": 5, **extra, **more})


@pytest.mark.parametrize(("network", "shape", "extra"), CASES, ids=IDS)
def test_a_pair_makes_and_reads_its_data_and_learns_from_it(network, shape, extra):
    model = build_model(settings_of(network, extra), shape, seed=0)
    latent = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    points = model.generate(latent)
    energies = model.energy(points)
    assert points.shape == (3, *shape) and energies.shape == (3,)
    assert len(shape) == 1 or points.abs().max() <= 1
    energies.square().sum().backward()
    without = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or not p.grad.isfinite().all() or not p.grad.any()
    ]
    # A bias before a batch norm is taken out by its mean: only rounding is left of its gradient, or nothing.
    assert all(name.endswith("bias") for name in without)


@pytest.mark.parametrize(("network", "shape", "extra"), CASES, ids=IDS)
def test_a_conditional_pair_depends_on_its_labels_and_features_hold_them(network, shape, extra):
    settings = settings_of(network, extra, conditional=True)
    model = build_model(settings, shape, classes=3, seed=0)
    labels, others = torch.tensor([0, 1, 2]), torch.tensor([1, 2, 0])
    for table in (m for m in model.base.modules() if isinstance(m, torch.nn.Embedding)):
        torch.nn.init.normal_(table.weight)  # gains and shifts begin equal for all classes
    latent = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    points = model.generate(latent, labels)
    assert not torch.allclose(points, model.generate(latent, others))
    model.energy(points, labels).sum().backward()
    model.eval()
    assert not torch.allclose(model.energy(points, labels), model.energy(points, others))
    features = model.energy_network.features(points, labels)
    alone = model.energy_network.features(points)
    assert torch.equal(features[:, : alone.shape[1]], alone) and features.shape[1] == 2 * alone.shape[1]
    with pytest.raises(ValueError, match="needs labels"):
        model.energy(points)


@pytest.mark.parametrize(("network", "shape", "extra"), [CASES[k] for k in (1, 5, 9, 13, 14)], ids=lambda _: "")
def test_the_energy_is_linear_in_its_features(network, shape, extra):
    for dimension in (None, 4):
        model = build_model(settings_of(network, extra, feature_dimension=dimension), shape, seed=0).eval()
        points = torch.randn(6, *shape, generator=torch.Generator().manual_seed(1))
        features = model.energy_network.features(points)
        head = model.energy_network.to_energy
        bias = 0.0 if head.bias is None else head.bias
        torch.testing.assert_close(model.energy(points), features @ head.weight[0] + bias)
        assert dimension is None or features.shape == (6, dimension)


def test_the_class_projection_adds_the_inner_product_of_miyato_and_koyama():
    head = EnergyHead(4, classes=3)
    hidden, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 2, 1])
    expected = hidden @ head.weight[0] + head.bias + torch.einsum("nd,nd->n", head.class_vectors.weight[labels], hidden)
    torch.testing.assert_close(head(hidden, labels), expected)
    with pytest.raises(ValueError, match="without classes"):
        EnergyHead(4)(hidden, labels)


def test_pooling_before_the_shortcut_gives_what_pooling_after_it_gives():
    """The blocks do 1x1 convolutions on the smaller map; the published ones on the larger."""
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    down, up = DownBlock(3, 5, halves=True).double().eval(), UpBlock(3, 5).double().eval()
    residual = down.conv2(torch.relu(down.conv1(torch.relu(x))))
    published = torch.nn.functional.avg_pool2d(residual + down.shortcut(x), 2)
    torch.testing.assert_close(down(x), published)
    larger = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    residual = up.conv1(torch.nn.functional.interpolate(torch.relu(up.norm1(x)), scale_factor=2, mode="nearest"))
    torch.testing.assert_close(up(x), up.conv2(torch.relu(up.norm2(residual))) + up.shortcut(larger))


# Layers of a conditional energy with learnt features: 8 convolutions, 2 shortcuts and the head's 3; 7 and 3.
@pytest.mark.parametrize(("network", "layers", "normalised"), [("sngan_resnet", 13, 13), ("sngan_convnet", 10, 7)])
def test_the_published_layers_have_spectral_norm_one(network, layers, normalised):
    """Every layer of the ResNet energy, the convolutions of the ConvNet's."""
    settings = settings_of(network, NARROW, conditional=True, feature_dimension=4)
    energy = build_model(settings, (3, 32, 32), classes=4, seed=0).energy_network.eval()
    kinds = (torch.nn.Conv2d, torch.nn.Linear, torch.nn.Embedding)
    found = {name: module for name, module in energy.named_modules() if isinstance(module, kinds)}
    held = [name for name, module in found.items() if is_parametrized(module)]
    assert (len(found), len(held)) == (layers, normalised)
    for name in held:
        largest = torch.linalg.matrix_norm(found[name].weight.detach().flatten(1), ord=2)
        assert float(largest) == pytest.approx(1, abs=0.1), name


@pytest.mark.parametrize("network", ["sngan_convnet", "sngan_resnet"])
def test_published_weights_begin_xavier_uniform(network):
    """The largest of thousands of uniform weights is near its bound; shortcuts have gain sqrt 2, biases begin at 0."""
    model = build_model(ModelSettings(network=network, latent_dimension=64, width_factor=0.25), (3, 48, 48), seed=0)
    for name, weight in model.named_parameters():
        if weight.dim() < 2:
            assert not name.endswith("bias") or not weight.any()
            continue
        fan_in, fan_out = weight[0].numel(), weight[:, 0].numel()
        bound = math.sqrt(6 / (fan_in + fan_out)) * (math.sqrt(2) if "shortcut" in name else 1)
        largest = float(weight.detach().abs().max()) / bound
        assert largest <= 1 + 1e-6
        if weight.numel() > 1000:
            assert largest > 0.98, name


@pytest.mark.parametrize(("network", "shape", "extra"), [CASES[k] for k in (1, 9, 14)], ids=lambda _: "")
def test_weights_are_a_function_of_the_seed(network, shape, extra):
    settings = settings_of(network, extra)
    first, again, other = (build_model(settings, shape, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first if "log_partition" not in name)
    assert any(not torch.equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("network", ["dcgan", "sngan_convnet", "sngan_resnet", "resize_convnet"])
def test_an_image_family_on_vectors_is_refused_with_what_to_use(network):
    with pytest.raises(InputError, match=rf'model\.network = "{network}" is for images, .* of 7 numbers: use .*"mlp"'):
        build_model(ModelSettings(network=network), (7,))


def test_a_conditional_model_without_labels_is_refused():
    with pytest.raises(InputError, match=r"model\.conditional = true, but the data has no labels"):
        build_model(ModelSettings(conditional=True), (1, 32, 32), classes=None)
    model = build_model(ModelSettings(network="mlp"), (2,), classes=3, seed=0)
    assert model.classes is None
    with pytest.raises(ValueError, match="takes no labels"):
        model.generate(torch.zeros(1, 64), torch.zeros(1, dtype=torch.int64))


def test_labels_of_the_prior_are_uniform_over_the_classes():
    """Pearson's chi-squared with 3 degrees of freedom below 16.3: a false alarm in 1,000 seeds."""
    settings = ModelSettings(network="mlp", conditional=True)
    model = build_model(settings, (2,), classes=4, seed=0)
    labels = model.sample_labels(4000, torch.Generator().manual_seed(0))
    counts = torch.bincount(labels, minlength=4).double()
    assert labels.dtype == torch.int64 and float(((counts - 1000) ** 2 / 1000).sum()) < 16.3
    assert build_model(ModelSettings(network="mlp"), (2,)).sample_labels(3, torch.Generator()) is None


@pytest.mark.parametrize("network", ["sngan_resnet", "sngan_convnet"])
def test_freezing_leaves_conditional_energies_as_they_were(network):
    settings = settings_of(network, NARROW, conditional=True)
    model = build_model(settings, (3, 32, 32), classes=3, seed=0).eval()
    images, labels = torch.rand(2, 3, 32, 32), torch.tensor([2, 0])
    before = model.energy(images, labels)
    torch.testing.assert_close(freeze(model).energy(images, labels), before)
    assert not any("parametrizations" in name for name in model.state_dict())
