"""The feature extractors of torch-fidelity, and ours among them.

Importing this module imports torchvision, which takes seconds: `extractor.py` does it only for extractors that
are torch-fidelity's own.
"""

import torch

from gebm.evaluation.extractors import efficientnet_lite
from gebm.evaluation.extractors.torchvision_operators import make_torchvision_importable

make_torchvision_importable()

from torch_fidelity.feature_extractor_base import FeatureExtractorBase  # noqa: E402
from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2  # noqa: E402
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3  # noqa: E402
from torch_fidelity.registry import FEATURE_EXTRACTORS_REGISTRY, register_feature_extractor  # noqa: E402

__all__ = [
    "FEATURE_EXTRACTORS_REGISTRY",
    "FeatureExtractorBase",
    "FeatureExtractorDinoV2",
    "FeatureExtractorEfficientNetLite0",
    "FeatureExtractorInceptionV3",
]


class FeatureExtractorEfficientNetLite0(FeatureExtractorBase):
    """EfficientNet-Lite0 as torch-fidelity calls it, so that its metrics run on the very same features.

    Args:
        name: the registered name.
        features_list: the layers wanted, of `320`, `1280` and `logits`.
        feature_extractor_weights_path: None for the packaged weights.
        feature_extractor_input_size: None for 128 pixels.
    """

    def __init__(
        self,
        name: str,
        features_list: list[str],
        feature_extractor_weights_path: str | None = None,
        feature_extractor_input_size: int | None = None,
        **_ignored: object,
    ):
        super().__init__(name, features_list)
        self.network = efficientnet_lite.EfficientNetLite0(
            features_list, feature_extractor_weights_path, feature_extractor_input_size
        )

    def forward(self, input: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Features of uint8 images `(batch, 3, height, width)`, one `(batch, dimension)` a layer wanted."""
        return self.network(input)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return efficientnet_lite.LAYERS

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        layers = dict.fromkeys(("fid", "kid", "prc"), efficientnet_lite.DEFAULT_LAYER)
        return {**layers, "isc": efficientnet_lite.LOGITS_LAYER}[metric]

    @staticmethod
    def can_be_compiled() -> bool:
        return True

    @staticmethod
    def get_dummy_input_for_compile() -> torch.Tensor:
        return torch.zeros(1, 3, 32, 32, dtype=torch.uint8)


# torch-fidelity refuses a name that is registered twice, as when this module is reloaded.
if efficientnet_lite.NAME not in FEATURE_EXTRACTORS_REGISTRY:
    register_feature_extractor(efficientnet_lite.NAME, FeatureExtractorEfficientNetLite0)
