"""The input benchmark compares sides that deliver the same images, and its million images are what they seem."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gebm.cluster.index import build_index, load_index
from gebm.cluster.lanes import LaneReader
from gebm.cluster.reader import read_all
from gebm.trainer.metrics import read_metrics
from tests.benchmarks import input as benchmark
from tests.benchmarks.input import PEERS, lanes, lanes_again, lay_out, main, rate, records, run_through
from tests.benchmarks.numbered_images import numbers_of, write_numbered_images
from tests.benchmarks.tar_images import webdataset_pipeline


def contents(side: Callable, folder: str, batch: int) -> Counter[bytes]:
    """How often a side delivers each image, as bytes (channels, height, width)."""
    delivered: Counter[bytes] = Counter()
    for images in side(folder, batch):
        pixels = np.asarray(images)
        if side is webdataset_pipeline:  # channels last
            pixels = pixels.transpose(0, 3, 1, 2)
        delivered.update(image.tobytes() for image in pixels)
    return delivered


def test_all_sides_deliver_the_same_images_once(make_shards, tmp_path):
    compressed = make_shards((30, 30, 20), size=16, channels=3, ending=".tar.gz")
    folder = lay_out(compressed, tmp_path / "plain", 80)
    assert len(list(Path(folder).glob("*.tar"))) == 3
    wanted = Counter(image.tobytes() for image in read_all(compressed).images)
    assert len(wanted) == 80
    for side in (lanes, lanes_again, *PEERS.values()):
        assert contents(side, folder, 16) == wanted


def test_the_clock_starts_with_the_first_batch(monkeypatch):
    clock = iter([10.0, 12.0])
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: next(clock))
    assert rate(iter(np.zeros((count, 1)) for count in (64, 20, 10))) == 15


def test_the_records_have_ours_against_each_peer(tmp_path, capsys):
    rates = {"gebm": [900.0, 1000.0, 5000.0], "gebm, second epoch": [9e9]} | {peer: [500.0] for peer in PEERS}
    lines = records(rates, 2000)
    assert [line.peer for line in lines] == list(PEERS)
    assert {(line.ours_seconds, line.peer_seconds, line.ratio) for line in lines} == {(2.0, 4.0, 2.0)}
    benchmark.print_rates(rates, "title")
    assert capsys.readouterr().out.count("2.00") == 3


def test_numbered_images_are_sound_shards_of_different_images(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.benchmarks.numbered_images.SHARD_SIZE", 300)
    url = write_numbered_images(tmp_path / "set", 1000)
    assert build_index(url) == load_index(url)  # every image is decoded for it
    images = read_all(url).images
    assert numbers_of(images).tolist() == list(range(1000))
    assert len({image.tobytes() for image in images}) == 1000


def test_a_run_takes_every_image_once_and_tells_its_memory(tmp_path):
    told = run_through(write_numbered_images(tmp_path / "set", 400), str(tmp_path / "run"), batch=80)
    assert told["images"] == 400 and 1e7 < told["peak_bytes"] < 1e10
    assert read_metrics(str(tmp_path / "run"))[-1]["round"] == 5


def test_an_image_that_came_twice_is_noticed(tmp_path, monkeypatch):
    from tests.benchmarks import once_through

    url = write_numbered_images(tmp_path / "set", 80)
    batch = LaneReader.batch
    monkeypatch.setattr(LaneReader, "batch", lambda reader, step: batch(reader, 0))
    with pytest.raises(SystemExit, match="80 of 80 images did not come exactly once"):
        once_through.main(url, str(tmp_path / "run"), 40)


def test_the_quick_benchmark_writes_its_records(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(benchmark, "lay_out", lambda source, out, count: lay_out(source, out, 300))
    main(["--quick", "--json", str(tmp_path / "r.json")])
    assert [line["peer"] for line in json.loads((tmp_path / "r.json").read_text())] == list(PEERS)
    assert "300 images 3x32x32" in capsys.readouterr().out
