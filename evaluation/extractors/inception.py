"""torch-fidelity's Inception, arranged for speed: the same weights, the same features to float32 rounding.

- batch normalisation is folded into the convolutions, and memory is channels-last;
- TensorFlow 1's bilinear resizing is a pair of matrix products and not four gathered copies of every image;
- on a CPU, images pass in small chunks, whose activations stay in the cache.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from gebm.evaluation.extractors.resize import resize
from gebm.evaluation.extractors.torch_fidelity_registry import FeatureExtractorInceptionV3
from gebm.evaluation.extractors.weights import state_digest

NAME = "inception-v3-compat"
CPU_CHUNK = 16
STAGES = (
    ("64", ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "MaxPool_1")),
    ("192", ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "MaxPool_2")),
    ("768", ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e")),
    ("2048", ("Mixed_7a", "Mixed_7b", "Mixed_7c")),
)
"""Layers in order: the modules that lead to each from the one before it."""


@lru_cache(maxsize=64)
def tensorflow_bilinear_matrix(size_in: int, size_out: int) -> torch.Tensor:
    """Weights `(size_out, size_in)`, float64, of TensorFlow 1's bilinear interpolation along one side.

    Output pixel i is at `i * size_in / size_out` of the input, in float32 as TensorFlow computes it; no widening of
    the kernel when the image shrinks.
    """
    place = torch.arange(size_out, dtype=torch.float32) * torch.tensor(size_in / size_out, dtype=torch.float32)
    low = place.long()
    high = (low + 1).clamp_max(size_in - 1)
    share = (place - low.float()).double()
    matrix = torch.zeros(size_out, size_in, dtype=torch.float64)
    rows = torch.arange(size_out)
    matrix[rows, low] += 1 - share
    matrix[rows, high] += share
    return matrix


class Inception(FeatureExtractorInceptionV3):
    """Arguments, layers and features of torch-fidelity's `inception-v3-compat`; `weights_digest` is of its weights."""

    def __init__(self, *arguments: Any, **options: Any):
        super().__init__(*arguments, **options)
        self.weights_digest = state_digest(self.state_dict())
        for module in list(self.modules()):
            if isinstance(getattr(module, "bn", None), torch.nn.BatchNorm2d):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = torch.nn.Identity()
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(batch, dimension)` for each layer wanted, of uint8 RGB images `(batch, 3, height, width)`."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            got = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"{NAME} takes uint8 images (batch, 3, height, width), got {got}")
        chunks = images.split(CPU_CHUNK if images.device.type == "cpu" else max(1, len(images)))
        return tuple(torch.cat(layer) for layer in zip(*map(self._features, chunks), strict=True))

    def _features(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = images.to(torch.float32)
        side = self.INPUT_IMAGE_SIZE
        if x.shape[-2:] != (side, side):
            # Not in half precision: this is the image itself.
            with torch.autocast(x.device.type, enabled=False):
                x = resize(x, *(tensorflow_bilinear_matrix(size, side).to(x) for size in x.shape[-2:]))
        x = ((x - 128) / 128).contiguous(memory_format=torch.channels_last)
        found: dict[str, torch.Tensor] = {}
        for layer, modules in STAGES:
            for name in modules:
                x = getattr(self, name)(x)
            found[layer] = F.adaptive_avg_pool2d(x, 1).flatten(1)
            if all(wanted in found for wanted in self.features_list):
                break
        else:
            found["logits_unbiased"] = found["2048"].mm(self.fc.weight.T)
            found["logits"] = found["logits_unbiased"] + self.fc.bias
        return tuple(found[layer].to(torch.float32) for layer in self.features_list)
