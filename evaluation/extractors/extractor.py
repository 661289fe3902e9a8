"""From settings to a function that turns samples into features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from gebm.cluster.errors import InputError
from gebm.evaluation.extractors import efficientnet_lite, raw
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.extractors.weights import state_digest


@dataclass(frozen=True)
class Extractor:
    """Turns uint8 images into features. Frozen network, evaluation mode, no gradients.

    Attributes:
        network: from uint8 RGB images to a tuple of one feature tensor, as in torch-fidelity.
        dimension: length of a feature vector.
        device: where the network runs.
        description: what the features depend on, as JSON-able values: `name`, `layer`, `input_size` (pixels),
            `weights` (SHA-256 of the weights), `dimension`.
    """

    network: nn.Module = field(repr=False)
    dimension: int
    device: torch.device
    description: dict[str, str | int | None]

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Features `(n, dimension)`, float32 on the CPU, of uint8 images `(n, 1 or 3, height, width)`.

        A grey image is repeated to RGB.
        """
        if images.dtype != torch.uint8 or images.dim() != 4 or images.shape[1] not in (1, 3):
            shape = tuple(images.shape)
            raise InputError(
                f"feature extractor {self.description['name']}: images must be uint8 (n, 1 or 3, height, "
                f"width), got {images.dtype} {shape}"
            )
        if len(images) == 0:
            return torch.zeros(0, self.dimension)
        with torch.inference_mode():
            (features,) = self.network(images.to(self.device).expand(-1, 3, -1, -1))
        return features.to("cpu", torch.float32)


def make_extractor(
    settings: ExtractorSettings, device: str = "cpu", image_shape: tuple[int, ...] | None = None
) -> Extractor | raw.RawValues:
    """Build the extractor that `settings` name, for samples of `image_shape`, and load its weights.

    image_shape: `(channels, height, width)` or, for vectors, `(d,)`; `raw` needs it, others take images of any size.

    Raises:
        InputError: unknown name or layer, an input size that the extractor cannot take, absent or wrong
            weights, vectors for an extractor that reads images.
    """
    if settings.name == raw.NAME:
        for key in ("layer", "input_size", "weights"):
            if getattr(settings, key) is not None:
                raise InputError(f"extractor.{key}: raw takes values as they are and has none; leave it out")
        if image_shape is None:
            raise ValueError("raw needs the image_shape of the samples")
        return raw.raw_values(math.prod(image_shape))
    if image_shape is not None and len(image_shape) == 1:
        raise InputError(
            f"extractor.name: {settings.name} reads images, and these are vectors of length {image_shape[0]}; "
            f"give 'raw' (--extractor raw), the values as they are"
        )
    if settings.weights is not None and not Path(settings.weights).is_file():
        raise InputError(f"extractor.weights: no file {settings.weights}")
    make = _packaged_network if settings.name == efficientnet_lite.NAME else _torch_fidelity_network
    try:
        network, layer = make(settings)
    except OSError as error:  # URLError is one: torch-fidelity downloads what it does not find
        raise InputError(
            f"extractor {settings.name}: its weights are not at hand and could not be downloaded ({error}); "
            f"download them where there is a network, into {torch.hub.get_dir()}/checkpoints, or give a path "
            f"as extractor.weights"
        ) from error
    except Exception as error:  # a file that holds no weights fails in any way whatever
        if isinstance(error, InputError) or settings.weights is None:
            raise
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise InputError(
            f"extractor.weights: {settings.weights} cannot be loaded into {settings.name}: {first_line}"
        ) from error
    network.requires_grad_(False).eval().to(device)
    dimension = _dimension(network, torch.device(device))
    description: dict[str, str | int | None] = {
        "name": settings.name,
        "layer": layer,
        "input_size": getattr(network, "input_size", getattr(network, "INPUT_IMAGE_SIZE", None)),
        "weights": getattr(network, "weights_digest", None) or state_digest(network.state_dict()),
        "dimension": dimension,
    }
    return Extractor(network, dimension, torch.device(device), description)


def _packaged_network(settings: ExtractorSettings) -> tuple[nn.Module, str]:
    """The network and its layer."""
    layer = _layer(settings, efficientnet_lite.LAYERS, efficientnet_lite.DEFAULT_LAYER)
    return efficientnet_lite.EfficientNetLite0([layer], settings.weights, settings.input_size), layer


def _torch_fidelity_network(settings: ExtractorSettings) -> tuple[nn.Module, str]:
    """The network and its layer."""
    from gebm.evaluation.extractors.torch_fidelity_registry import FEATURE_EXTRACTORS_REGISTRY

    if settings.name not in FEATURE_EXTRACTORS_REGISTRY:
        known = ", ".join([raw.NAME, *sorted(FEATURE_EXTRACTORS_REGISTRY)])
        raise InputError(f"extractor.name: no feature extractor {settings.name!r}; there are {known}")
    make = FEATURE_EXTRACTORS_REGISTRY[settings.name]
    layer = _layer(settings, make.get_provided_features_list(), make.get_default_feature_layer_for_metric("fid"))
    if settings.input_size is not None:
        raise InputError(f"extractor.input_size: {settings.name} has a fixed input size; leave it out")
    return make(settings.name, [layer], feature_extractor_weights_path=settings.weights, verbose=False), layer


def _layer(settings: ExtractorSettings, layers: Sequence[str], default: str) -> str:
    layer = settings.layer or default
    if layer not in layers:
        raise InputError(f"extractor.layer: {settings.name} has no {layer!r}; it has {', '.join(layers)}")
    return layer


def _dimension(network: nn.Module, device: torch.device) -> int:
    with torch.inference_mode():
        (features,) = network(torch.zeros(1, 3, 32, 32, dtype=torch.uint8, device=device))
    return features.shape[1]
