"""The published families have the published layers: parameters by hand, layer by layer, and arithmetic per image."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gebm.trainer.model import GEBM, ModelSettings, freeze
from gebm.trainer.model.build import assemble

# Weights and biases of one layer, from the definitions.


def linear(n: int, m: int) -> int:
    return n * m + m


def conv(n: int, m: int, kernel: int) -> int:
    return n * m * kernel * kernel + m


def norm(n: int) -> int:
    return 2 * n


def up(n: int, m: int) -> int:
    """Up-block: BN, 3x3, BN, 3x3, and a 1x1 on the shortcut where the width changes."""
    return norm(n) + conv(n, m, 3) + norm(m) + conv(m, m, 3) + (conv(n, m, 1) if n != m else 0)


def first(n: int, m: int) -> int:
    """The energy's first block: 3x3, 3x3, 1x1 on the shortcut, all of the output's width."""
    return conv(n, m, 3) + conv(m, m, 3) + conv(n, m, 1)


def down(n: int, m: int) -> int:
    """A block that halves: 3x3 of the input's width, 3x3, 1x1 on the shortcut."""
    return conv(n, n, 3) + conv(n, m, 3) + conv(n, m, 1)


def level(n: int) -> int:
    """A block that neither halves nor widens has nothing on its shortcut."""
    return conv(n, n, 3) + conv(n, n, 3)


