"""Global batches do not know how many ranks there are or how shards are cut; nothing is lost and nothing hangs."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster import lane_order, storage
from gebm.cluster.errors import InputError
from gebm.cluster.lanes import LaneBatch, LaneReader
from gebm.cluster.reader import read_all

OPTIONS = {"seed": 5, "batch_size": 16, "lanes": 8}


def global_batch(url: str, step: int, world: int) -> LaneBatch:
    """Return global batch `step` put together from the parts of `world` ranks by their row numbers."""
    images: dict[int, np.ndarray] = {}
    labels: dict[int, int | None] = {}
    for rank in range(world):
        with closing(LaneReader(url, rank=rank, world=world, **OPTIONS)) as reader:
            batch = reader.batch(step)
            assert len(batch.images) == len(reader.rows) == 16 // world
            for place, row in enumerate(reader.rows.tolist()):
                assert row not in images
                images[row] = batch.images[place]
                labels[row] = None if batch.labels is None else batch.labels[place]
    rows = range(16)
    assert sorted(images) == list(rows)
    return LaneBatch(np.stack([images[row] for row in rows]), np.array([labels[row] for row in rows]))


class Numbering:
    """Which sample of a set an image is: the images of `make_shards` are all different."""

    def __init__(self, url: str) -> None:
        self.everything = read_all(url)
        self._numbers = {image.tobytes(): number for number, image in enumerate(self.everything.images)}
        assert len(self._numbers) == len(self.everything.images)

    def __call__(self, images: np.ndarray) -> list[int]:
        return [self._numbers[image.tobytes()] for image in images]


@contextmanager
def group(url: str, world: int, batch_size: int, lanes: int) -> Iterator[list[LaneReader]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(
                closing(LaneReader(url, seed=7, batch_size=batch_size, lanes=lanes, rank=rank, world=world))
            )
            for rank in range(world)
        ]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_one_two_and_four_ranks_see_the_same_global_batches(make_shards: Callable[..., str], ending: str) -> None:
    url = make_shards((31, 7, 22), size=16, ending=ending)
    for step in (0, 1, 9, 250):
        one, two, four = (global_batch(url, step, world) for world in (1, 2, 4))
        assert np.array_equal(one.images, two.images) and np.array_equal(one.images, four.images)
        assert one.labels is not None and two.labels is not None and four.labels is not None
        assert np.array_equal(one.labels, two.labels) and np.array_equal(one.labels, four.labels)


@pytest.mark.parametrize(
    ("counts", "world", "batch_size", "lanes"),
    [
        pytest.param((40,), 4, 8, 8, id="one shard, four ranks"),
        pytest.param((40,), 8, 8, 64, id="one shard, as many ranks as lanes"),
        pytest.param((31, 7, 22), 4, 16, 8, id="uneven shards, two rows a lane"),
        pytest.param((1, 1, 1, 58, 2), 2, 6, 2, id="shards of one sample, three rows a lane"),
        pytest.param((3, 5), 2, 8, 8, id="as many lanes as samples"),
        pytest.param((5, 4), 2, 32, 8, id="a batch larger than the set"),
        pytest.param((17, 1, 90), 1, 5, 5, id="one rank, a total that no lane divides"),
    ],
)
@pytest.mark.parametrize("window", [3, 1024])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
def test_every_epoch_delivers_every_sample_exactly_once_over_all_ranks(
    make_shards: Callable[..., str],
    counts: tuple[int, ...],
    world: int,
    batch_size: int,
    lanes: int,
    window: int,
    ending: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A lane of n samples begins its epoch e at its item e n: together, lanes hold the set once an epoch."""
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (window, window))
    url = make_shards(counts, size=8, ending=ending)
    numbers, total, epochs = Numbering(url), sum(counts), 3
    lanes = np.gcd(lanes, batch_size)
    rows = batch_size // lanes
    length = [(lane + 1) * total // lanes - lane * total // lanes for lane in range(lanes)]
    items: list[list[int]] = [[] for _ in range(lanes)]
    with group(url, world, batch_size, lanes) as readers:
        for step in range(-(-epochs * max(length) // rows)):
            for reader in readers:
                found = numbers(reader.batch(step).images)
                for row, number in zip(reader.rows.tolist(), found, strict=True):
                    items[row // rows].append(number)
    for epoch in range(epochs):
        seen = Counter(number for own, n in zip(items, length, strict=True) for number in own[epoch * n :][:n])
        assert seen == Counter(range(total))


def test_images_and_labels_belong_together(make_shards: Callable[..., str]) -> None:
    url = make_shards((31, 7, 22), size=16)
    numbers = Numbering(url)
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        for step in range(12):
            batch = reader.batch(step)
            assert numbers.everything.labels is not None and batch.labels is not None
            assert np.array_equal(batch.labels, numbers.everything.labels[numbers(batch.images)])


def test_a_set_without_labels_has_none(make_shards: Callable[..., str]) -> None:
    with closing(LaneReader(make_shards((9,), size=8, labels=False), seed=0, batch_size=2, lanes=2)) as reader:
        assert reader.batch(0).labels is None


@pytest.mark.parametrize("decoders", [1, 6])
def test_any_step_at_any_time_is_the_same_batch_whatever_the_threads_and_the_cache(
    tiny_shards: str, decoders: int
) -> None:
    options = {"seed": 9, "batch_size": 12, "lanes": 4}
    with closing(LaneReader(tiny_shards, decoders=2, **options)) as reader:
        in_order = [reader.batch(step).images for step in range(40)]
    with closing(LaneReader(tiny_shards, cache_bytes=1, decoders=decoders, **options)) as reader:
        for step in (39, 0, 17, 17, 3, 38, 1):
            assert np.array_equal(reader.batch(step).images, in_order[step])


def test_a_batch_is_the_callers_to_change(tiny_shards: str) -> None:
    with closing(LaneReader(tiny_shards, seed=9, batch_size=12, lanes=4)) as reader:
        before = reader.batch(3).images
        kept = before.copy()
        before[:] = 0
        assert np.array_equal(reader.batch(3).images, kept)


def test_the_order_is_computed_in_pieces_of_any_length(tiny_shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(LaneReader(tiny_shards, **OPTIONS)) as reader:
        at_once = [reader.batch(step).images for step in range(30)]
    monkeypatch.setattr("gebm.cluster.lanes.ROWS_AT_ONCE", 50)
    with closing(LaneReader(tiny_shards, **OPTIONS)) as reader:
        assert all(np.array_equal(reader.batch(step).images, at_once[step]) for step in range(30))


def test_ranks_that_cannot_share_equally_are_an_error(tiny_shards: str) -> None:
    with pytest.raises(InputError, match=r"batch_size of 24 in 64 lanes.* 3 workers"):
        LaneReader(tiny_shards, seed=0, batch_size=24, lanes=64, rank=0, world=3)


def test_what_is_held_stays_within_what_may_be_held(
    make_shards: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (2, 2))
    url = make_shards((40, 40), size=16)
    allowed = 3 * 2 * 2 * 256  # three blocks of two images for each of two lanes
    with closing(LaneReader(url, seed=0, batch_size=4, lanes=2, cache_bytes=0)) as reader:
        for step in [*range(30), 5, *range(200, 220), 0, 7, *range(60, 80)]:
            reader.batch(step)
            assert 0 < reader._blocks._bytes <= allowed


def test_a_set_that_fits_is_read_once(tiny_shards: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read: Counter[tuple[str, int]] = Counter()

    def counting(url: str, start: int, stop: int | None) -> bytes:
        read[url, start] += 1
        return original(url, start, stop)

    original = storage.read_range
    with closing(LaneReader(tiny_shards, **OPTIONS)) as reader:
        monkeypatch.setattr(storage, "read_range", counting)
        for step in range(40):  # five epochs
            reader.batch(step)
    assert len(read) >= 3 and set(read.values()) == {1}


def zeros(shard: Path) -> None:
    shard.write_bytes(bytes(shard.stat().st_size))


def half(shard: Path) -> None:
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])


def without_its_last_bytes(shard: Path) -> None:
    """So few that zeros in their place would make a sound tar."""
    data = shard.read_bytes()
    shard.write_bytes(data.rstrip(b"\0")[:-8] if shard.suffix == ".tar" else data[:-8])


def one_image_damaged(shard: Path) -> None:
    data = bytearray(shard.read_bytes())
    place = data.index(b"IDAT") + 9 if shard.suffix == ".tar" else len(data) // 2
    data[place] ^= 0xFF
    shard.write_bytes(data)


@pytest.mark.parametrize("damage", [zeros, half, without_its_last_bytes, one_image_damaged, Path.unlink])
@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("window", [3, 1024])  # a part of the shard is read at a time, or the whole of it
def test_a_shard_damaged_during_training_stops_it_by_name(
    make_shards: Callable[..., str],
    damage: Callable[[Path], None],
    ending: str,
    window: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (window, window))
    url = make_shards((8, 8), size=16, ending=ending)
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        damage(Path(url) / f"shard-001{ending}")
        for _ in range(2):  # asked again, it says so again
            with pytest.raises(InputError, match=r"shard-001\.tar"):
                for step in range(4):
                    reader.batch(step)


@pytest.mark.parametrize("ending", [".tar", ".tar.gz"])
@pytest.mark.parametrize("window", [3, 1024])
@pytest.mark.parametrize("other", [{"counts": (8, 6)}, {"counts": (8, 12)}, {"size": 24}, {"labels": False}])
def test_a_shard_replaced_during_training_stops_it_by_name(
    make_shards: Callable[..., str], other: dict, ending: str, window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lane_order, "WINDOW_SIZES", (window, window))
    options = {"counts": (8, 8), "size": 16, "ending": ending}
    url, name = make_shards(**options), f"shard-001{ending}"
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        (Path(url) / name).write_bytes((Path(make_shards(**options | other)) / name).read_bytes())
        with pytest.raises(InputError, match=r"shard-001\.tar"):
            for step in range(4):
                reader.batch(step)


def test_a_shard_replaced_by_one_that_looks_the_same_is_noticed_where_the_whole_of_it_is_read(
    make_shards: Callable[..., str],
) -> None:
    """Same numbers, names and sizes, other images: only the digest of the whole file can tell."""
    url, other = (make_shards((8, 8), size=8, seed=seed) for seed in (0, 1))
    first, second = (Path(folder) / "shard-001.tar" for folder in (url, other))
    assert first.stat().st_size == second.stat().st_size
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        first.write_bytes(second.read_bytes())
        with pytest.raises(InputError, match=r"shard-001\.tar is not the file that was indexed"):
            for step in range(4):
                reader.batch(step)


def test_a_shard_that_is_put_back_is_read_again(make_shards: Callable[..., str]) -> None:
    url = make_shards((8, 8), size=16)
    shard = Path(url) / "shard-001.tar"
    data = shard.read_bytes()
    with closing(LaneReader(url, seed=0, batch_size=16, lanes=8)) as reader:
        shard.unlink()
        with pytest.raises(InputError, match=r"shard-001\.tar is missing"):
            reader.batch(0)
        shard.write_bytes(data)
        assert len(reader.batch(0).images) == 16


def test_lanes_read_from_another_kind_of_storage(make_shards: Callable[..., str], tmp_path: Path) -> None:
    url, remote = make_shards((31, 7, 22), size=16), f"memory://{tmp_path.name}/set"
    for name in storage.list_names(url):
        storage.write_bytes_atomic(storage.join(remote, name), (Path(url) / name).read_bytes())
    for step in (0, 9):
        assert np.array_equal(global_batch(remote, step, 2).images, global_batch(url, step, 1).images)
    storage.remove(storage.join(remote, "shard-001.tar"))
    with pytest.raises(InputError, match=r"shard-001\.tar is missing"):
        global_batch(remote, 0, 1)
    storage.remove(remote)
