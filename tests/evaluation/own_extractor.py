"""A network of a user's own, for the tests of extractors named by import path."""

import torch
from torch import nn


class ColourMeans(nn.Module):
    """Mean and spread of each colour, `(n, 6)`: features that need no weights."""

    def __init__(self, weights: str | None = None):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0 if weights is None else float(torch.load(weights))))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        pixels = images.float().flatten(2)
        return self.scale * torch.cat([pixels.mean(2), pixels.std(2)], 1)


ready = ColourMeans()


class Flat(nn.Module):
    """What is no feature extractor: it returns images."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float()


def broken() -> nn.Module:
    raise OSError("no such weights")
