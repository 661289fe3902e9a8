"""What becomes of a sample in a shard: its format, and what is kept beside it.

A sample has the fields `png` or `npy` and, where the model is conditional, `cls`. `latent.npy` and `energy.npy` are
there when they were asked for: WebDataset decodes them by their ending, and readers of images ignore them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self

import numpy as np
from pydantic import field_validator

from gebm.cluster.errors import InputError
from gebm.cluster.npy import encode_npy
from gebm.cluster.pixel_arrays import encode_pixels
from gebm.cluster.settings import StrictModel
from gebm.cluster.shards import encode_png
from gebm.cluster.vectors import encode_vector

Format = Literal["png", "npy"]


class StoreSettings(StrictModel):
    """How samples are stored.

    format: of images, `png`, or `npy` for raw uint8 `(height, width, channels)`. Vectors are float32 `.npy`. None: png
    for images, npy for vectors.
    save: what is kept of every sample besides: `latents`, as `latent.npy`, float32 `(p,)`, of the model's prior;
    `energies`, as `energy.npy`, float32 `()`: `E(x)` of the sample before its pixels were rounded.
    """

    format: Format | None = None
    save: tuple[Literal["latents", "energies"], ...] = ()

    @field_validator("save")
    @classmethod
    def _in_one_order(cls, save: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted(set(save)))

    def of_samples(self, shape: Sequence[int]) -> Self:
        """These settings with the format spelt out for samples of `shape`. Raises `InputError` for vectors as PNG."""
        if len(shape) == 3:
            return self.model_copy(update={"format": self.format or "png"})
        if self.format == "png":
            raise InputError("--format png: the model makes vectors, which are stored as npy; leave the format out")
        return self.model_copy(update={"format": "npy"})


def stored_samples(
    values: np.ndarray,
    labels: Sequence[int] | None,
    first: int,
    *,
    image_format: Format = "png",
    latents: np.ndarray | None = None,
    energies: np.ndarray | None = None,
) -> Iterable[dict[str, str | bytes]]:
    """Shard samples of uint8 images `(n, channels, height, width)` or float32 vectors `(n, d)`.

    Keyed by their number in the set, from `first`. latents: float32 `(n, p)`, energies: float32 `(n,)`, kept beside
    them. Raises `InputError` for a vector that is not finite.
    """
    for number, value in enumerate(values):
        sample: dict[str, str | bytes] = {"__key__": f"{first + number:09d}"}
        if value.ndim == 3:
            pixels = value.transpose(1, 2, 0)
            sample[image_format] = encode_png(pixels) if image_format == "png" else encode_pixels(pixels)
        elif np.isfinite(value).all():
            sample["npy"] = encode_vector(value)
        else:
            raise InputError(
                f"sample {first + number} is not finite: its latent went where the base overflows; "
                "give a smaller sampler.step_size"
            )
        if labels is not None:
            sample["cls"] = str(labels[number]).encode()
        if latents is not None:
            sample["latent.npy"] = encode_npy(latents[number])
        if energies is not None:
            sample["energy.npy"] = encode_npy(energies[number])
        yield sample
