"""A set can be read in another form than it is stored in: every reader then sees the same squares."""

import io
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gebm.cluster.errors import InputError
from gebm.cluster.image_form import AS_STORED, ImageForm
from gebm.cluster.index import ShardIndex, build_index, index_digest, load_index, write_index
from gebm.cluster.lanes import LaneReader
from gebm.cluster.reader import iterate_batches, read_all, read_shard
from gebm.cluster.shards import decode_image, encode_png, write_shard


def decoded(image: np.ndarray, form: ImageForm) -> np.ndarray:
    """uint8 (height, width, 3) or (height, width) through a PNG."""
    return decode_image(encode_png(image), source="x", form=form)


def write_mixed(url: Path) -> str:
    """Two shards of smooth pictures, 20 to 60 pixels a side, PNG and JPEG, some of them grey; with labels."""
    random = np.random.default_rng(0)
    for shard in range(2):
        samples: list[dict[str, str | bytes]] = []
        for number in range(9):
            height, width = random.integers(20, 60, 2)
            small = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            picture = small.resize((int(width), int(height)), Image.Resampling.BICUBIC)
            buffer, kind = io.BytesIO(), ("PNG", "JPEG")[number % 2]
            (picture.convert("L") if number % 3 == 0 else picture).save(buffer, format=kind)
            field = {"PNG": "png", "JPEG": "jpg"}[kind]
            samples.append({"__key__": f"{shard}-{number}", field: buffer.getvalue(), "cls": b"%d" % (number % 2)})
        write_shard(str(url / f"{shard}.tar"), samples)
    return str(url)


def test_the_central_square_is_what_remains():
    image = np.zeros((20, 50, 3), np.uint8)
    image[..., 0] = 255
    image[:, 15:35] = (0, 255, 0)
    for turned in (image, image.transpose(1, 0, 2)):
        # At the border Lanczos weighs in a little of what lies beyond it.
        away = np.abs(decoded(turned, ImageForm(10)) - np.array([0.0, 255.0, 0.0])[:, None, None])
        assert away[:, 1:-1, 1:-1].max() <= 1 and away.max() < 20


def test_making_smaller_averages_instead_of_picking_pixels():
    chessboard = (np.indices((48, 48)).sum(0) % 2 * 255).astype(np.uint8)
    small = decoded(chessboard, ImageForm(16))
    assert small.shape == (1, 16, 16)
    assert np.abs(small[:, 2:-2, 2:-2].astype(int) - 127).max() <= 8


def test_an_image_of_the_wanted_form_stays_as_it_is():
    image = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    assert np.array_equal(decoded(image, ImageForm(12, 3)), image.transpose(2, 0, 1))


def test_channels_alone_leave_the_size():
    grey = np.random.default_rng(0).integers(0, 256, (7, 9), dtype=np.uint8)
    assert np.array_equal(decoded(grey, ImageForm(channels=3)), np.stack([grey] * 3))
    assert decoded(np.stack([grey] * 3, axis=2), ImageForm(channels=1)).tolist() == [grey.tolist()]


def test_every_reader_sees_the_same_squares(tmp_path: Path):
    url = write_mixed(tmp_path)
    index = build_index(url, form=ImageForm(16, 3))
    write_index(url, index)
    assert (index.image_shape, index.sample_bytes, index.total) == ((3, 16, 16), 768, 18)
    whole = read_all(url)
    assert whole.images.shape == (18, 3, 16, 16)
    shards = [read_shard(url, record, form=index.form) for record in index.shards]
    assert np.array_equal(np.concatenate([shard.images for shard in shards]), whole.images)
    assert np.array_equal(np.concatenate([batch.images for batch in iterate_batches(url, 5)]), whole.images)
    place = {image.tobytes(): number for number, image in enumerate(whole.images)}
    with closing(LaneReader(url, seed=0, batch_size=6, lanes=3)) as reader:
        for step in range(6):
            batch = reader.batch(step)
            assert batch.labels is not None and whole.labels is not None
            assert np.array_equal(batch.labels, whole.labels[[place[image.tobytes()] for image in batch.images]])


def test_the_digest_tells_the_form(make_shards: Callable[..., str]):
    url = make_shards((4,), size=16)
    forms = [AS_STORED, ImageForm(16), ImageForm(8), ImageForm(None, 3), ImageForm(8, 3)]
    assert len({index_digest(build_index(url, form=form)) for form in forms}) == len(forms)
    assert index_digest(build_index(url, form=ImageForm(8))) == index_digest(build_index(url, form=ImageForm(8)))


def test_images_of_differing_sizes_ask_for_a_size_and_differing_channels_for_channels(tmp_path: Path):
    url = write_mixed(tmp_path)
    with pytest.raises(InputError, match=r"0\.tar: sample '0-1' has .* --size N --channels 3") as error:
        build_index(url)
    assert str(error.value).count("\n") == 0
    with pytest.raises(InputError, match=r"sample '0-1' has 16x16 pixels and 3 channels.* index with --channels 3,"):
        build_index(url, form=ImageForm(16))
    with pytest.raises(InputError, match=r"index with --size N,"):
        build_index(url, form=ImageForm(None, 3))


def test_vectors_have_no_size(make_vector_shards: Callable[..., str]):
    with pytest.raises(InputError, match="holds vectors; --size and --channels are for images"):
        build_index(make_vector_shards(), form=ImageForm(16))


def test_a_corrupt_image_is_named_in_any_form(tmp_path: Path):
    write_shard(str(tmp_path / "s.tar"), [{"__key__": "bad", "png": encode_png(np.zeros((9, 9), np.uint8))[:-30]}])
    with pytest.raises(InputError, match=r"s\.tar: sample 'bad' holds a corrupt image"):
        build_index(str(tmp_path), form=ImageForm(4, 3))


def test_an_index_with_an_impossible_form_is_refused(make_shards: Callable[..., str]):
    url = make_shards((4,), size=16)
    for change in ({"channels": 2}, {"size": 0}):
        content = load_index(url).model_dump() | change
        with pytest.raises(ValueError, match=next(iter(change))):
            ShardIndex.model_validate(content)
