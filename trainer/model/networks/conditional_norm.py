"""Batch normalisation whose gain and shift belong to the class (Dumoulin et al. 2017; Miyato and Koyama 2018)."""

from __future__ import annotations

from torch import Tensor, nn


class ConditionalBatchNorm2d(nn.Module):
    """`gain_y * (x - mean) / sqrt(var + eps) + shift_y`; mean and variance are those of the whole batch.

    The statistics sit in a plain `BatchNorm2d`, so that whatever treats those (global batches over workers,
    recomputed statistics) treats this one as well. Gains begin at 1, shifts at 0.
    """

    def __init__(self, width: int, classes: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False)
        self.gain = nn.Embedding(classes, width)
        self.shift = nn.Embedding(classes, width)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """`(n, width, height, width)` and labels `(n,)` int64."""
        gain, shift = self.gain(labels), self.shift(labels)
        return self.norm(x) * gain[:, :, None, None] + shift[:, :, None, None]


def batch_norm(width: int, classes: int | None) -> nn.Module:
    """A conditional norm when there are classes, else a plain one."""
    return nn.BatchNorm2d(width) if classes is None else ConditionalBatchNorm2d(width, classes)


def normalised(norm: nn.Module, x: Tensor, labels: Tensor | None) -> Tensor:
    """`x` through either kind of norm."""
    return norm(x) if labels is None else norm(x, labels)
