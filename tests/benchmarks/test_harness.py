"""The benchmark convention: medians of interleaved runs, one record a case, a table and a JSON file."""

from __future__ import annotations

import io
import json
import time

import torch
from rich.console import Console

from tests.benchmarks.harness import Record, interleaved, machine, main, matrix_rate, print_table

KEYS = {"case", "ours_seconds", "peer", "peer_seconds", "ratio", "share_of_peak", "machine"}


def record(peer_seconds: float | None = 3.0) -> Record:
    peer = None if peer_seconds is None else "them"
    return Record("case", 2.0, peer, peer_seconds, 0.25, machine())


def test_the_ratio_is_above_one_when_ours_is_faster():
    assert record().ratio == 1.5
    assert record(None).ratio is None


def test_both_sides_run_in_turns_and_one_slow_run_does_not_count():
    calls = []

    def ours():
        calls.append("ours")
        time.sleep(0.2 if len(calls) == 1 else 0.005)

    seconds, _ = interleaved(ours, lambda: calls.append("peer"), repeats=3, warmup=0)
    assert calls == ["ours", "peer"] * 3
    assert 0.005 <= seconds < 0.1


def test_the_file_holds_the_records_of_the_convention(tmp_path, capsys):
    main("Title", lambda quick: [record(3.0 if quick else None)], ["--quick", "--json", str(tmp_path / "r.json")])
    (content,) = json.loads((tmp_path / "r.json").read_text())
    assert set(content) == KEYS
    assert content["ratio"] == 1.5
    assert "them" in capsys.readouterr().out


def test_the_table_leaves_empty_what_was_not_measured():
    console = Console(file=io.StringIO(), width=120)
    print_table("Title", [record(), record(None)], console)
    shown = console.file.getvalue()
    assert "25%" in shown and "1.50" in shown and "None" not in shown


def test_the_matrix_rate_is_that_of_a_real_product():
    # Any machine of this century does between 0.1 GFLOP/s and 10 PFLOP/s.
    assert 1e8 < matrix_rate(torch.float32, size=128, seconds=0.05) < 1e16
