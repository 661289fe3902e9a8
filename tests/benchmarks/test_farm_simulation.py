"""The simulation of the farm: its figures add up, and it notices what it is there to notice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.benchmarks import farm_simulation
from tests.benchmarks.farm_simulation import main, simulate


def test_what_a_simulated_run_comes_to_adds_up() -> None:
    run = simulate(20, 400)
    assert run.events >= 400 + 20 and run.files_written >= 2 and run.bytes_written > 400 * 500
    assert run.makespan > run.ideal * 0.98 and 0.5 < run.efficiency < 1
    assert run.driver_seconds > 0 and run.peak_mib > 10
    assert simulate(20, 400).reissued == run.reissued  # the virtual part is a function of the seed


def test_more_actors_do_more_and_a_slow_driver_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    few, many = simulate(5, 400), simulate(40, 400)
    assert many.makespan < few.makespan / 4
    monkeypatch.setattr(farm_simulation, "CALL_SECONDS", 5.0)
    slow = simulate(40, 400)
    assert slow.makespan > 400 * 5 and slow.efficiency < many.efficiency / 2
    assert slow.limit.startswith("the driver")


def test_the_command_prints_a_table_and_writes_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(farm_simulation, "QUICK", ((4, 40),))
    main(["--quick", "--json", str(tmp_path / "out.json")])
    (found,) = json.loads((tmp_path / "out.json").read_text())
    assert (found["actors"], found["items"]) == (4, 40) and found["efficiency"] > 0
    assert "events/s" in capsys.readouterr().out
