"""Samples at known offsets: the same as a walk through the tar gives, from any writer and from damaged bytes."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from gebm.cluster.errors import InputError
from gebm.cluster.shards import Sample, encode_png, parse_tar, write_shard
from gebm.cluster.tar_samples import _plain_samples, samples_at

COUNT = 40


def fields(number: int) -> dict[str, bytes]:
    image = np.random.default_rng(number).integers(0, 256, (4 + number, 20), dtype=np.uint8)
    return {"cls": b"%d" % (number % 3), "json": b"", "png": encode_png(image)}


def ours(path: Path) -> None:
    write_shard(str(path), [{"__key__": f"{n:04d}", **fields(n)} for n in range(COUNT)])


def ours_with_long_and_foreign_keys(path: Path) -> None:
    write_shard(str(path), [{"__key__": f"folder/{'ü' * (3 * n)}-{n}", **fields(n)} for n in range(COUNT)])


def webdatasets(path: Path) -> None:
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for number in range(COUNT):
            writer.write({"__key__": f"{number:04d}", **fields(number)})


def plain_tar(form: int, names: Callable[[int], str], extras: bool = False) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with tarfile.open(path, "w", format=form) as archive:
            for number in range(COUNT):
                if extras and number % 7 == 0:
                    folder = tarfile.TarInfo(f"folder-{number}")
                    folder.type = tarfile.DIRTYPE
                    archive.addfile(folder)
                    archive.addfile(tarfile.TarInfo("__about__"))
                for ending, data in fields(number).items():
                    member = tarfile.TarInfo(f"{names(number)}.{ending}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))

    return write


def gnu(path: Path) -> None:
    plain_tar(tarfile.GNU_FORMAT, lambda number: f"./{number}")(path)


def ustar_with_long_names(path: Path) -> None:
    plain_tar(tarfile.USTAR_FORMAT, lambda number: f"{'d' * 90}/{'n' * 40}-{number}")(path)


def gnu_with_long_names(path: Path) -> None:
    plain_tar(tarfile.GNU_FORMAT, lambda number: f"{'n' * 140}-{number}")(path)


def with_folders_and_notes(path: Path) -> None:
    plain_tar(tarfile.USTAR_FORMAT, str, extras=True)(path)


PLAIN = [ours, webdatasets, gnu]
OTHERS = [ours_with_long_and_foreign_keys, ustar_with_long_names, gnu_with_long_names, with_folders_and_notes]


def written(write: Callable[[Path], None], folder: Path) -> tuple[bytes, list[Sample]]:
    """The bytes of a tar and the samples that a walk through it gives."""
    write(folder / "s.tar")
    data = (folder / "s.tar").read_bytes()
    return data, list(parse_tar(data, source="s.tar"))


def begins(samples: list[Sample]) -> np.ndarray:
    return np.array([sample.offset for sample in samples], np.int64)


@pytest.mark.parametrize("write", PLAIN + OTHERS)
@pytest.mark.parametrize("at_once", [7, 512])
def test_the_samples_of_any_writer_are_those_that_a_walk_gives(
    write: Callable[[Path], None], at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gebm.cluster.tar_samples.SAMPLES_AT_ONCE", at_once)
    data, walked = written(write, tmp_path)
    found = list(samples_at(data, begins(walked), source="s.tar"))
    assert [(s.key, s.fields) for s in found] == [(s.key, s.fields) for s in walked]
    assert len(found) == COUNT and found[7].fields == fields(7)
    part = data[walked[5].offset : walked[33].offset]
    found = list(samples_at(part, begins(walked[5:33]) - walked[5].offset, source="s.tar"))
    assert [(s.key, s.fields) for s in found] == [(s.key, s.fields) for s in walked[5:33]]


@pytest.mark.parametrize("write", PLAIN)
def test_plain_tars_need_no_walk(write: Callable[[Path], None], tmp_path: Path) -> None:
    data, walked = written(write, tmp_path)
    assert _plain_samples(data, begins(walked), len(data)) == walked


@pytest.mark.parametrize("write", PLAIN)
def test_a_damaged_byte_is_an_error_or_what_a_walk_reads(write: Callable[[Path], None], tmp_path: Path) -> None:
    sound, walked = written(write, tmp_path)
    starts = begins(walked)
    random = np.random.default_rng(0)
    in_headers = [int(start) + int(place) for start in starts[::9] for place in random.integers(0, 512, 40)]
    errors = 0
    for position in [*in_headers, *random.integers(0, len(sound), 60).tolist()]:
        data = bytearray(sound)
        data[position] ^= 1 << int(random.integers(8))
        try:
            found = list(samples_at(bytes(data), starts, source="s.tar"))
        except InputError as error:
            errors += 1
            assert "s.tar" in str(error)
        else:
            assert found == list(parse_tar(bytes(data), source="s.tar")), position
    assert errors > 100


def test_a_tar_cut_anywhere_is_an_error_that_names_it(tmp_path: Path) -> None:
    data, walked = written(ours, tmp_path)
    content = len(data.rstrip(b"\0"))
    for cut in [*range(0, content, 1111), content - 1]:
        with pytest.raises(InputError, match=r"shard s\.tar"):
            list(samples_at(data[:cut], begins(walked), source="s.tar"))


def test_more_fewer_or_other_samples_than_named_are_an_error(tmp_path: Path) -> None:
    data, walked = written(ours, tmp_path)
    starts = begins(walked)
    shifted = starts.copy()
    shifted[20] += 512
    for wrong in (starts[:-1], np.append(starts, len(data) - 512), shifted, starts[::2]):
        with pytest.raises(InputError, match=r"shard s\.tar"):
            list(samples_at(data, wrong, source="s.tar"))


def test_a_hole_is_not_taken_for_the_end(tmp_path: Path) -> None:
    """A header of zeros looks like the end-of-archive mark; what stands behind it says that it is none."""
    data, walked = written(ours, tmp_path)
    for sample in (walked[3], walked[-1]):
        hole = sample.offset + 2 * 512  # behind .cls and its header
        damaged = data[:hole] + bytes(512) + data[hole + 512 :]
        with pytest.raises(InputError, match=r"shard s\.tar"):
            list(samples_at(damaged, begins(walked), source="s.tar"))
        with pytest.raises(InputError, match=r"s\.tar goes on after its end-of-archive mark, behind sample"):
            list(parse_tar(damaged, source="s.tar"))


def test_joined_tars_are_an_error_instead_of_the_first_of_them(tmp_path: Path) -> None:
    data, _ = written(ours, tmp_path)
    with pytest.raises(InputError, match=r"s\.tar goes on after .* several tars joined"):
        list(parse_tar(data + data, source="s.tar"))
