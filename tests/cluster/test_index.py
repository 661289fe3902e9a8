"""The index: a bad shard is one message that names the shard and the key, never a smaller data set."""

import gzip
import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import build_index, index_digest, load_index, make_index, write_index
from gebm.cluster.shards import ShardRecord, encode_png, pack_offsets, write_shard


def picture(height: int = 8, width: int = 8, channels: int = 1, seed: int = 0) -> bytes:
    random = np.random.default_rng(seed)
    return encode_png(random.integers(0, 256, (height, width, channels), dtype=np.uint8))


def sound_shard(url: str, keys: range = range(6)) -> None:
    write_shard(url, [{"__key__": f"k{n}", "png": picture(seed=n), "cls": b"%d" % n} for n in keys])


def test_an_index_says_what_the_set_holds(make_shards: Callable[..., str]) -> None:
    url = make_shards((5, 3), size=16, channels=3)
    index = load_index(url)
    assert index.image_shape == (3, 16, 16)
    assert index.total == 8 and [record.count for record in index.shards] == [5, 3]
    assert index.labels and index.classes is not None and 1 <= index.classes <= 10
    assert [record.name for record in index.shards] == ["shard-000.tar", "shard-001.tar"]
    assert index == make_index(list(index.shards), index.image_shape, index.classes)


def test_a_set_without_labels_says_so(make_shards: Callable[..., str]) -> None:
    index = load_index(make_shards((4,), labels=False))
    assert not index.labels and index.classes is None


def test_shards_written_by_the_webdataset_library_are_indexed(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    with webdataset.ShardWriter(str(tmp_path / "w-%02d.tar"), maxcount=7, verbose=0) as writer:
        for number in range(20):
            image = random.integers(0, 256, (6, 6, 3), dtype=np.uint8)
            writer.write({"__key__": f"{number:03d}", "png": image, "cls": number % 4, "json": {"a": 1}})
    index = build_index(str(tmp_path))
    assert (index.total, index.image_shape, index.classes) == (20, (3, 6, 6), 4)
    assert [record.count for record in index.shards] == [7, 7, 6]


def test_the_pattern_picks_shards_and_hidden_files_are_none(tmp_path: Path) -> None:
    for name in ("train-0.tar", "train-1.tar.gz", "test-0.tar"):
        sound_shard(str(tmp_path / name))
    (tmp_path / ".train-2.tar.abc.part").write_bytes(b"half")
    (tmp_path / "notes.tar.txt").write_bytes(b"text")
    assert [s.name for s in build_index(str(tmp_path), "train-*").shards] == ["train-0.tar", "train-1.tar.gz"]
    assert len(build_index(str(tmp_path)).shards) == 3


def test_progress_is_told_after_each_shard(tmp_path: Path) -> None:
    for number in range(3):
        sound_shard(str(tmp_path / f"{number}.tar"))
    told: list[tuple[int, int]] = []
    build_index(str(tmp_path), progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_the_digest_is_of_contents_not_names(tmp_path: Path) -> None:
    for folder, names in (("a", ("0.tar", "1.tar")), ("b", ("x.tar", "y.tar")), ("c", ("1.tar", "0.tar"))):
        sound_shard(str(tmp_path / folder / names[0]))
        sound_shard(str(tmp_path / folder / names[1]), range(6, 9))
    first, renamed, swapped = (index_digest(build_index(str(tmp_path / folder))) for folder in "abc")
    assert first == renamed != swapped


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_a_shard_cut_anywhere_is_an_error_that_names_it(tmp_path: Path, ending: str) -> None:
    sound_shard(str(tmp_path / "whole" / f"s{ending}"))
    data = storage.read_bytes(str(tmp_path / "whole" / f"s{ending}"))
    # The tar's own end (two zero blocks and padding) may be cut without loss: it ends 8,192 bytes before.
    content = len(data) if ending == ".tar.gz" else 6 * 2 * 2 * tarfile.BLOCKSIZE
    cuts = sorted({*range(0, content, 512), *range(1, content, 701), content - 1, content})
    for cut in cuts:
        if cut == len(data):
            continue
        url = str(tmp_path / "cut" / f"s{ending}")
        storage.write_bytes_atomic(url, data[:cut])
        with pytest.raises(InputError, match=r"cut/s\.tar.* (is truncated|is empty|is not)") as error:
            build_index(str(tmp_path / "cut"))
        assert "write it again" in str(error.value), cut


def test_a_truncation_names_the_last_good_key(tmp_path: Path) -> None:
    sound_shard(str(tmp_path / "s.tar"))
    offsets = build_index(str(tmp_path)).shards[0].starts
    data = (tmp_path / "s.tar").read_bytes()
    (tmp_path / "s.tar").write_bytes(data[: offsets[4] + 1536 + 20])
    with pytest.raises(InputError, match=r"s\.tar is truncated at sample 'k4'"):
        build_index(str(tmp_path))


def test_a_damaged_header_in_the_middle_is_an_error(tmp_path: Path) -> None:
    sound_shard(str(tmp_path / "s.tar"))
    offsets = build_index(str(tmp_path)).shards[0].starts
    data = bytearray((tmp_path / "s.tar").read_bytes())
    data[offsets[3] + 5] ^= 0xFF
    (tmp_path / "s.tar").write_bytes(data)
    with pytest.raises(InputError, match=r"s\.tar is corrupt after sample 'k2'"):
        build_index(str(tmp_path))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (bytes(10240), "holds no samples"),
        (b"this is not a tar at all" * 100, "is not a tar archive"),
    ],
)
def test_a_shard_without_samples_is_an_error_that_names_it(tmp_path: Path, data: bytes, message: str) -> None:
    sound_shard(str(tmp_path / "a.tar"))
    (tmp_path / "b.tar").write_bytes(data)
    with pytest.raises(InputError, match=rf"/b\.tar {message}"):
        build_index(str(tmp_path))


