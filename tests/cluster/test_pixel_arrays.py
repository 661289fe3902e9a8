"""Images as raw `.npy` are read like any other images, and are not mistaken for vectors."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import webdataset

from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import build_index, write_index
from gebm.cluster.pixel_arrays import encode_pixels
from gebm.cluster.reader import read_all
from gebm.cluster.shards import encode_png, write_shard
from gebm.cluster.vectors import encode_vector


def images(channels: int, count: int = 5) -> np.ndarray:
    return np.random.default_rng(channels).integers(0, 256, (count, 4, 6, channels), dtype=np.uint8)


def write_set(url: Path, field: str, encoded: list[bytes], **beside: bytes) -> str:
    extra = {name.replace("_", "."): data for name, data in beside.items()}
    write_shard(str(url / "a.tar"), [{"__key__": f"k{n}", field: data, **extra} for n, data in enumerate(encoded)])
    return str(url)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("form", [ImageForm(), ImageForm(3, 3), ImageForm(None, 1)])
def test_raw_images_read_as_their_png(channels: int, form: ImageForm, tmp_path: Path) -> None:
    pixels = images(channels)
    urls = [
        write_set(tmp_path / "png", "png", [encode_png(image) for image in pixels]),
        write_set(tmp_path / "npy", "npy", [encode_pixels(image) for image in pixels]),
    ]
    for url in urls:
        write_index(url, build_index(url, form=form))
    png, npy = (read_all(url) for url in urls)
    assert npy.images.dtype == np.uint8 and npy.images.shape[0] == 5
    assert np.array_equal(png.images, npy.images) and png.keys == npy.keys
    if form == ImageForm():
        assert np.array_equal(npy.images, pixels.transpose(0, 3, 1, 2))


def test_arrays_beside_a_raw_image_or_a_vector_are_left_alone(tmp_path: Path) -> None:
    latent = encode_vector(np.zeros(7, np.float32))
    of_images = write_set(tmp_path / "a", "npy", [encode_pixels(images(3)[0])], latent_npy=latent, energy_npy=latent)
    of_vectors = write_set(tmp_path / "b", "npy", [encode_vector(np.ones(2, np.float32))], latent_npy=latent)
    assert build_index(of_images).image_shape == (3, 4, 6)
    assert build_index(of_vectors).image_shape == (2,)


def test_a_set_holds_raw_images_or_vectors_and_not_both(tmp_path: Path) -> None:
    write_set(tmp_path, "npy", [encode_pixels(images(3)[0]), encode_vector(np.ones(2, np.float32))])
    with pytest.raises(InputError, match="'k1' has a vector of length 2 where the first of the set has 4x6 pixels"):
        build_index(str(tmp_path))


def test_webdataset_decodes_them_by_their_ending(tmp_path: Path) -> None:
    pixels = images(3)
    url = write_set(tmp_path, "npy", [encode_pixels(image) for image in pixels])
    read = list(webdataset.WebDataset(f"{url}/a.tar", shardshuffle=False).decode())
    assert np.array_equal(np.stack([sample["npy"] for sample in read]), pixels)


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: data + b"\0"])
def test_a_raw_image_of_the_wrong_length_is_refused_by_shard_and_key(change, tmp_path: Path) -> None:
    good = encode_pixels(images(1)[0])
    write_set(tmp_path, "npy", [good, change(good)])
    with pytest.raises(InputError, match=r"a\.tar: sample 'k1' has 2[35] bytes of pixels where its header says 24"):
        build_index(str(tmp_path))


def test_an_array_in_fortran_order_is_the_image_that_it_was(tmp_path: Path) -> None:
    image, buffer = images(3)[0], io.BytesIO()
    np.save(buffer, np.asfortranarray(image))
    url = write_set(tmp_path, "npy", [buffer.getvalue()])
    write_index(url, build_index(url))
    assert np.array_equal(read_all(url).images[0], image.transpose(2, 0, 1))


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 2), (0, 6, 3), (1, 4, 6, 3)])
def test_only_grey_and_rgb_images_are_written(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"uint8 of shape \(height, width, 1 or 3\)"):
        encode_pixels(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float32"):
        encode_pixels(np.zeros((4, 6, 3), np.float32))
