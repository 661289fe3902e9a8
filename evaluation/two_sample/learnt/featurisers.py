"""The networks phi of deep kernels (Liu et al., ICML 2020): for vectors and for images.

A point's features depend on that point alone (no batch statistics), so that a kernel is the same whatever else is in
the sample.
"""

import torch
from torch import nn

IMAGE_CHANNELS = (16, 32, 64, 128)
IMAGE_FEATURES = 300
GROUPS = 8


def vector_featuriser(dimension: int, width: int) -> nn.Sequential:
    """Three softplus layers of `width`, then a linear one: `(n, dimension) -> (n, width)`."""
    layers: list[nn.Module] = []
    for inputs in (dimension, width, width):
        layers += [nn.Linear(inputs, width), nn.Softplus()]
    return nn.Sequential(*layers, nn.Linear(width, width))


def image_featuriser(shape: tuple[int, ...], features: int = IMAGE_FEATURES) -> nn.Sequential:
    """Like DCGAN's discriminator: 3x3 convolutions of stride 2 to 16, 32, 64 and 128 channels, leaky ReLU, then a
    linear layer: `(n, *shape) -> (n, features)`. Published with batch normalisation; here over groups of channels.

    Args:
        shape: channels, height, width.
        features: how many.
    """
    layers: list[nn.Module] = []
    inputs, height, width = shape
    for index, channels in enumerate(IMAGE_CHANNELS):
        layers += [nn.Conv2d(inputs, channels, 3, stride=2, padding=1)]
        if index:
            layers += [nn.GroupNorm(GROUPS, channels)]
        layers += [nn.LeakyReLU(0.2)]
        inputs, height, width = channels, (height + 1) // 2, (width + 1) // 2
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(inputs * height * width, features))


def featuriser_of(shape: tuple[int, ...], width: int, seed: int) -> nn.Sequential:
    """A fresh network for points of a shape, `(d,)` or `(channels, height, width)`, with weights of the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return image_featuriser(shape) if len(shape) == 3 else vector_featuriser(shape[0], width)
