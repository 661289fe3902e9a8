"""Stored samples and what networks see: pixels are scaled, vectors are taken as they are."""

import pytest
import torch

from gebm.trainer.model import from_stored, from_uint8, to_stored


def test_images_are_scaled_and_vectors_are_not() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    vectors = torch.tensor([[0.0, -300.5, 1e6]])
    assert torch.equal(from_stored(pixels), from_uint8(pixels))
    assert torch.equal(from_stored(vectors), vectors)
    assert torch.equal(to_stored(from_stored(pixels)), pixels)
    assert torch.equal(to_stored(from_stored(vectors, torch.float64)), vectors)
    assert (
        from_stored(vectors, torch.float64).dtype == torch.float64
        and to_stored(vectors.double()).dtype == torch.float32
    )


@pytest.mark.parametrize("values", [torch.zeros(2, 3, dtype=torch.uint8), torch.zeros(1, 1, 4, 4), torch.zeros(3)])
def test_other_values_are_refused(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="uint8 images or float vectors"):
        from_stored(values)
