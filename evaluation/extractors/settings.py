"""Which features samples are compared by."""

from typing import Literal

from pydantic import Field

from gebm.cluster.settings import StrictModel


class ExtractorSettings(StrictModel):
    """A feature extractor, one of its layers, and how images are brought to it.

    Attributes:
        name: `efficientnet-lite0` (packaged weights, no download) or any name that torch-fidelity registers,
            such as `inception-v3-compat`, the standard for published FID; or `package.module:name`, a network of
            the user's own; or `raw`, the values themselves: for vectors, and for images their pixels.
        layer: one of the extractor's layers. For efficientnet-lite0: `320` (last block, pooled; for small
            samples, since a covariance needs more samples than dimensions) or `1280` (head). None for the one
            that its FID is taken on (efficientnet-lite0: `320`); `raw` has none.
        input_size: side in pixels to which images are resized; None for the extractor's own
            (efficientnet-lite0: 128). Extractors of torch-fidelity have a fixed one.
        weights: path of a weights file; None for the packaged weights, or those that are downloaded.
        weights_sha256: SHA-256 of the weights file, or its first digits; another file is refused.
        precision: of the network. `bfloat16` changes features by some per cent, and distances with them:
            compare only what was measured alike.
        channels_last: memory layout of a network that has not chosen its own; changes rounding only.
        compile: by torch.compile; changes rounding only.
    """

    name: str = "efficientnet-lite0"
    layer: str | None = None
    input_size: int | None = Field(default=None, ge=32, le=1024)
    weights: str | None = None
    weights_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{8,64}$")
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    compile: bool = False

    @property
    def exact(self) -> "ExtractorSettings":
        """The same extractor without what makes it faster at the price of rounding."""
        return self.model_copy(update={"precision": "float32", "channels_last": False, "compile": False})

    def spelt_out(self) -> "ExtractorSettings":
        """The same extractor with what it takes by itself written out: equal for equal features.

        Of the packaged one only; what others take is known when they are loaded.
        """
        from gebm.evaluation.extractors import efficientnet_lite

        if self.name != efficientnet_lite.NAME:
            return self
        return self.model_copy(
            update={
                "layer": self.layer or efficientnet_lite.DEFAULT_LAYER,
                "input_size": self.input_size or efficientnet_lite.DEFAULT_INPUT_SIZE,
            }
        )
