"""From settings to a function that turns samples into features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from gebm.cluster.errors import InputError
from gebm.evaluation.extractors import efficientnet_lite, raw
from gebm.evaluation.extractors.imported import import_network, is_import_path
from gebm.evaluation.extractors.published import check_file
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.extractors.weights import state_digest

BETWEEN_LAYERS = "+"
"""`layer = "2048+logits_unbiased"` gives the features of both side by side, by one pass through the network."""


@dataclass(frozen=True)
class Extractor:
    """Turns uint8 images into features. Frozen network, evaluation mode, no gradients.

    Attributes:
        network: from uint8 RGB images to a tuple of one feature tensor for each layer, as in torch-fidelity.
        widths: length of each layer's features; their sum is `dimension`.
        device: where the network runs.
        description: what the features depend on, as JSON-able values: `name`, `layer`, `input_size` (pixels),
            `weights` (SHA-256 of the weights), `dimension`; and of `precision`, `channels_last`, `compile` those
            that are not as usual.
        notes: what a reader of values from these features should know, such as that the weights are not the
            published ones.
    """

    network: nn.Module = field(repr=False)
    widths: tuple[int, ...]
    device: torch.device
    description: dict[str, str | int | None]
    notes: tuple[str, ...] = ()

    @property
    def dimension(self) -> int:
        return sum(self.widths)

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
        half = self.description.get("precision") == "bfloat16"
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=half),
            # float32 means it: TensorFloat-32, on by default in convolutions, has ten bits.
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
        ):
            layers = self.network(images.to(self.device).expand(-1, 3, -1, -1))
        return torch.cat([layer.to("cpu", torch.float32) for layer in layers], 1)


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
        for key in ("layer", "input_size", "weights", "weights_sha256"):
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
    if settings.weights_sha256 is not None and settings.weights is None:
        raise InputError("extractor.weights_sha256: names a file, and none is given; give extractor.weights too")
    if is_import_path(settings.name):
        make = _imported_network
    else:
        make = _packaged_network if settings.name == efficientnet_lite.NAME else _torch_fidelity_network
    layers, notes = layers_of(settings), []
    if settings.name != efficientnet_lite.NAME or settings.weights is not None:
        notes = check_file(settings.name, settings.weights, settings.weights_sha256)
    try:
        network = make(settings, layers)
    except Exception as error:  # a file that holds no weights fails in any way whatever
        if isinstance(error, InputError) or settings.weights is None:
            raise
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        raise InputError(
            f"extractor.weights: {settings.weights} cannot be loaded into {settings.name}: {first_line}"
        ) from error
    network.requires_grad_(False).eval().to(device)
    weights = getattr(network, "weights_digest", None) or state_digest(network.state_dict())
    input_size = getattr(network, "input_size", getattr(network, "INPUT_IMAGE_SIZE", None))
    if settings.channels_last:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if settings.compile:
        network = torch.compile(network)  # type: ignore[assignment]
    widths = _widths(network, torch.device(device), settings)
    description: dict[str, str | int | None] = {
        "name": settings.name,
        "layer": BETWEEN_LAYERS.join(layers) if layers else None,
        "input_size": input_size,
        "weights": weights,
        "dimension": sum(widths),
    }
    usual = ExtractorSettings()
    for key in ("precision", "channels_last", "compile"):
        if getattr(settings, key) != getattr(usual, key):
            description[key] = getattr(settings, key)
    return Extractor(network, widths, torch.device(device), description, tuple(notes))


def layers_of(settings: ExtractorSettings) -> list[str]:
    """The layers that `settings` name, or the one that the extractor's FID is taken on; of `raw` and imported: none.

    Raises `InputError` for an extractor or a layer that there is not.
    """
    if settings.name == raw.NAME or is_import_path(settings.name):
        if settings.layer is not None:
            raise InputError(f"extractor.layer: {settings.name} has none; leave it out")
        return []
    if settings.name == efficientnet_lite.NAME:
        known, default = efficientnet_lite.LAYERS, efficientnet_lite.DEFAULT_LAYER
    else:
        from gebm.evaluation.extractors.torch_fidelity_networks import registered

        made_by = registered(settings.name)
        known, default = made_by.get_provided_features_list(), made_by.get_default_feature_layer_for_metric("fid")
    wanted = (settings.layer or default).split(BETWEEN_LAYERS)
    for layer in wanted:
        if layer not in known:
            raise InputError(f"extractor.layer: {settings.name} has no {layer!r}; it has {', '.join(known)}")
    return wanted


def class_layer(settings: ExtractorSettings) -> str:
    """The layer of class scores, which the inception score is taken on.

    Raises `InputError` for an extractor that is no classifier.
    """
    from gebm.evaluation.extractors.torch_fidelity_networks import registered

    if settings.name != raw.NAME and not is_import_path(settings.name):
        layer = registered(settings.name).get_default_feature_layer_for_metric("isc")
        if layer != registered(settings.name).get_default_feature_layer_for_metric("fid"):
            return layer
    raise InputError(
        f"extractor.name: {settings.name} tells no classes, and an inception score needs their scores; "
        f"take inception-v3-compat or {efficientnet_lite.NAME}, or leave inception_score out"
    )


def _packaged_network(settings: ExtractorSettings, layers: Sequence[str]) -> nn.Module:
    return efficientnet_lite.EfficientNetLite0(layers, settings.weights, settings.input_size)


def _imported_network(settings: ExtractorSettings, layers: Sequence[str]) -> nn.Module:
    if settings.input_size is not None:
        raise InputError(f"extractor.input_size: {settings.name} resizes images itself; leave it out")
    return import_network(settings.name, settings.weights)


def _torch_fidelity_network(settings: ExtractorSettings, layers: Sequence[str]) -> nn.Module:
    from gebm.evaluation.extractors.torch_fidelity_networks import make_network

    if settings.input_size is not None:
        raise InputError(f"extractor.input_size: {settings.name} has a fixed input size; leave it out")
    return make_network(settings, list(layers))


def _widths(network: nn.Module, device: torch.device, settings: ExtractorSettings) -> tuple[int, ...]:
    """Length of each layer's features, by a trial."""
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device=device)
    try:
        with torch.inference_mode():
            return tuple(layer.shape[1] for layer in network(images))
    except InputError:
        raise
    except Exception as error:
        if not (settings.compile or is_import_path(settings.name)):
            raise
        first_line = (str(error).strip() or type(error).__name__).split("\n")[0]
        what = "extractor.compile: it cannot be compiled here; leave it out" if settings.compile else "it fails"
        raise InputError(f"extractor {settings.name}: {what} on uint8 images (2, 3, 32, 32): {first_line}") from error
