"""Tests in pieces on the farm: the same bits for any number of actors and any deaths, and nothing is done twice."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from gebm.cluster.errors import InputError
from gebm.cluster.farm import FarmProgress
from gebm.cluster.manifest import load_manifest
from gebm.evaluation.two_sample import TestResult, mmd_test
from gebm.evaluation.two_sample.distributed import (
    FeatureTable,
    Tiling,
    distributed_mmd_test,
    distributed_relative_test,
    on_farm,
    table_of_file,
)
from tests.cluster.farm_work import contents

pytestmark = pytest.mark.usefixtures("ray_cluster")
TILING = Tiling(128, 256)  # 1,500 points make 6 groups and 21 items
SETTINGS: dict[str, Any] = {"permutations": 99, "seed": 2, "tiling": TILING}


@pytest.fixture
def tables(tmp_path: Path) -> list[FeatureTable]:
    """700 and 800 points in 20 dimensions: more than are done in float64."""
    rng = np.random.default_rng(0)
    found = []
    for name, count, scale in (("x", 700, 1.0), ("y", 800, 1.03)):
        np.save(tmp_path / f"{name}.npy", (scale * rng.normal(size=(count, 20))).astype(np.float32))
        found.append(table_of_file(str(tmp_path / f"{name}.npy"), name))
    return found


def run(tables: list[FeatureTable], output: Path, actors: int, **options: Any) -> TestResult:
    farm = {name: options.pop(name) for name in ("progress", "summary") if name in options}
    execute = partial(on_farm, output=str(output), actors=actors, **farm)
    return distributed_mmd_test(tables[0], tables[1], execute=execute, **SETTINGS | options)


def slow_kernel(seconds: float) -> Any:
    """A kernel of its own kind, for which a test knows no more than its tiles: `exp(-|x_1 - y_1|)`, unhurried."""

    @dataclass(frozen=True)
    class Slow:
        name: str = "slow"
        precision: torch.dtype = torch.float32
        products: torch.dtype = torch.float32
        shift: float = 0.0

        def prepare(self, points: torch.Tensor) -> torch.Tensor:
            return points[:, 0].clone()

        def tile(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            time.sleep(seconds)
            return torch.exp(-(a[:, None] - b).abs())

        def diagonal(self, rows: torch.Tensor) -> torch.Tensor:
            return torch.ones(len(rows), dtype=torch.float64)

        def describe(self) -> dict[str, Any]:
            return {"name": "slow"}

    return Slow()


def test_one_two_and_three_actors_and_none_give_the_same_bits(tables: list[FeatureTable], tmp_path: Path) -> None:
    alone = distributed_mmd_test(tables[0], tables[1], **SETTINGS)
    files = []
    for actors in (1, 2, 3):
        output = tmp_path / str(actors)
        assert run(tables, output, actors) == alone
        files.append(contents(output))
    assert len(files[0]) == 21 and files[0] == files[1] == files[2]
    kept_nowhere = distributed_mmd_test(
        tables[0], tables[1], execute=partial(on_farm, output=None, actors=2), **SETTINGS
    )
    assert kept_nowhere == alone


@pytest.mark.parametrize("null", ["sign_flip", "bins", "normal"])
def test_every_kind_of_item_gives_the_same_bits_on_the_farm(
    null: str, tables: list[FeatureTable], tmp_path: Path
) -> None:
    pair = [tables[0], tables[0]] if null != "bins" else tables
    alone = distributed_mmd_test(pair[0], pair[1], null=null, **SETTINGS)
    assert run(pair, tmp_path / "out", 2, null=null) == alone


def test_the_relative_test_gives_the_same_bits_on_the_farm(tables: list[FeatureTable], tmp_path: Path) -> None:
    data = tables[0]
    alone = distributed_relative_test(data, data, data, **SETTINGS)
    execute = partial(on_farm, output=str(tmp_path / "out"), actors=2)
    assert distributed_relative_test(data, data, data, execute=execute, **SETTINGS) == alone


def test_a_killed_actor_changes_no_bit_and_a_kernel_of_its_own_kind_serves(
    tables: list[FeatureTable], tmp_path: Path
) -> None:
    alone = distributed_mmd_test(tables[0], tables[1], kernel=slow_kernel(0.0), **SETTINGS)
    first = [np.load(table.parts[0].url)[:, :1] for table in tables]
    of_library = mmd_test(first[0], first[1], kernel="laplace", bandwidth=1.0, permutations=99, seed=2)
    assert (alone.p_value, alone.kernel) == (of_library.p_value, "slow")
    assert alone.statistic == pytest.approx(of_library.statistic, abs=1e-7)
    killed: list[int] = []

    def kill_one(progress: FarmProgress) -> None:
        if progress.done >= 2 and progress.running and not killed:
            killed.append(progress.actor_pids[0])
            os.kill(killed[0], signal.SIGKILL)

    found = run(tables, tmp_path / "out", 2, kernel=slow_kernel(0.05), progress=kill_one)
    assert killed and found == alone


DRIVER = """
import sys
from functools import partial
from gebm.cluster.connect import connection
from gebm.evaluation.two_sample.distributed import Tiling, distributed_mmd_test, on_farm, table_of_file
from tests.evaluation.test_comparison_farm import SETTINGS, slow_kernel
output, x, y, address = sys.argv[1:]
tables = [table_of_file(path, name) for path, name in ((x, "x"), (y, "y"))]
with connection(address):
    execute = partial(on_farm, output=output, actors=1)
    distributed_mmd_test(*tables, kernel=slow_kernel(0.1), execute=execute, **SETTINGS)
"""


def test_after_a_killed_driver_only_the_missing_tiles_are_made(tables: list[FeatureTable], tmp_path: Path) -> None:
    output = tmp_path / "out"
    top = Path(__file__).parents[2]
    files = [table.parts[0].url for table in tables]
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(output), *files, ray.get_runtime_context().gcs_address],
        cwd=top,
        env={**os.environ, "PYTHONPATH": str(top)},
    )
    deadline = time.monotonic() + 60
    while not (output / "manifest.json").exists() and driver.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    driver.kill()
    driver.wait()
    left = load_manifest(str(output))
    assert left is not None and not left.complete and 1 <= len(left.items) < 21
    made: list[int] = []
    found = run(tables, output, 2, kernel=slow_kernel(0.0), summary=lambda summary: made.append(summary.done))
    assert made == [21 - len(left.items)]
    assert found == distributed_mmd_test(tables[0], tables[1], kernel=slow_kernel(0.0), **SETTINGS)
    with pytest.raises(InputError, match=r"out belongs to another run \(seed is .* there and .* here\)"):
        run(tables, output, 2, kernel=slow_kernel(0.0), seed=3)


def test_a_damaged_tile_is_made_again(tables: list[FeatureTable], tmp_path: Path) -> None:
    output = tmp_path / "out"
    expected = run(tables, output, 2)
    victim = sorted(output.glob("tile-*.npy"))[3]
    data = bytearray(victim.read_bytes())
    data[500] ^= 1
    victim.write_bytes(data)
    made: list[int] = []
    assert run(tables, output, 2, summary=lambda summary: made.append(summary.done)) == expected
    assert made == [1]


def test_an_actor_that_cannot_read_the_features_says_what_to_do(tables: list[FeatureTable], tmp_path: Path) -> None:
    def remove(_: FarmProgress) -> None:
        Path(tables[1].parts[0].url).unlink(missing_ok=True)

    with pytest.raises(InputError, match=r"y\.npy of y is not there; where actors run on several machines"):
        run(tables, tmp_path / "out", 1, progress=remove)
