"""Shards of samples are a function of model, settings and seed: not of actors, deaths, threads or restarts."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.cluster.index import load_index
from gebm.cluster.manifest import load_manifest
from gebm.cluster.reader import read_all
from gebm.sampler import SamplerSettings
from gebm.sampler.chain import sample_from
from gebm.sampler.work import make_shard_worker, sample, shard_items
from gebm.trainer.model import load_model, model_digest, to_uint8
from tests.sampler.small_models import save_small_model

SETTINGS = SamplerSettings(name="ula", step_size=0.05, steps=120, record_every=40, chains=16, shard_size=20)
COUNT, SEED = 90, 5
SHARDS = 5


@pytest.fixture(scope="module")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small_model(str(tmp_path_factory.mktemp("run") / "model"))


def digests(shards: dict) -> list[str]:
    return [record["sha256"] for record in shards.values()]


@pytest.fixture(scope="module")
def undisturbed(ray_cluster: None, model_url: str, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The shards that one actor made."""
    output = str(tmp_path_factory.mktemp("one"))
    made = sample(model_url=model_url, output=output, settings=SETTINGS, count=COUNT, seed=SEED, actors=1)
    return {"output": output, **made}


def test_two_actors_write_the_bytes_of_one(undisturbed: dict, model_url: str, tmp_path: Path) -> None:
    pids: set[int] = set()
    pauses = iter((3, 6, 12, 24))  # a process sometimes takes long to start: one pause for each shard but the last

    def watch(progress: FarmProgress) -> None:
        pids.update(progress.actor_pids)
        if len(pids) == 1:
            time.sleep(next(pauses, 0))  # gives the first actor nothing to do until the second has come up

    made = sample(
        model_url=model_url,
        output=str(tmp_path),
        settings=SETTINGS,
        count=COUNT,
        seed=SEED,
        actors=2,
        progress=watch,
    )
    assert len(pids) == 2
    assert digests(made["shards"]) == digests(undisturbed["shards"])


def test_another_seed_gives_other_shards(undisturbed: dict, model_url: str, tmp_path: Path) -> None:
    item = shard_items(SETTINGS, COUNT, SEED + 1)[0]
    record = make_shard_worker(model_url, str(tmp_path), SETTINGS, 0, "cpu")()(item, "here")
    assert record["sha256"] != undisturbed["shards"][item.id]["sha256"]


def test_killing_an_actor_changes_nothing(undisturbed: dict, model_url: str, tmp_path: Path) -> None:
    """`kill -9` of a real actor in the middle of a shard, twice."""
    killed: list[int] = []
    pids: set[int] = set()

    def kill(progress: FarmProgress) -> None:
        pids.update(progress.actor_pids)
        alive = [pid for pid in progress.actor_pids if pid not in killed]
        if len(killed) < 2 and alive and progress.done > len(killed):
            os.kill(alive[0], signal.SIGKILL)
            killed.append(alive[0])

    made = sample(
        model_url=model_url,
        output=str(tmp_path),
        settings=SETTINGS,
        count=COUNT,
        seed=SEED,
        actors=2,
        progress=kill,
    )
    assert len(killed) == 2
    assert len(pids) > 2  # others took over
    assert digests(made["shards"]) == digests(undisturbed["shards"])
    names = {record["name"] for record in made["shards"].values()}
    assert names | {"manifest.json", "index.json", "summary.json"} == set(os.listdir(tmp_path))


def test_an_interrupted_run_goes_on_and_makes_a_damaged_shard_again(
    undisturbed: dict, model_url: str, tmp_path: Path
) -> None:
    request = {"model_url": model_url, "output": str(tmp_path), "settings": SETTINGS, "count": COUNT, "seed": SEED}

    def interrupt(progress: FarmProgress) -> None:
        if progress.done >= 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample(**request, actors=1, progress=interrupt)
    assert not (tmp_path / "index.json").exists()
    manifest = load_manifest(str(tmp_path))
    assert manifest is not None and 2 <= len(manifest.items) < SHARDS
    kept, damaged = list(manifest.items.values())[:2]
    content = bytearray((tmp_path / damaged["name"]).read_bytes())
    content[1000] ^= 1
    (tmp_path / damaged["name"]).write_bytes(content)

    made = sample(**request, actors=2)
    assert digests(made["shards"]) == digests(undisturbed["shards"])
    names = {record["name"] for record in made["shards"].values()}
    assert kept["name"] in names and damaged["name"] not in names
    assert names | {"manifest.json", "index.json", "summary.json"} == set(os.listdir(tmp_path))
    again = sample(**request, actors=1)
    assert again == made


def test_another_request_does_not_touch_the_output(undisturbed: dict, model_url: str) -> None:
    before = sorted(os.listdir(undisturbed["output"]))
    settings = SETTINGS.model_copy(update={"step_size": 0.04})
    with pytest.raises(InputError, match=r"belongs to another run \(sampler\.step_size"):
        sample(
            model_url=model_url,
            output=undisturbed["output"],
            settings=settings,
            count=COUNT,
            seed=SEED,
            actors=1,
        )
    assert sorted(os.listdir(undisturbed["output"])) == before


