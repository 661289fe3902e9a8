"""The values themselves as features: pixels of images, numbers of vectors."""

from dataclasses import dataclass

import torch

NAME = "raw"


@dataclass(frozen=True)
class RawValues:
    """Takes samples as they are stored. Same interface as `Extractor`.

    Attributes:
        dimension: numbers in a sample.
        description: what the features depend on, with the keys of any extractor's.
    """

    dimension: int
    description: dict[str, str | int | None]

    def __call__(self, samples: torch.Tensor) -> torch.Tensor:
        """Features `(n, dimension)`, float32 on the CPU: samples `(n, ...)` laid flat, pixels from 0 to 255."""
        return samples.to("cpu", torch.float32).flatten(1)


def raw_values(dimension: int) -> RawValues:
    """The values of samples that hold `dimension` numbers each."""
    description: dict[str, str | int | None] = dict.fromkeys(("layer", "input_size", "weights"))
    return RawValues(dimension, {"name": NAME, **description, "dimension": dimension})
