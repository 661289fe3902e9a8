"""Sets of vectors go the way of images: same bytes, same order, and one clear refusal of what is no vector."""

import io
import json
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import webdataset

from gebm.cluster import lane_order, storage
from gebm.cluster.errors import InputError
from gebm.cluster.image_form import AS_STORED
from gebm.cluster.index import build_index, load_index
from gebm.cluster.lane_order import LaneOrder
from gebm.cluster.lanes import LaneReader
from gebm.cluster.reader import iterate_batches, read_all, read_shard
from gebm.cluster.shards import encode_png, write_shard
from gebm.cluster.vectors import decode_vector, encode_vector


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def vector(*values: float) -> bytes:
    return npy(np.array(values, dtype=np.float32))


def test_a_vector_comes_back_bit_for_bit_and_is_what_numpy_writes() -> None:
    values = np.array([0.1, -0.0, 3e38, 1e-45], dtype=np.float32)
    data = encode_vector(values)
    assert data == npy(values)
    assert decode_vector(data, source="x").tobytes() == values.tobytes()
    assert decode_vector(encode_vector(values[::-2]), source="x").tolist() == values[::-2].tolist()


@pytest.mark.parametrize(
    "values", [np.zeros(3), np.zeros((3, 1), np.float32), np.zeros(0, np.float32), np.float32([np.inf, 0])]
)
def test_only_finite_float32_vectors_are_written(values: np.ndarray) -> None:
    with pytest.raises(ValueError, match="a vector must be"):
        encode_vector(values)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no sound .npy array"),
        (b"not an array", "no sound .npy array"),
        (vector(1, 2)[:40], "no sound .npy array"),
        (vector(1, 2)[:-1], "has 7 bytes of values where its header says 2 float32"),
        (vector(1, 2) + b"\0", "has 9 bytes of values where its header says 2 float32"),
        (vector(1, 2).replace(b"(2,)", b"(9,)"), "has 8 bytes of values where its header says 9 float32"),
        (npy(np.zeros(2)), "array of <f8 of shape (2,)"),
        (npy(np.zeros(2, np.uint8)), "array of |u1 of shape (2,)"),
        (npy(np.zeros(2, ">f4")), "array of >f4 of shape (2,)"),
        (npy(np.zeros((2, 1), np.float32)), "array of <f4 of shape (2, 1)"),
        (npy(np.float32(1)), "array of <f4 of shape ()"),
        (npy(np.zeros(0, np.float32)), "array of <f4 of shape (0,)"),
        (npy(np.array([{"a": 1}], dtype=object), allow_pickle=True), "array of Python objects"),
        (vector(1, np.nan), "holds NaN or infinity"),
        (vector(-np.inf, 1), "holds NaN or infinity"),
    ],
)
def test_what_is_no_float32_vector_is_refused_by_shard_and_key(data: bytes, message: str, tmp_path: Path) -> None:
    write_shard(str(tmp_path / "a.tar"), [{"__key__": "k0", "npy": vector(1, 2)}, {"__key__": "k1", "npy": data}])
    with pytest.raises(InputError) as refusal:
        build_index(str(tmp_path))
    assert f"{tmp_path}/a.tar: sample 'k1'" in str(refusal.value) and message in str(refusal.value)


def test_pickled_objects_are_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    data = npy(np.array([Trap()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="Python objects"):
        decode_vector(data, source="x")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"npy": vector(1, 2, 3)}, "a vector of length 3 where the first of the set has a vector of length 2"),
        (
            {"png": encode_png(np.zeros((4, 5), np.uint8))},
            "4x5 pixels and 1 channel where the first of the set has a vector of length 2",
        ),
        ({"a.npy": vector(1, 2), "b.npy": vector(1, 2)}, "has 0 images and 2 vectors"),
        ({"txt": b"nothing"}, "has 0 images and 0 vectors"),
    ],
)
def test_every_sample_of_a_set_is_of_one_kind_and_shape(bad: dict[str, bytes], message: str, tmp_path: Path) -> None:
    write_shard(str(tmp_path / "a.tar"), [{"__key__": "k0", "npy": vector(1, 2)}])
    write_shard(str(tmp_path / "b.tar"), [{"__key__": "k1", **bad}])
    with pytest.raises(InputError) as refusal:
        build_index(str(tmp_path))
    assert f"{tmp_path}/b.tar: sample 'k1'" in str(refusal.value) and message in str(refusal.value)


def test_a_vector_beside_an_image_is_left_alone(tmp_path: Path) -> None:
    """Embeddings lie beside the images of many public sets."""
    picture = encode_png(np.full((4, 5), 7, np.uint8))
    write_shard(str(tmp_path / "a.tar"), [{"__key__": "k0", "png": picture, "clip.npy": npy(np.zeros(2))}])
    assert build_index(str(tmp_path)).image_shape == (1, 4, 5)