def test_samples_are_an_indexed_shard_set_with_a_full_manifest(undisturbed: dict, model_url: str) -> None:
    index = load_index(undisturbed["output"])
    assert (index.total, index.image_shape, index.labels) == (COUNT, (1, 8, 8), False)
    assert [shard.count for shard in index.shards] == [20, 20, 20, 20, 10]
    images = read_all(undisturbed["output"])
    assert images.images.shape == (COUNT, 1, 8, 8)
    assert images.keys == [f"{number:09d}" for number in range(COUNT)]

    manifest = load_manifest(undisturbed["output"])
    assert manifest is not None and manifest.complete
    assert manifest.settings == {
        "kind": "samples",
        "model": model_digest(model_url),
        "sampler": SETTINGS.model_dump(mode="json"),
        "stored": {"format": "png", "save": []},
        "count": COUNT,
        "seed": SEED,
        "device": "cpu",
    }
    for record in manifest.items.values():
        found = record["diagnostics"]
        assert found["recorded_steps"] == [0, 40, 80, 120]
        assert found["energy_mean"][-1] < found["energy_mean"][0]
        assert (found["acceptance"], found["nonfinite"]) == (1.0, 0)
        assert found["energy_ess_bulk"] is None  # of two records
    assert undisturbed["diagnostics"]["energy_change"] < -0.5


def test_the_stored_images_are_those_of_the_chain(undisturbed: dict, model_url: str) -> None:
    """The first batch of the first shard, made again here."""
    from gebm.cluster.randomness import derive_seed
    from gebm.sampler.work import prepare

    item = shard_items(SETTINGS, COUNT, SEED)[0]
    threads = torch.get_num_threads()
    torch.set_num_threads(SETTINGS.threads)
    model = prepare(load_model(model_url))
    prior = model.sample_prior(20, torch.Generator().manual_seed(derive_seed(item.seed, "shard", "prior")))
    generator = torch.Generator().manual_seed(derive_seed(item.seed, "shard", "chain"))
    expected = to_uint8(sample_from(model, SETTINGS, prior[:16], generator).images).numpy()
    torch.set_num_threads(threads)
    np.testing.assert_array_equal(read_all(undisturbed["output"], limit=16).images, expected)


def test_threads_come_from_the_work_item_and_not_from_the_process(
    undisturbed: dict, model_url: str, tmp_path: Path
) -> None:
    """A worker in a process that was set to another number of threads writes the same bytes."""
    item = shard_items(SETTINGS, COUNT, SEED)[1]
    work = make_shard_worker(model_url, str(tmp_path), SETTINGS, 0, "cpu")()
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(7)
        record = work(item, "here")
        assert torch.get_num_threads() == SETTINGS.threads
    finally:
        torch.set_num_threads(threads)
    assert record["sha256"] == undisturbed["shards"][item.id]["sha256"]


def test_base_and_model_start_from_the_same_latents(undisturbed: dict, model_url: str, tmp_path: Path) -> None:
    base = SETTINGS.model_copy(update={"name": "base", "chains": 7})
    made = sample(model_url=model_url, output=str(tmp_path), settings=base, count=COUNT, seed=SEED, actors=1)
    for ours, theirs in zip(made["shards"].values(), undisturbed["shards"].values(), strict=True):
        begin, first = ours["diagnostics"]["energy_mean"], theirs["diagnostics"]["energy_mean"]
        assert len(begin) == 1
        assert begin[0] == pytest.approx(first[0], rel=1e-5)


@pytest.mark.parametrize("name", ["ddls", "mala", "hmc", "kla", "rwmh", "imh", "dot"])
def test_every_sampler_makes_shards_with_its_default_settings(model_url: str, tmp_path: Path, name: str) -> None:
    settings = SamplerSettings(name=name, steps=3, chains=5, shard_size=5)
    threads = torch.get_num_threads()
    work = make_shard_worker(model_url, str(tmp_path), settings, 0, "cpu")()
    record = work(shard_items(settings, 5, 0)[0], "here")
    torch.set_num_threads(threads)
    assert record["count"] == 5
    assert 0 <= record["diagnostics"]["acceptance"] <= 1
    assert storage.sha256(str(tmp_path / record["name"])) == record["sha256"]


def test_bad_requests_say_what_is_wrong(ray_cluster: None, model_url: str, tmp_path: Path) -> None:
    request = {"output": str(tmp_path / "out"), "settings": SETTINGS, "seed": 0, "actors": 1}
    with pytest.raises(InputError, match="count is 0"):
        sample(model_url=model_url, count=0, **request)
    with pytest.raises(InputError, match=r"model\.toml"):
        sample(model_url=str(tmp_path), count=1, **request)
    assert not storage.exists(str(tmp_path / "out"))
