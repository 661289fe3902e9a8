"""The report of a conditional model: a column a class, and how many images show the digit that was asked for."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gebm.evaluation.report import Columns, ImageGrid
from gebm.launch.report import build_report
from gebm.launch.report.contents import read_contents
from gebm.launch.report.labels import labels_section
from gebm.launch.report.pictures import class_columns, samples_section
from gebm.launch.results import print_evaluation
from tests.launch.synthetic_run import evaluation, write_run

BY_CLASS = [0.9, 0.8, 0.95, *[0.9] * 7]
LABELS = {
    "labels_base": {"share": 0.895, "standard_error": 0.0097, "n": 1000, "by_class": BY_CLASS},
    "labels_model": {"share": 0.951, "standard_error": 0.0068, "n": 1000, "by_class": None},
    "labels_real": {"share": 0.982, "standard_error": 0.0042, "n": 1000, "by_class": None},
}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(labels, conditional)`: a run whose images are grey by their place, with these labels, or none."""

    def make(labels: Callable[[int], np.ndarray] | None, conditional: bool) -> Path:
        overrides = (f"model.conditional={str(conditional).lower()}",)
        run, count = tmp_path / "run", iter(range(10_000))
        write_run(
            str(run),
            lambda random: np.full((1, 32, 32), next(count) % 256, np.uint8),
            overrides=overrides,
            labels=labels,
        )
        return run

    return make


def test_rows_of_each_class_come_in_their_order_equally_many_of_each():
    columns = class_columns(np.array([2, 0, 1, 0, 2, 2, 1, 0]))
    assert columns is not None and [each.tolist() for each in columns] == [[1, 3], [2, 6], [0, 4]]
    many = class_columns(np.tile([0, 1], 30))
    assert many is not None and many[1].tolist() == [1, 3, 5, 7, 9, 11, 13, 15]


@pytest.mark.parametrize("labels", [np.zeros(9, int), np.arange(40) % 11, np.array([0, 2, 2]), np.array([], int)])
def test_one_class_too_many_or_a_missing_one_make_no_columns(labels):
    assert class_columns(labels) is None


def test_the_grids_of_a_conditional_model_have_a_column_for_each_class(write):
    run = write(lambda count: np.arange(count) % 10, conditional=True)
    contents = read_contents(str(run))
    grids = grids_of(samples_section(contents))
    assert [grid.title for grid in grids[:3]] == ["Real", "Generator alone", "Model"]
    for grid, images in zip(grids, (contents.real, contents.base.images, contents.model.images), strict=False):
        assert grid.columns == 10 and [head.text for head in grid.heads] == list("0123456789")
        np.testing.assert_array_equal(grid.images, images[:80])  # 8 rows of the labels 0 to 9 in turn


@pytest.mark.parametrize("labels", [None, lambda count: np.arange(count) % 10])
def test_the_grids_of_any_other_model_show_the_first_images_whatever_their_labels(write, labels):
    run = write(labels, conditional=False)
    contents = read_contents(str(run))
    grid, *_ = grids_of(samples_section(contents))
    assert grid.columns == 8 and not grid.heads
    np.testing.assert_array_equal(grid.images, contents.real[:64])


def grids_of(section) -> list[ImageGrid]:
    beside = next(block for block in section.blocks if isinstance(block, Columns))
    return [block for block in beside.blocks if isinstance(block, ImageGrid)]


def test_labels_are_told_of_real_images_generator_and_model(write):
    run = write(lambda count: np.arange(count) % 10, conditional=True)
    (run / "evaluation/main.json").write_text(json.dumps(evaluation() | LABELS))
    html = Path(build_report(str(run))).read_text()
    assert "<h2>Labels</h2>" in html and "98.2%" in html and "95.1%" in html
    section = labels_section(read_contents(str(run)).evaluation)
    assert [[cell.text for cell in row] for row in section.blocks[0].rows] == [
        ["Real test images", "98.2%", "–"],
        ["Generator", "89.5%", "1"],
        ["Model", "95.1%", "–"],
    ]
    summary = json.loads((run / "summary.json").read_text())
    assert {key: summary[key] for key in LABELS} == LABELS
    console = Console(record=True, width=160)
    print_evaluation(summary, console)
    assert re.search(r"model +95\.1% +0\.7% +1,000", console.export_text())


def test_a_run_whose_labels_were_not_read_says_nothing_of_them(write):
    run = write(None, conditional=False)
    assert "<h2>Labels</h2>" not in Path(build_report(str(run))).read_text()
