"""The energy of a model that was trained with the maximum mean discrepancy: minus the witness."""

from __future__ import annotations

from torch import Tensor, nn

from gebm.trainer.objectives import mmd


class WitnessEnergy(nn.Module):
    """`E(v) = mean_j k(phi(y_j), phi(v)) - mean_i k(phi(x_i), phi(v))`, `phi` the features of `network`.

    `x_i` are images of the data and `y_j` of the base, of which `phi` is kept: `real_features` `(n, d)` and
    `fake_features` `(m, d)`. Low where data is denser than what the base makes (Bińkowski et al. 2018).
    """

    real_features: Tensor
    fake_features: Tensor

    def __init__(self, network: nn.Module, real_features: Tensor, fake_features: Tensor):
        super().__init__()
        self.network = network
        self.register_buffer("real_features", real_features.detach())
        self.register_buffer("fake_features", fake_features.detach())

    def features(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """`phi` `(n, d)` of images `(n, channels, height, width)`, with their labels `(n,)` where it takes them."""
        inputs = (images,) if labels is None else (images, labels)
        return self.network.features(*inputs)  # type: ignore[operator]

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return mmd.energy(self.features(images, labels), self.real_features, self.fake_features)
