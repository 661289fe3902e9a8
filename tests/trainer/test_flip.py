"""`trainer.flip`: every image, or its mirror image, by a coin that belongs to the batch and the row."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.index import build_index, write_index
from gebm.cluster.lanes import LaneReader
from gebm.cluster.shards import encode_png, write_shard
from gebm.trainer.metrics import read_metrics
from gebm.trainer.model import ModelSettings
from gebm.trainer.noise import GlobalNoise
from gebm.trainer.real_data import RealData, real_data
from tests.trainer.tiny_runs import run_alone, tiny_job, write_points

BATCH = 16
CPU = torch.device("cpu")


def batches_of(reader: LaneReader, *, flip: bool) -> RealData:
    noise = GlobalNoise(3, BATCH, torch.from_numpy(reader.rows), CPU, torch.float32)
    return real_data(reader, device=CPU, dtype=torch.float32, conditional=False, flips=noise if flip else None)


def global_batch(url: str, number: int, world: int) -> torch.Tensor:
    """Images `(16, 1, 16, 16)` of a global batch, put together from the parts of `world` workers."""
    whole = torch.empty(BATCH, 1, 16, 16)
    for rank in range(world):
        with closing(LaneReader(url, seed=5, batch_size=BATCH, lanes=8, rank=rank, world=world)) as reader:
            whole[torch.from_numpy(reader.rows)] = batches_of(reader, flip=True)(number).images
    return whole


def test_each_image_comes_as_it_is_or_mirrored_as_a_fair_coin_of_its_batch_says(make_shards: Callable[..., str]):
    """Of 640 rows 320 ± 5 standard deviations (12.6 each) are mirrored: false alarm 6e-7."""
    url = make_shards((31, 7, 22), size=16)
    patterns = []
    with closing(LaneReader(url, seed=5, batch_size=BATCH, lanes=8)) as reader:
        plain, flipped = batches_of(reader, flip=False), batches_of(reader, flip=True)
        for number in range(40):
            stored, seen = plain(number).images, flipped(number).images
            mirrored = (seen == stored.flip(3)).flatten(1).all(1)
            assert (mirrored | (seen == stored).flatten(1).all(1)).all()
            assert seen.is_contiguous(memory_format=torch.channels_last)
            patterns.append(tuple(mirrored.tolist()))
    assert abs(np.sum(patterns) - 320) < 5 * 12.65
    assert len(set(patterns)) == 40


def test_one_two_and_four_workers_mirror_the_same_images(make_shards: Callable[..., str]):
    url = make_shards((31, 7, 22), size=16)
    for number in (0, 11):
        one = global_batch(url, number, 1)
        assert torch.equal(one, global_batch(url, number, 2)) and torch.equal(one, global_batch(url, number, 4))


def write_halves(url: Path, *, symmetric: bool) -> str:
    """Grey images, bright on the left; `symmetric`: on both sides."""
    random = np.random.default_rng(0)
    left = random.integers(100, 256, (40, 4, 2), dtype=np.uint8)
    right = left[:, :, ::-1] if symmetric else np.zeros_like(left)
    images = np.concatenate([left, right], axis=2)
    url.mkdir()
    write_shard(str(url / "0.tar"), [{"__key__": f"{n}", "png": encode_png(image)} for n, image in enumerate(images)])
    write_index(str(url), build_index(str(url)))
    return str(url)


@pytest.mark.parametrize("symmetric", [True, False])
def test_flipping_changes_a_run_unless_images_are_their_own_mirror_images(symmetric: bool, tmp_path: Path):
    data = write_halves(tmp_path / "data", symmetric=symmetric)
    model = ModelSettings(network="mlp", latent_dimension=2, base_widths=(8,), energy_widths=(8,))
    for flip in (False, True):
        run_alone(tiny_job(tmp_path / str(flip), data, model=model, flip=flip))
    as_stored, flipped = (read_metrics(str(tmp_path / str(flip))) for flip in (False, True))
    assert (as_stored == flipped) == symmetric


def test_vectors_cannot_be_flipped(tmp_path: Path):
    job = tiny_job(tmp_path / "run", write_points(tmp_path / "data"), flip=True)
    with pytest.raises(InputError, match=r"trainer\.flip = true mirrors images, and .* holds vectors of 2 numbers"):
        run_alone(job)
