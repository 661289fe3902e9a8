"""The simulation of intervals: what it calls true is true, and its table comes out."""

import numpy as np

from gebm.evaluation.frechet import FrechetStatistics
from tests.benchmarks.interval_coverage import at_infinity, distances, draw, main


def test_estimates_approach_the_values_that_are_called_true() -> None:
    found = distances(*map(FrechetStatistics.of, draw(np.random.default_rng(0), 200_000)))
    np.testing.assert_allclose(found, at_infinity(), rtol=0.02)


def test_the_table_has_a_row_for_every_quantity_and_law(capsys) -> None:
    assert main(["--quick"]) == 0
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line[:3] in ("| 1", "| 2", "| 6")]
    assert len(rows) == 9 and all(len(row) == 9 for row in rows)
    assert all(0.0 <= float(cell.strip(" |")) <= 1.0 for row in rows for cell in row[4:])
