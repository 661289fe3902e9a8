"""Shards: the same samples are the same bytes; images of every kind come out as 8-bit grey or RGB."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.shards import decode_image, decompress, encode_png, parse_tar, write_shard

WRITER = """
import sys
import numpy as np
from gebm.cluster.shards import encode_png, write_shard
random = np.random.default_rng(3)
write_shard(sys.argv[1], (
    {"__key__": f"{n:04d}", "cls": b"%d" % (n % 7), "png": encode_png(image)}
    for n, image in enumerate(random.integers(0, 256, (40, 9, 8, 3), np.uint8))
))
"""


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_the_same_samples_are_the_same_bytes_in_any_process(tmp_path: Path, ending: str) -> None:
    written = []
    for number, environment in enumerate([{"PYTHONHASHSEED": "1", "TZ": "UTC"}, {"PYTHONHASHSEED": "2"}]):
        path = tmp_path / f"run-{number}" / f"name-{number}{ending}"
        subprocess.run([sys.executable, "-c", WRITER, str(path)], env=environment, check=True)
        written.append(path.read_bytes())
    assert written[0] == written[1]


def test_the_record_says_what_was_written(tmp_path: Path) -> None:
    url = str(tmp_path / "s.tar")
    picture = encode_png(np.zeros((4, 4), np.uint8))
    record = write_shard(url, [{"__key__": f"k{n}", "png": picture, "cls": b"0"} for n in range(5)])
    data = storage.read_bytes(url)
    assert (record.name, record.count, record.bytes) == ("s.tar", 5, len(data))
    assert record.sha256 == storage.sha256(url)
    assert record.starts.tolist() == [sample.offset for sample in parse_tar(data, source=url)]
    for number, offset in enumerate(record.starts):
        assert data[offset:].startswith(b"k%d.cls\0" % number)


def test_the_webdataset_library_reads_our_shards(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
    url = str(tmp_path / "s.tar")
    write_shard(
        url,
        [{"__key__": f"a/{n}", "png": encode_png(i), "cls": b"%d" % n} for n, i in enumerate(images)],
    )
    read = list(webdataset.WebDataset(url, shardshuffle=False).decode("rgb8"))
    assert [sample["__key__"] for sample in read] == [f"a/{n}" for n in range(6)]
    assert [sample["cls"] for sample in read] == list(range(6))
    assert np.array_equal(np.stack([sample["png"] for sample in read]), images)


def test_a_failing_source_of_samples_leaves_no_shard(tmp_path: Path) -> None:
    def samples():
        yield {"__key__": "a", "png": b"x"}
        raise RuntimeError("the sampler diverged")

    with pytest.raises(RuntimeError, match="diverged"):
        write_shard(str(tmp_path / "s.tar"), samples())
    assert storage.list_names(str(tmp_path)) == []


@pytest.mark.parametrize("keys", [["a.b"], [""], ["a", "a"], ["dir.v1/a.b"]])
def test_a_key_that_would_be_read_as_another_is_refused(tmp_path: Path, keys: list[str]) -> None:
    with pytest.raises(ValueError, match="key"):
        write_shard(str(tmp_path / "s.tar"), [{"__key__": key, "png": b"x"} for key in keys])


def test_long_and_foreign_keys_come_back(tmp_path: Path) -> None:
    keys = ["folder.v1/" + "n" * 180, "Übung/数字"]
    record = write_shard(str(tmp_path / "s.tar"), [{"__key__": key, "txt": b"x"} for key in keys])
    samples = list(parse_tar(storage.read_bytes(str(tmp_path / "s.tar")), source="s.tar"))
    assert [sample.key for sample in samples] == keys
    assert [sample.offset for sample in samples] == record.starts.tolist()


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (5, 4, 3)])
def test_png_round_trip_is_exact(shape: tuple[int, ...]) -> None:
    image = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    decoded = decode_image(encode_png(image), source="x")
    assert decoded.dtype == np.uint8 and decoded.flags.c_contiguous
    assert np.array_equal(decoded, np.atleast_3d(image).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("mode", "kind", "channels"),
    [
        ("1", "PNG", 1),
        ("L", "JPEG", 1),
        ("LA", "PNG", 1),
        ("P", "PNG", 3),
        ("RGBA", "PNG", 3),
        ("CMYK", "JPEG", 3),
        ("RGB", "WEBP", 3),
    ],
)
def test_other_kinds_of_image_become_grey_or_rgb(mode: str, kind: str, channels: int) -> None:
    grey = np.tile(np.array([0, 255], dtype=np.uint8).repeat(8), (16, 1))
    buffer = io.BytesIO()
    Image.fromarray(grey).convert("RGB").convert(mode).save(buffer, format=kind)
    decoded = decode_image(buffer.getvalue(), source="x")
    assert decoded.shape == (channels, 16, 16)
    assert np.abs(decoded.astype(int) - grey).max() <= 16  # JPEG and WebP are lossy


def test_sixteen_bit_grey_keeps_its_high_bytes() -> None:
    buffer = io.BytesIO()
    values = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(buffer, format="PNG")
    assert decode_image(buffer.getvalue(), source="x").tolist() == [[[0, 0, 1, 255]]]


def test_alpha_is_dropped_not_blended() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.full((2, 2, 4), [200, 100, 50, 0], np.uint8)).save(buffer, format="PNG")
    assert decode_image(buffer.getvalue(), source="x")[:, 0, 0].tolist() == [200, 100, 50]


@pytest.mark.parametrize("keep", [0, 1, 20, 60, -40, -20])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_cut_image_is_an_input_error_that_names_its_source(kind: str, keep: int) -> None:
    buffer = io.BytesIO()
    image = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(image).save(buffer, format=kind)
    with pytest.raises(InputError, match=r"^shard s\.tar: sample 'k' .*corrupt image"):
        decode_image(buffer.getvalue()[:keep], source="shard s.tar: sample 'k'")


def test_one_flipped_bit_in_a_png_is_found() -> None:
    data = bytearray(encode_png(np.random.default_rng(1).integers(0, 256, (16, 16), dtype=np.uint8)))
    for position in range(60, len(data), 37):
        data[position] ^= 4
        with pytest.raises(InputError, match="corrupt image"):
            decode_image(bytes(data), source="x")
        data[position] ^= 4
    assert decode_image(bytes(data), source="x").shape == (1, 16, 16)


def test_a_float_image_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((2, 2), np.float32)).save(buffer, format="TIFF")
    with pytest.raises(InputError, match="mode F"):
        decode_image(buffer.getvalue(), source="x")


def test_bytes_that_are_no_gzip_are_named() -> None:
    with pytest.raises(InputError, match=r"b\.tar\.gz is not a sound gzip file"):
        decompress(b"no gzip at all", source="b.tar.gz")
