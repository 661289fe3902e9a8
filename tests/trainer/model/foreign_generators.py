"""Generators as a user might bring them, good and bad, for `test_foreign_base`."""

import torch
from torch import Tensor, nn


class TinyGenerator(nn.Module):
    """Latents `(n, latents)` to images `(n, 1, 8, 8)` in [-1, 1]."""

    def __init__(self, latents: int = 4, width: int = 6):
        super().__init__()
        self.linear = nn.Linear(latents, width * 16)
        self.norm = nn.BatchNorm2d(width)
        self.to_image = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)
        self.tied = self.to_image.bias  # shared under two names, as some published generators do

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(self.to_image(torch.relu(self.norm(self.linear(latent).view(len(latent), -1, 4, 4)))))


class LabelledGenerator(TinyGenerator):
    def __init__(self, classes: int):
        super().__init__(latents=4)
        self.shift = nn.Embedding(classes, 4)

    def forward(self, latent: Tensor, labels: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(latent + self.shift(labels))


class Loud(TinyGenerator):
    def forward(self, latent: Tensor) -> Tensor:
        return 2.0 * torch.sign(super().forward(latent))


class Undefined(TinyGenerator):
    def forward(self, latent: Tensor) -> Tensor:
        return super().forward(latent) / 0.0 * 0.0


class Noisy(TinyGenerator):
    def forward(self, latent: Tensor) -> Tensor:
        return (super().forward(latent) + 0.1 * torch.randn(len(latent), 1, 8, 8)).clamp(-1, 1)


class Mixing(TinyGenerator):
    """Its batch norm ignores evaluation mode."""

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(10 * (latent - latent.mean(0))[:, :1, None, None].expand(-1, 1, 8, 8))


class Flat(TinyGenerator):
    def forward(self, latent: Tensor) -> Tensor:
        return super().forward(latent).flatten(1)


def not_a_module() -> int:
    return 3
