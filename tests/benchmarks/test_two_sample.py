"""The benchmark of two-sample tests: its baseline is the same test, and a peer that gives no time gets a row that says
why."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from gebm.evaluation.two_sample import mmd_test
from tests.benchmarks import two_sample, two_sample_level, two_sample_peers
from tests.benchmarks.two_sample import Row, main, measure, ratios
from tests.benchmarks.two_sample_peers import Peers, einsum_test

FAKE_PEER = """
import json, sys, time
for line in sys.stdin:
    request = json.loads(line)
    if request["peer"] == "slow":
        time.sleep(60)
    if request["peer"] == "dies":
        sys.exit(1)
    print(json.dumps({"seconds": 4.0, "value": 0.5}), flush=True)
"""


@pytest.fixture
def fake_peer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "peer.py"
    script.write_text(FAKE_PEER)
    monkeypatch.setattr(two_sample_peers, "PYTHON", Path(sys.executable))
    monkeypatch.setattr(two_sample_peers, "SCRIPT", script)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(two_sample, "SHORT", 0.0)
    monkeypatch.setattr(two_sample, "matrix_rate", lambda seconds: 1e11)


def test_the_einsum_on_the_stored_kernel_is_the_same_test() -> None:
    """p-values of 1,999 permutations each agree to 5 standard errors of their difference."""
    rng = np.random.default_rng(0)
    x, y = (rng.normal(size=(80, 2)).astype(np.float32) for _ in range(2))
    ours = mmd_test(x, y * 1.1, bandwidth=1.0, permutations=1999).p_value
    theirs = einsum_test(torch.from_numpy(x), torch.from_numpy(y * 1.1).float(), 1.0, 1999)
    assert abs(ours - theirs) < 5 * (2 * ours * (1 - ours) / 1999) ** 0.5
    assert einsum_test(torch.from_numpy(x), torch.from_numpy(x) + 2.0, 1.0, 99) == 0.01


@pytest.mark.usefixtures("short")
def test_all_of_our_rows_have_a_time_and_absent_peers_say_how_to_get_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(two_sample_peers, "PYTHON", tmp_path / "nowhere")
    rows = list(measure([2], [64], permutations=19, limit=1.0))
    ours = [row for row in rows if row.name.startswith(("ours", "einsum"))]
    assert len(ours) == 9
    assert all(row.seconds is not None and row.seconds > 0 for row in ours)
    others = [row for row in rows if row not in ours]
    assert len(others) == 8
    assert all(row.seconds is None and "make peers" in row.note for row in others)


@pytest.mark.usefixtures("fake_peer")
def test_a_peer_that_is_slow_or_dies_gives_an_error_and_answers_the_next_request() -> None:
    x = np.zeros((3, 2))
    with Peers() as peers:
        assert peers.ask(x, x, {"peer": "quick"}, 20.0)["seconds"] == 4.0
        assert peers.ask(x, x, {"peer": "slow"}, 0.5) == {"error": "no answer in 0 s"}
        assert peers.ask(x, x, {"peer": "dies"}, 20.0) == {"error": "the process ended without an answer"}
        assert peers.ask(x, x, {"peer": "quick"}, 20.0)["seconds"] == 4.0


@pytest.mark.usefixtures("fake_peer", "short")
def test_a_peer_that_would_take_too_long_by_the_square_of_n_is_not_asked(tmp_path: Path) -> None:
    rows = list(measure([2], [20, 100], permutations=19, limit=50.0, only="alibi"))
    assert [row.seconds for row in rows] == [4.0, None]
    assert rows[1].note == "not run: 100 s by the square of n, from 4.0 s at 20"
    assert main(["--sizes", "20", "--dimensions", "2", "--only", "hyppo", "--plot", str(tmp_path / "a.png")]) == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_ratios_are_to_our_test_of_the_same_points() -> None:
    rows = [
        Row("ours: permutations", 500, 2, 0.5),
        Row("ours: KID, 100 subsets", 500, 2, 2.0),
        Row("alibi-detect", 500, 2, 5.0),
        Row("torchmetrics KID", 500, 2, 5.0),
        Row("hyppo", 1000, 2, 5.0),
    ]
    assert ratios(rows) == [
        "alibi-detect at n = 500, d = 2: 10 times as long as ours",
        "torchmetrics KID at n = 500, d = 2: 2.5 times as long as ours",
    ]


def test_the_table_of_levels_can_be_made_in_parts(tmp_path: Path) -> None:
    file = tmp_path / "part.json"
    assert two_sample_level.main(["--quick", "--only", "linear time, discrete, 24, 24", "--json", str(file)]) == 0
    cells = [(cell["form"], cell["data"], cell["repetitions"]) for cell in json.loads(file.read_text())]
    assert cells == [("sign flips, linear time", "discrete", 200), ("normal, linear time", "discrete", 200)]
