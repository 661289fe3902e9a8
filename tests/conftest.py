"""What every room's tests share: one local Ray for the whole session, and small shard sets to work on."""

import logging
import signal
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from torch.distributed.checkpoint.logger import _dcp_logger

from gebm.cluster import storage
from gebm.cluster.connect import connection
from gebm.cluster.index import build_index, write_index
from gebm.cluster.shards import encode_png, write_shard
from gebm.cluster.vectors import encode_vector

# The segments of a seven-segment display, as (top, left, bottom, right) on a 5 x 3 grid, and each digit's.
_SEGMENTS = {
    "a": (0, 0, 0, 2),
    "b": (0, 2, 2, 2),
    "c": (2, 2, 4, 2),
    "d": (4, 0, 4, 2),
    "e": (2, 0, 4, 0),
    "f": (0, 0, 2, 0),
    "g": (2, 0, 2, 2),
}
_DIGITS = ("abcdef", "bc", "abged", "abgcd", "fgbc", "afgcd", "afgedc", "abc", "abcdefg", "abcdfg")


# It tells every step of every checkpoint at level DEBUG, and pytest would print it all below a test that fails.
_dcp_logger.setLevel(logging.INFO)


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts tests in the background has them, and all that they start, ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """One local Ray with two CPUs, started by the first test that asks, for all that come after it."""
    with connection("local", cpus=2):
        yield


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of an empty S3 bucket of moto's, in this process.

    The endpoint and its keys stand in the environment, as a user would give them.
    """
    import s3fs  # both only where they are wanted: they take a second
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    name = tmp_path_factory.mktemp("bucket").name  # moto remembers those of earlier servers
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        for key in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(key, "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3fs.S3FileSystem.clear_instance_cache()
        s3fs.S3FileSystem().mkdir(name)
        yield f"s3://{name}"
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


@pytest.fixture
def make_shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return `make_shards(counts=(50, 30, 40), *, size=32, channels=1, seed=0, labels=True, ending=".tar")`.

    It writes one shard of digit-like images for each of `counts`, and their index, into a directory of its
    own and returns that directory.
    """

    def make(
        counts: tuple[int, ...] = (50, 30, 40),
        *,
        size: int = 32,
        channels: int = 1,
        seed: int = 0,
        labels: bool = True,
        ending: str = ".tar",
    ) -> str:
        url = str(tmp_path_factory.mktemp("shards"))
        random = np.random.default_rng(seed)
        first = 0
        for number, count in enumerate(counts):
            samples = []
            for sample in range(first, first + count):
                label = int(random.integers(10))
                image = draw_digit(label, size, channels, random)
                fields: dict[str, str | bytes] = {"__key__": f"{sample:06d}", "png": encode_png(image)}
                samples.append(fields | {"cls": b"%d" % label} if labels else fields)
            write_shard(storage.join(url, f"shard-{number:03d}{ending}"), samples)
            first += count
        write_index(url, build_index(url))
        return url

    return make


@pytest.fixture
def tiny_shards(make_shards: Callable[..., str]) -> str:
    """A labelled set of 120 grey digit-like images of 32x32 pixels in three uneven .tar shards, indexed."""
    return make_shards()


@pytest.fixture
def make_vector_shards(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return `make_vector_shards(counts=(50, 30, 40), *, dimension=3, seed=0, labels=False, ending=".tar")`.

    It writes one shard of standard normal float32 vectors for each of `counts`, and their index, into a directory
    of its own and returns that directory.
    """

    def make(
        counts: tuple[int, ...] = (50, 30, 40),
        *,
        dimension: int = 3,
        seed: int = 0,
        labels: bool = False,
        ending: str = ".tar",
    ) -> str:
        url = str(tmp_path_factory.mktemp("vectors"))
        random = np.random.default_rng(seed)
        first = 0
        for number, count in enumerate(counts):
            samples = []
            for sample in range(first, first + count):
                vector = random.normal(size=dimension).astype(np.float32)
                fields: dict[str, str | bytes] = {"__key__": f"{sample:06d}", "npy": encode_vector(vector)}
                samples.append(fields | {"cls": b"%d" % random.integers(3)} if labels else fields)
            write_shard(storage.join(url, f"shard-{number:03d}{ending}"), samples)
            first += count
        write_index(url, build_index(url))
        return url

    return make


def draw_digit(digit: int, size: int, channels: int, random: np.random.Generator) -> np.ndarray:
    """Return a noisy seven-segment digit: uint8 (size, size, channels)."""
    image = random.integers(0, 12, (size, size, channels), dtype=np.uint8)
    step = max(1, size // 7)
    thickness = max(1, size // 12 + int(random.integers(0, 2)))
    top, left = (int(value) for value in random.integers(1, max(2, size - 5 * step), 2))
    colour = random.integers(150, 244, channels, dtype=np.uint8)
    for segment in _DIGITS[digit]:
        y0, x0, y1, x1 = (step * value for value in _SEGMENTS[segment])
        image[top + y0 : top + y1 + thickness, left + x0 : left + x1 + thickness] = colour
    return image
