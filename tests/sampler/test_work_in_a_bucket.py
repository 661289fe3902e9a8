"""Samples written to a bucket whose store keeps failing are those of a run on local disk; a resume keeps its device."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gebm.cluster import lease, storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import load_index
from gebm.cluster.manifest import load_manifest
from gebm.sampler import SamplerSettings, work
from gebm.sampler.work import sample
from tests.cluster.faulty_proxy import faulty_proxy, seeded
from tests.sampler.small_models import save_small_model

pytestmark = pytest.mark.usefixtures("ray_cluster")

SETTINGS = SamplerSettings(name="ula", step_size=0.05, steps=20, record_every=10, chains=16, shard_size=8)
COUNT, SEED, SHARDS = 80, 5, 10
FAULTS = ("503", "500", "drop", "lost answer", "cut", "short")
SHORT_WAITS = {"config_kwargs": {"read_timeout": 2.0, "connect_timeout": 2.0}}


@pytest.fixture(scope="module")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_small_model(str(tmp_path_factory.mktemp("run") / "model"))


def told_where(make: Callable[..., Any], environment: dict[str, str]) -> Callable[..., Any]:
    """`make_shard_worker` whose actors know the bucket: the session's Ray was started without it."""

    def make_shard_worker(*arguments: Any, **options: Any) -> Callable[[], Any]:
        start = make(*arguments, **options)

        def make_worker() -> Any:
            import fsspec

            from gebm.cluster import retries

            os.environ.update(environment)
            fsspec.config.conf["s3"] = {"config_kwargs": {"read_timeout": 2.0, "connect_timeout": 2.0}}
            retries.FIRST_WAIT_SECONDS = 0.05
            return start()

        return make_worker

    return make_shard_worker


def test_shards_in_a_bucket_that_keeps_failing_are_those_of_local_disk(
    bucket: str, model_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec
    import s3fs

    from gebm.cluster import retries

    request = {"model_url": model_url, "settings": SETTINGS, "count": COUNT, "seed": SEED}
    calm = sample(**request, output=str(tmp_path / "calm"), actors=1)
    output = storage.join(bucket, tmp_path.name)
    with faulty_proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setitem(fsspec.config.conf, "s3", SHORT_WAITS)
        monkeypatch.setattr(retries, "FIRST_WAIT_SECONDS", 0.05)
        monkeypatch.setattr(lease, "SETTLE_SECONDS", 0.2)
        s3fs.S3FileSystem.clear_instance_cache()
        environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        monkeypatch.setattr(work, "make_shard_worker", told_where(work.make_shard_worker, environment))
        proxy.schedule = seeded(1, 0.15, FAULTS)
        made = sample(**request, output=output, actors=2)
        proxy.schedule = lambda method, path: None
        assert sum(proxy.done[fault] for fault in FAULTS) >= 10, proxy.done
        digests = {item: record["sha256"] for item, record in made["shards"].items()}
        assert digests == {item: record["sha256"] for item, record in calm["shards"].items()}
        assert {item: storage.sha256(storage.join(output, made["shards"][item]["name"])) for item in digests} == digests
        manifest = load_manifest(output)
        assert manifest is not None and manifest.complete and len(manifest.items) == SHARDS
        assert load_index(output).total == COUNT
        names = {record["name"] for record in made["shards"].values()}
        others = {name for name in os.listdir(tmp_path / "calm") if not name.endswith(".tar")}
        assert set(storage.list_names(output)) == names | others
    s3fs.S3FileSystem.clear_instance_cache()


def test_samples_of_another_kind_of_device_are_refused_by_name(
    model_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other bytes come from a GPU: it cannot go on with what CPUs began."""
    request = {"model_url": model_url, "output": str(tmp_path), "settings": SETTINGS, "count": 8, "seed": SEED}
    sample(**request, actors=1)
    before = sorted(os.listdir(tmp_path))
    monkeypatch.setattr("gebm.cluster.farm._check_resources", lambda cpus, gpus: None)
    with pytest.raises(InputError, match=r"belongs to another run \(device is 'cpu' there and 'cuda' here\)"):
        sample(**request, actors=1, gpus_per_actor=1)
    assert sorted(os.listdir(tmp_path)) == before
