"""The residual blocks of SNGAN (Miyato et al. 2018, appendix B.4): up in the base, down in the energy."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate

from gebm.trainer.model.networks.conditional_norm import batch_norm, normalised
from gebm.trainer.model.networks.initialisation import xavier
from gebm.trainer.model.networks.spectral_norm import spectral_norm

SHORTCUT_GAIN = math.sqrt(2.0)


class UpBlock(nn.Module):
    """BN, ReLU, nearest x2, 3x3, BN, ReLU, 3x3; shortcut nearest x2, with a 1x1 convolution where the width changes."""

    def __init__(self, n_in: int, n_out: int, classes: int | None = None):
        super().__init__()
        self.norm1, self.norm2 = batch_norm(n_in, classes), batch_norm(n_out, classes)
        self.conv1 = xavier(nn.Conv2d(n_in, n_out, 3, padding=1))
        self.conv2 = xavier(nn.Conv2d(n_out, n_out, 3, padding=1))
        self.shortcut = None if n_in == n_out else xavier(nn.Conv2d(n_in, n_out, 1), SHORTCUT_GAIN)

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        residual = torch.relu(normalised(self.norm1, x, labels))
        residual = self.conv1(interpolate(residual, scale_factor=2, mode="nearest"))
        residual = self.conv2(torch.relu(normalised(self.norm2, residual, labels)))
        # A 1x1 convolution commutes with repeating pixels: do it on the quarter of them.
        shortcut = x if self.shortcut is None else self.shortcut(x)
        return residual + interpolate(shortcut, scale_factor=2, mode="nearest")


class DownBlock(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, then average pooling of 2x2 where it halves; spectral norm on every layer.

    Shortcut: a 1x1 convolution where it halves or the width changes. The hidden width is the input's. The first
    block of an energy (`first`) sees the image itself: no ReLU before it, and the output's hidden width.
    """

    def __init__(self, n_in: int, n_out: int, *, halves: bool, first: bool = False):
        super().__init__()
        hidden = n_out if first else n_in
        self.halves, self.first = halves, first
        self.conv1 = spectral_norm(xavier(nn.Conv2d(n_in, hidden, 3, padding=1)))
        self.conv2 = spectral_norm(xavier(nn.Conv2d(hidden, n_out, 3, padding=1)))
        self.shortcut = None
        if halves or n_in != n_out:
            self.shortcut = spectral_norm(xavier(nn.Conv2d(n_in, n_out, 1), SHORTCUT_GAIN))

    def forward(self, x: Tensor) -> Tensor:
        residual = self.conv2(torch.relu(self.conv1(x if self.first else torch.relu(x))))
        # Means commute with 1x1 convolutions too: pool first.
        shortcut = avg_pool2d(x, 2) if self.halves else x
        if self.shortcut is not None:
            shortcut = self.shortcut(shortcut)
        return (avg_pool2d(residual, 2) if self.halves else residual) + shortcut