# (network, size, latents, base, energy) of RGB images. Convolutions before a batch norm have no bias in DCGAN
# (-m each), and have one in SNGAN.
COUNTS = [
    (
        "sngan_convnet",
        32,
        100,
        linear(100, 512 * 16)
        + norm(512)
        + (conv(512, 256, 4) + norm(256))
        + (conv(256, 128, 4) + norm(128))
        + (conv(128, 64, 4) + norm(64))
        + conv(64, 3, 3),
        conv(3, 64, 3)
        + conv(64, 128, 4)
        + conv(128, 128, 3)
        + conv(128, 256, 4)
        + conv(256, 256, 3)
        + conv(256, 512, 4)
        + conv(512, 512, 3)
        + linear(8192, 1),
    ),
    (
        "sngan_convnet",
        48,
        128,
        linear(128, 512 * 36)
        + norm(512)
        + (conv(512, 256, 4) + norm(256))
        + (conv(256, 128, 4) + norm(128))
        + (conv(128, 64, 4) + norm(64))
        + conv(64, 3, 3),
        conv(3, 64, 3)
        + conv(64, 128, 4)
        + conv(128, 128, 3)
        + conv(128, 256, 4)
        + conv(256, 256, 3)
        + conv(256, 512, 4)
        + conv(512, 512, 3)
        + linear(18432, 1),
    ),
    (
        "sngan_resnet",
        28,
        64,
        linear(64, 128 * 49) + up(128, 128) + up(128, 128) + norm(128) + conv(128, 3, 3),
        first(3, 128) + down(128, 128) + level(128) + level(128) + linear(128, 1),
    ),
    (
        "sngan_resnet",
        32,
        100,
        linear(100, 128 * 16) + up(128, 128) + up(128, 128) + up(128, 128) + norm(128) + conv(128, 3, 3),
        first(3, 128) + down(128, 128) + level(128) + level(128) + linear(128, 1),
    ),
    (
        "sngan_resnet",
        48,
        128,
        linear(128, 512 * 36) + up(512, 256) + up(256, 128) + up(128, 64) + norm(64) + conv(64, 3, 3),
        first(3, 64) + down(64, 128) + down(128, 256) + down(256, 512) + down(512, 1024) + linear(1024, 1),
    ),
    (
        "sngan_resnet",
        64,
        128,
        linear(128, 1024 * 16) + up(1024, 512) + up(512, 256) + up(256, 128) + up(128, 64) + norm(64) + conv(64, 3, 3),
        first(3, 64) + down(64, 128) + down(128, 256) + down(256, 512) + down(512, 1024) + linear(1024, 1),
    ),
    (
        "sngan_resnet",
        128,
        128,
        linear(128, 1024 * 16)
        + up(1024, 1024)
        + up(1024, 512)
        + up(512, 256)
        + up(256, 128)
        + up(128, 64)
        + norm(64)
        + conv(64, 3, 3),
        first(3, 64)
        + down(64, 128)
        + down(128, 256)
        + down(256, 512)
        + down(512, 1024)
        + level(1024)
        + linear(1024, 1),
    ),
    (
        "dcgan",
        28,
        100,
        100 * 256 * 49 + norm(256) + 256 * 128 * 16 + norm(128) + conv(128, 3, 4),
        conv(3, 128, 4) + conv(128, 256, 4) + 256 * 49,
    ),
    (
        "dcgan",
        32,
        100,
        100 * 512 * 16 + norm(512) + 512 * 256 * 16 + norm(256) + 256 * 128 * 16 + norm(128) + conv(128, 3, 4),
        conv(3, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + 512 * 16,
    ),
    (
        "dcgan",
        48,
        100,
        100 * 512 * 36 + norm(512) + 512 * 256 * 16 + norm(256) + 256 * 128 * 16 + norm(128) + conv(128, 3, 4),
        conv(3, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + 512 * 36,
    ),
    (
        "dcgan",
        64,
        100,
        100 * 1024 * 16
        + norm(1024)
        + (1024 * 512 * 16 + norm(512))
        + (512 * 256 * 16 + norm(256))
        + (256 * 128 * 16 + norm(128))
        + conv(128, 3, 4),
        conv(3, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + conv(512, 1024, 4) + 1024 * 16,
    ),
    (
        "dcgan",
        128,
        100,
        100 * 1024 * 16
        + norm(1024)
        + (1024 * 1024 * 16 + norm(1024))
        + (1024 * 512 * 16 + norm(512))
        + (512 * 256 * 16 + norm(256))
        + (256 * 128 * 16 + norm(128))
        + conv(128, 3, 4),
        conv(3, 128, 4) + conv(128, 256, 4) + conv(256, 512, 4) + conv(512, 1024, 4) + conv(1024, 1024, 4) + 1024 * 16,
    ),
]


def without_numbers(network: str, size: int, latents: int, *, classes: int | None = None, **settings) -> GEBM:
    """The model on the meta device: its layers, but no memory and no arithmetic."""
    with torch.device("meta"):
        described = ModelSettings(
            network=network, latent_dimension=latents, conditional=classes is not None, **settings
        )
        return assemble(described, (3, size, size), classes)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(("network", "size", "latents", "base", "energy"), COUNTS)
def test_a_published_pair_has_the_parameters_of_its_layers(network, size, latents, base, energy):
    model = without_numbers(network, size, latents)
    assert (parameters(model.base), parameters(model.energy_network)) == (base, energy)


def test_classes_add_gains_and_shifts_to_the_base_and_one_vector_each_to_the_energy():
    plain, conditional = (without_numbers("sngan_resnet", 32, 128, classes=classes) for classes in (None, 10))
    # Six norms in the blocks and the last one, of 128 channels: 10 pairs of gain and shift instead of one.
    assert parameters(conditional.base) - parameters(plain.base) == 7 * 128 * 2 * (10 - 1)
    assert parameters(conditional.energy_network) - parameters(plain.energy_network) == 10 * 128


def test_learnt_features_are_a_linear_layer_before_the_energy():
    plain, learnt = (without_numbers("dcgan", 32, 100, feature_dimension=d) for d in (None, 16))
    assert parameters(learnt.energy_network) - parameters(plain.energy_network) == linear(8192, 16) + 16 - 8192


# The 544 MFLOP of the published ResNet energy have the second block's 128-to-128 shortcut on 16x16 pixels; here it
# comes after the pooling, on 8x8, which gives the same numbers.
SAVED = 2 * 128 * 128 * (16**2 - 8**2) / 1e6


@pytest.mark.parametrize(
    ("network", "base", "energy"), [("sngan_convnet", 207, 431), ("sngan_resnet", 800, 544 - SAVED)]
)
def test_a_pair_does_the_arithmetic_of_the_published_one(network, base, energy):
    """MFLOP of a forward pass per 32x32 image, 2 per multiply-add; the published ones are rounded."""
    model = freeze(without_numbers(network, 32, 100))
    counted = []
    for run in (
        lambda: model.generate(torch.empty(1, 100, device="meta")),
        lambda: model.energy(torch.empty(1, 3, 32, 32, device="meta")),
    ):
        with FlopCounterMode(display=False) as counter:
            run()
        counted.append(counter.get_total_flops() / 1e6)
    assert counted == pytest.approx([base, energy], abs=0.6)


@pytest.mark.parametrize(("network", "size"), [("dcgan", 96), ("sngan_convnet", 28), ("sngan_resnet", 256)])
def test_a_size_that_was_not_published_is_refused_with_those_that_were(network, size):
    with pytest.raises(
        ValueError, match=rf'^model\.network = "{network}" makes and reads images of .*32x32.* has {size}x'
    ):
        without_numbers(network, size, 64)