def test_an_index_says_that_the_set_holds_vectors(make_vector_shards: Callable[..., str], tiny_shards: str) -> None:
    index = load_index(make_vector_shards((5, 3), dimension=7, labels=True))
    assert (index.image_shape, index.total, index.labels) == ((7,), 8, True)
    assert index.holds_vectors and index.sample_bytes == 28
    assert not load_index(tiny_shards).holds_vectors and load_index(tiny_shards).sample_bytes == 1024


@pytest.mark.parametrize("shape", [[], [2, 3], [0], [3, 0, 8]])
def test_an_index_of_neither_images_nor_vectors_is_refused(
    make_vector_shards: Callable[..., str], shape: list[int]
) -> None:
    url = make_vector_shards((4,))
    location = Path(url) / "index.json"
    location.write_text(json.dumps(json.loads(location.read_text()) | {"image_shape": shape}))
    with pytest.raises(InputError, match=r"index\.json is not a readable index \(image_shape: .*must be"):
        load_index(url)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_vectors_are_read_in_index_order_as_they_were_written(
    make_vector_shards: Callable[..., str], ending: str
) -> None:
    url = make_vector_shards((9, 13, 1), ending=ending, labels=True)
    random = np.random.default_rng(0)
    written, labels = [], []
    for _ in range(23):
        written.append(random.normal(size=3).astype(np.float32))
        labels.append(int(random.integers(3)))
    whole = read_all(url)
    assert whole.images.dtype == np.float32 and np.array_equal(whole.images, np.stack(written))
    assert whole.labels is not None and whole.labels.tolist() == labels
    batches = list(iterate_batches(url, 4, 7, 22))
    assert np.array_equal(np.concatenate([batch.images for batch in batches]), whole.images[7:22])
    assert np.array_equal(read_shard(url, load_index(url).shards[1], 2, 5, form=AS_STORED).images, whole.images[11:14])


def test_the_webdataset_library_reads_our_vectors_and_we_read_its(
    make_vector_shards: Callable[..., str], tmp_path: Path
) -> None:
    url = make_vector_shards((6,))
    theirs = list(webdataset.WebDataset(storage.join(url, "shard-000.tar"), shardshuffle=False).decode())
    assert np.array_equal(np.stack([sample["npy"] for sample in theirs]), read_all(url).images)
    with webdataset.TarWriter(str(tmp_path / "w.tar")) as writer:
        for sample in theirs:
            writer.write({"__key__": sample["__key__"], "npy": sample["npy"]})
    assert build_index(str(tmp_path)).image_shape == (3,)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_one_and_two_ranks_see_the_same_global_batches(make_vector_shards: Callable[..., str], ending: str) -> None:
    url = make_vector_shards((31, 7, 22), labels=True, ending=ending)
    everything = read_all(url)
    assert everything.labels is not None
    place = {vector.tobytes(): number for number, vector in enumerate(everything.images)}
    for step in (0, 3, 250):
        seen = {}
        for rank, world in ((0, 1), (0, 2), (1, 2)):
            with closing(LaneReader(url, seed=5, batch_size=16, lanes=8, rank=rank, world=world)) as reader:
                batch = reader.batch(step)
                rows = [place[vector.tobytes()] for vector in batch.images]
                assert batch.images.dtype == np.float32 and batch.images.shape == (16 // world, 3)
                assert np.array_equal(batch.images, everything.images[rows])
                assert batch.labels is not None and np.array_equal(batch.labels, everything.labels[rows])
                seen[rank, world] = dict(zip(reader.rows.tolist(), rows, strict=True))
        assert seen[0, 1] == seen[0, 2] | seen[1, 2]


def test_windows_of_vectors_are_measured_in_their_bytes(
    make_vector_shards: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_order, "WINDOWS_BYTES", 1000)
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (1, 1024))
    index = load_index(make_vector_shards((40,), dimension=5))
    assert LaneOrder(index, seed=0, batch_size=2, lanes=2).window == 1000 // (2 * 20)


def test_a_set_of_vectors_cut_anywhere_is_an_error_that_names_it(
    make_vector_shards: Callable[..., str], tmp_path: Path
) -> None:
    data = storage.read_bytes(storage.join(make_vector_shards((6,)), "shard-000.tar"))
    content = 6 * 2 * tarfile.BLOCKSIZE
    for cut in sorted({*range(0, content, 512), *range(1, content, 301), content}):
        storage.write_bytes_atomic(str(tmp_path / "s.tar"), data[:cut])
        with pytest.raises(InputError, match=r"/s\.tar (is truncated|is empty|is not)"):
            build_index(str(tmp_path))
