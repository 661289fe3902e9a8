"""The networks of torch-fidelity's registry, with weights of its own download or of a file, checked by digest."""

from __future__ import annotations

import torch
from torch import nn

from gebm.cluster.errors import InputError
from gebm.evaluation.extractors import inception
from gebm.evaluation.extractors.published import DINOV2_REPOSITORY, how_to_get
from gebm.evaluation.extractors.settings import ExtractorSettings
from gebm.evaluation.extractors.torch_fidelity_registry import (
    FEATURE_EXTRACTORS_REGISTRY,
    FeatureExtractorBase,
    FeatureExtractorDinoV2,
)


def registered(name: str) -> type[FeatureExtractorBase]:
    """The class that makes the extractor `name`. Raises `InputError` naming those that there are."""
    if name not in FEATURE_EXTRACTORS_REGISTRY:
        known = ", ".join(["raw", *sorted(FEATURE_EXTRACTORS_REGISTRY)])
        raise InputError(
            f"extractor.name: no feature extractor {name!r}; there are {known}, and any 'package.module:name'"
        )
    return FEATURE_EXTRACTORS_REGISTRY[name]


def make_network(settings: ExtractorSettings, layers: list[str]) -> nn.Module:
    """The network with its weights.

    Raises:
        InputError: the weights are not at hand and could not be downloaded, saying what to fetch and where to put it.
    """
    name, weights = settings.name, settings.weights
    make = inception.Inception if name == inception.NAME else registered(name)
    if name in ("inception-v3-compat", "vgg16") and weights is not None:
        # torch-fidelity loads any pickle: this refuses one that would run code.
        torch.load(weights, map_location="cpu", weights_only=True)
    try:
        if issubclass(make, FeatureExtractorDinoV2) and weights is not None:
            return _dinov2_of_file(make, name, layers, weights)
        return make(name, layers, feature_extractor_weights_path=weights, verbose=False)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; torch.hub raises RuntimeError for no network
        if weights is not None and not isinstance(error, OSError):
            raise
        if isinstance(error, RuntimeError) and "internet connection" not in str(error):
            raise
        raise InputError(
            f"extractor {name}: its weights are not at hand and could not be downloaded ({error}); {how_to_get(name)}"
        ) from error


def _dinov2_of_file(make: type[FeatureExtractorBase], name: str, layers: list[str], weights: str) -> nn.Module:
    """DINOv2 with weights of a file, which torch-fidelity cannot do: its code is the repository's, from torch.hub."""
    from torch_fidelity import feature_extractor_dinov2 as module

    state = torch.load(weights, map_location="cpu", weights_only=True)
    architecture = torch.hub.load(
        DINOV2_REPOSITORY, module.MODEL_METADATA[name], pretrained=False, trust_repo=True, verbose=False
    )
    architecture.load_state_dict(state)

    class OfFile(make):  # type: ignore[valid-type, misc]
        def __init__(self) -> None:
            FeatureExtractorBase.__init__(self, name, layers)
            self.feature_extractor_internal_dtype = torch.float32
            self.model = architecture
            self.requires_grad_(False)
            self.eval()

    return OfFile()