def test_an_empty_compressed_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    for data in (b"", gzip.compress(b"")):
        (tmp_path / "b.tar.gz").write_bytes(data)
        with pytest.raises(InputError, match=r"/b\.tar\.gz is (empty|truncated)"):
            build_index(str(tmp_path))


def test_a_damaged_compressed_shard_is_an_error_that_names_it(tmp_path: Path) -> None:
    sound_shard(str(tmp_path / "s.tar.gz"))
    data = bytearray((tmp_path / "s.tar.gz").read_bytes())
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "s.tar.gz").write_bytes(data)
    with pytest.raises(InputError, match=r"/s\.tar\.gz "):
        build_index(str(tmp_path))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"png": b"\x89PNG no"}, "holds a corrupt image"),
        ({"png": picture()[:-30]}, "holds a corrupt image"),
        ({"png": picture(8, 9)}, "8x9 pixels and 1 channel where the first of the set has 8x8"),
        ({"png": picture(8, 8, 3)}, "8x8 pixels and 3 channels where the first of the set has 8x8"),
        ({"txt": b"no image"}, "has 0 images"),
        ({"png": picture(), "jpg": picture()}, "has 2 images"),
        ({"png": picture(), "cls": b"cat"}, "label b'cat'"),
        ({"png": picture(), "cls": b"-1"}, "label b'-1'"),
        ({"png": picture(), "cls": None}, "has no label"),
    ],
)
def test_a_bad_sample_is_an_error_that_names_shard_and_key(
    tmp_path: Path, bad: dict[str, bytes | None], message: str
) -> None:
    sound_shard(str(tmp_path / "a.tar"))
    samples = [
        {"__key__": "k6", "png": picture(), "cls": b"1"},
        {k: v for k, v in ({"__key__": "k7", "cls": b"2"} | bad).items() if v is not None},
    ]
    write_shard(str(tmp_path / "b.tar"), samples)  # type: ignore[arg-type]
    with pytest.raises(InputError) as error:
        build_index(str(tmp_path))
    assert "b.tar: sample 'k7'" in str(error.value) and message in str(error.value)


def test_a_field_twice_in_a_sample_is_an_error(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for name in ("k0.png", "k0.cls", "k0.png"):
            data = picture() if name.endswith("png") else b"1"
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(InputError, match=r"s\.tar: sample 'k0' has the field 'png' twice"):
        build_index(str(tmp_path))


def test_a_directory_without_shards_is_an_error(tmp_path: Path) -> None:
    for url in (str(tmp_path), str(tmp_path / "nowhere")):
        with pytest.raises(InputError, match="holds no shard"):
            build_index(url)


def test_a_set_without_index_tells_which_command_makes_it(tmp_path: Path) -> None:
    sound_shard(str(tmp_path / "s.tar"))
    with pytest.raises(InputError, match=rf"gebm data index {tmp_path}"):
        load_index(str(tmp_path))


def test_a_shard_gone_or_resized_since_it_was_indexed_is_named(tiny_shards: str) -> None:
    shard = Path(tiny_shards) / "shard-001.tar"
    data = shard.read_bytes()
    shard.write_bytes(data[:-512])
    with pytest.raises(InputError, match=r"shard-001\.tar has .* bytes where its index says"):
        load_index(tiny_shards)
    shard.unlink()
    with pytest.raises(InputError, match=r"shard-001\.tar is missing"):
        load_index(tiny_shards)
    shard.write_bytes(data)
    assert load_index(tiny_shards).total == 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 99}, "format_version 99"),
        ({"size": 0}, "size"),
        ({"channels": 2}, "channels"),
        ({"total": "many"}, "total"),
        ({"colour": 1}, "colour"),
    ],
)
def test_an_index_of_another_format_is_refused(tiny_shards: str, change: dict, message: str) -> None:
    location = Path(tiny_shards) / "index.json"
    location.write_text(json.dumps(json.loads(location.read_text()) | change))
    with pytest.raises(InputError, match=message):
        load_index(tiny_shards)


def test_a_shard_set_works_on_an_object_store(tiny_shards: str, tmp_path: Path) -> None:
    url = f"memory://{tmp_path.name}/set"
    for name in storage.list_names(tiny_shards):
        if name != "index.json":
            storage.write_bytes_atomic(storage.join(url, name), (Path(tiny_shards) / name).read_bytes())
    write_index(url, build_index(url))
    assert load_index(url) == load_index(tiny_shards)
    storage.remove(url)


def test_a_copied_set_has_the_same_digest(tiny_shards: str, tmp_path: Path) -> None:
    shutil.copytree(tiny_shards, tmp_path / "copy")
    assert index_digest(load_index(str(tmp_path / "copy"))) == index_digest(load_index(tiny_shards))


def test_an_index_of_format_1_with_offsets_as_numbers_is_read(tiny_shards: str) -> None:
    index = load_index(tiny_shards)
    content = json.loads(index.model_dump_json(exclude={"size", "channels"})) | {"format_version": 1}
    for shard, record in zip(content["shards"], index.shards, strict=True):
        shard["offsets"] = record.starts.tolist()
    (Path(tiny_shards) / "index.json").write_text(json.dumps(content))
    assert load_index(tiny_shards).shards == index.shards


@pytest.mark.parametrize("damage", ["eJxj", "no base64!", [0, 512], [0, 100, 200, 300], [1536, 512, 0, 2048]])
def test_offsets_that_cannot_be_are_refused(make_shards: Callable[..., str], damage: object) -> None:
    url = make_shards((4,), size=8)
    content = json.loads((Path(url) / "index.json").read_text())
    content["shards"][0]["offsets"] = damage
    (Path(url) / "index.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"not a readable index \(shards\.0.*gebm data index"):
        load_index(url)


def test_an_index_takes_about_a_byte_a_sample() -> None:
    """A thousand samples of 1 to 8 tar blocks each, in any order: 3 bits a sample before base64."""
    distances = 512 * np.random.default_rng(0).integers(3, 11, 1000)
    offsets = np.cumsum(distances).tolist()
    record = ShardRecord(name="0.tar", count=1000, bytes=9, sha256="0", offsets=pack_offsets(offsets))
    assert record.starts.tolist() == offsets
    assert len(make_index([record], (1, 8, 8), None).model_dump_json()) < 1200
