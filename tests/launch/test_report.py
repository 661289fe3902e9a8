"""The report of a run: says what the figures say, bears what is missing, names what is broken."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.evaluation.report import Verdict
from gebm.launch.config import dump_recipe, load_recipe
from gebm.launch.report import build_report
from gebm.launch.report.chains import energies_of
from gebm.launch.report.contents import read_contents
from gebm.launch.report.formats import Evaluation
from gebm.launch.report.measurements import measurements
from gebm.launch.report.pictures import NEIGHBOURS, nearest
from gebm.launch.report.training import phase_marks
from gebm.launch.report.verdict import judge
from gebm.launch.report.wording import duration, number, p_words
from gebm.launch.results import print_evaluation
from tests.conftest import draw_digit
from tests.evaluation.test_report_page import outline
from tests.launch.synthetic_run import evaluated_energy, evaluation, write_run, write_set

SUMMARY_KEYS = {
    *("fid_base", "fid_model", "fid_ratio", "fid_ratio_interval", "kid_base", "kid_model"),
    *("mmd_base", "mmd_model", "mmd_null", "mmd_relative"),
    *("modes_base", "modes_model", "modes_real", "modes_classifier"),
    *("labels_base", "labels_model", "labels_real"),
    *("n_real", "n_generated", "extractor", "likelihood", "seed", "versions", "seconds"),
}


@pytest.fixture(scope="module")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("finished") / "run"
    write_run(str(run), lambda random: draw_digit(int(random.integers(10)), 32, 1, random).transpose(2, 0, 1))
    return run


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, to break things in."""
    return shutil.copytree(finished_run, tmp_path / "run")


def page_of(run: Path) -> str:
    path = Path(build_report(str(run)))
    assert path == run / "report.html"
    return path.read_text()


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def test_a_finished_run_gets_a_whole_page_and_a_summary(run):
    html = page_of(run)
    parsed = outline(html)
    assert parsed.outside == [] and "script" not in parsed.tags
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        "Samples",
        "Measurements",
        "The energy at work",
        "Nearest training images",
        "Training",
        "Tuning",
        "Time",
        "Settings and versions",
    ]
    assert 'class="missing"' not in html
    assert "FID 0.66 of the generator’s, 95% interval 0.60 to 0.71" in html
    assert len(parsed.images) == 7
    assert html.count("<svg") == 9
    for setting in ("trainer.joint.steps", "evaluation.extractor.layer", "sampler.step_size"):
        assert setting in html


def test_the_summary_has_just_the_keys_that_programs_rely_on(run):
    build_report(str(run))
    summary = summary_of(run)
    assert set(summary) == SUMMARY_KEYS
    for test in ("mmd_base", "mmd_model", "mmd_null"):
        assert set(summary[test]) == {"statistic", "p_value", "n", "m", "permutations"}
    assert set(summary["mmd_relative"]) == {"statistic", "p_value"}
    assert summary["fid_ratio_interval"] == [0.605, 0.715]
    assert summary["seed"] == 0 and summary["seconds"]["train"] == 171.4
    assert {"gebm", "torch", "ray", "python", "cpu"} <= set(summary["versions"])


def test_the_same_run_gives_the_same_page(run):
    assert page_of(run) == page_of(run)


def test_progress_counts_up_to_its_total(run):
    seen: list[tuple[int, int, str]] = []
    build_report(str(run), progress=lambda *state: seen.append(state))
    assert [done for done, _, _ in seen] == list(range(len(seen)))
    assert seen[-1][0] == seen[-1][1]


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("tune.json", "gebm tune"),
        ("samples/base", "gebm sample {run} --sampler base"),
        ("samples/model", "gebm sample {run}"),
        ("evaluation", "gebm evaluate {run}/samples/model"),
        ("metrics", "gebm train RECIPE --out {run}"),
        ("model", "gebm train RECIPE --out {run}"),
        ("data/test", "gebm data mnist OUT"),
        ("data/train", "training images"),
        ("timings.json", "gebm demo"),
    ],
)
def test_a_part_that_is_not_there_is_left_out_with_the_command_that_makes_it(run, gone, words):
    target = run / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    html = page_of(run)
    outline(html)
    notes = [re.sub("<[^>]+>", "", note) for note in re.findall(r'<p class="missing">(.*?)</p>', html)]
    assert any(words.format(run=run) in note for note in notes), notes
    assert set(summary_of(run)) == SUMMARY_KEYS


def test_a_run_that_holds_its_settings_alone_gets_a_page_too(run):
    for entry in run.iterdir():
        if entry.name != "config.toml":
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    outline(page_of(run))
    summary = summary_of(run)
    assert summary["fid_ratio"] is None and summary["mmd_null"] is None and summary["seconds"] == {}


def test_samples_that_are_still_being_drawn_count_as_not_there(run):
    manifest = run / "samples/model/manifest.json"
    written = json.loads(manifest.read_text())
    written["items"].popitem()
    manifest.write_text(json.dumps({**written, "complete": False}))
    assert read_contents(str(run)).model is None


def cut_in_half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    "name",
    [
        "config.toml",
        "tune.json",
        "timings.json",
        "evaluation/main.json",
        "metrics/values-00000000.jsonl",
        "samples/base/manifest.json",
        "samples/model/index.json",
        "samples/model/shard-000001-try0123456789.tar",
        "data/train/shard-000000.tar",
        "data/test/index.json",
        "model/weights.safetensors",
    ],
)
def test_a_broken_file_is_named_and_no_page_is_written(run, name):
    cut_in_half(run / name)
    with pytest.raises(InputError, match=re.escape(name)):
        build_report(str(run))
    assert not (run / "report.html").exists() and not (run / "summary.json").exists()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("evaluation/main.json", "[1]", "main.json"),
        ("evaluation/main.json", '{"fid_ratio_interval": "wide"}', "fid_ratio_interval"),
        ("evaluation/main.json", '{"mmd_null": 3}', "mmd_null"),
        ("timings.json", '{"train": "long"}', "train"),
        ("tune.json", "{}", "tune.json"),
        ("metrics/values-00000000.jsonl", '{"round": 1}\n', "line 1"),
    ],
)
def test_a_file_of_another_shape_is_named_with_its_field(run, name, content, words):
    (run / name).write_text(content)
    with pytest.raises(InputError, match=re.escape(words)) as raised:
        build_report(str(run))
    assert name in str(raised.value)


def test_a_directory_that_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a run"):
        build_report(str(tmp_path))


def judged(interval: list[float] | None, relative: float | None, **more: object) -> tuple[str, str]:
    figures = {**evaluation(), "fid_ratio_interval": interval, **more}
    figures["fid_ratio"] = None if interval is None else sum(interval) / 2
    figures["mmd_relative"] = None if relative is None else {"statistic": 0.0, "p_value": relative}
    verdict = judge(Evaluation.model_validate(figures), 0.05, "RUN")
    assert isinstance(verdict, Verdict)
    return verdict.label, f"{verdict.sentence} {verdict.evidence}"


@pytest.mark.parametrize(
    ("interval", "relative", "label"),
    [
        ([0.6, 0.7], 0.01, "Closer to the data"),
        ([0.6, 0.7], 0.3, "Closer by FID, not shown by the test"),
        ([0.6, 0.7], 0.99, "The measures disagree"),
        ([0.6, 0.7], None, "Closer to the data by FID"),
        ([0.9, 1.1], 0.3, "Undecided"),
        ([0.9, 1.1], None, "Undecided"),
        ([0.9, 1.1], 0.01, "Closer by the test, open by FID"),
        ([0.9, 1.1], 0.99, "Further by the test, open by FID"),
        ([0.9, 1.0], 0.3, "Undecided"),
        ([1.1, 1.3], 0.99, "Further from the data"),
        ([1.1, 1.3], 0.3, "Further from the data by FID"),
        ([1.1, 1.3], None, "Further from the data by FID"),
        ([1.1, 1.3], 0.01, "The measures disagree"),
        (None, 0.01, "Closer to the data by the test"),
        (None, 0.99, "Further from the data by the test"),
        (None, 0.3, "Undecided"),
        (None, None, "Not compared"),
    ],
)
def test_the_answer_says_what_the_figures_say_and_no_more(interval, relative, label):
    found, words = judged(interval, relative)
    assert found == label
    if label.startswith("Undecided"):
        assert "do not decide" in words or "does not decide" in words


def test_a_rejected_control_is_not_kept_quiet():
    rejected = {"statistic": 0.1, "p_value": 0.004, "n": 500, "m": 500, "permutations": 999}
    assert "Beware" in judged([0.6, 0.7], 0.01, mmd_null=rejected)[1]
    assert "Beware" not in judged([0.6, 0.7], 0.01)[1]


def test_an_evaluation_without_a_base_and_without_tests_is_reported():
    only = Evaluation(fid_model=214.8, n_real=10, n_generated=10)
    section = measurements(only, 0.05)
    assert len(section.blocks) == 1
    verdict = judge(only, 0.05, "RUN")
    assert isinstance(verdict, Verdict) and verdict.label == "Not compared"


def test_warnings_of_the_evaluation_are_shown(run):
    path = run / "evaluation/main.json"
    path.write_text(json.dumps({**evaluation(), "warnings": ["nearly <singular>"]}))
    assert "nearly &lt;singular&gt;" in page_of(run)


def test_nearest_images_are_those_of_a_full_search(tmp_path):
    random = np.random.default_rng(0)
    train = random.integers(0, 256, (4300, 1, 4, 4), dtype=np.uint8)  # more than two batches
    queries = np.concatenate([train[[4299, 0]], random.integers(0, 256, (5, 1, 4, 4), dtype=np.uint8)])
    write_set(str(tmp_path), train)
    found = nearest(queries, str(tmp_path), shown=4)
    differences = queries.astype(int).reshape(7, 1, -1) - train.astype(int).reshape(1, 4300, -1)
    squares = np.square(differences).sum(2)
    order = np.argsort(squares, axis=1, kind="stable")[:, :NEIGHBOURS]
    assert found.searched == 4300
    assert (found.images == train[order[:4]]).all()
    assert found.distances == pytest.approx(np.sqrt(squares.min(1) / 16), abs=0.1)


def test_training_images_of_another_shape_are_named(run):
    shutil.rmtree(run / "data/train")
    write_set(str(run / "data/train"), np.zeros((4, 3, 16, 16), np.uint8))
    with pytest.raises(InputError, match=re.escape(str(run / "data/train"))):
        build_report(str(run))


def test_energies_of_the_report_are_those_of_the_model(run):
    contents = read_contents(str(run))
    energies = energies_of(contents)
    assert list(energies) == ["real", "generator", "model"]
    assert contents.real is not None and contents.base is not None
    assert energies["real"].mean() == pytest.approx(evaluated_energy(str(run), contents.real), rel=1e-4)
    assert energies["generator"].mean() == pytest.approx(evaluated_energy(str(run), contents.base.images), rel=1e-4)


def change_settings(url: Path, change: Callable[[dict], None]) -> None:
    content = json.loads((url / "manifest.json").read_text())
    change(content["settings"])
    storage.write_json_atomic(str(url / "manifest.json"), content)


@pytest.mark.parametrize(
    "change",
    [
        lambda settings: settings.update(seed=1),
        lambda settings: settings.update(model="f" * 64),
        lambda settings: settings["sampler"].update(shard_size=100),
    ],
    ids=["seed", "model", "shards"],
)
def test_pairs_are_shown_only_where_both_started_from_the_same_latents(run, change):
    assert read_contents(str(run)).paired
    change_settings(run / "samples/base", change)
    assert not read_contents(str(run)).paired
    assert "Same latent" not in page_of(run)


@pytest.mark.parametrize("change", [{"name": "sir"}, {"samples_per_chain": 2}], ids=["resampled", "thinned"])
def test_samples_that_did_not_start_from_the_latent_of_their_number_are_not_shown_as_pairs(run, change):
    change_settings(run / "samples/model", lambda settings: settings["sampler"].update(change))
    assert not read_contents(str(run)).paired


def test_what_the_chains_found_out_is_shown(run):
    """Means over shards, weighted by their samples."""
    location = run / "samples/model/manifest.json"
    content = json.loads(location.read_text())
    records = list(content["items"].values())
    for place, record in enumerate(records):
        record["diagnostics"]["found"] = {"step_size": [0.125 + place], "swap_acceptance": [0.25, 0.5]}
    storage.write_json_atomic(str(location), content)
    counts = [record["count"] for record in records]
    mean = 0.125 + sum(place * count for place, count in enumerate(counts)) / sum(counts)
    page = page_of(run)
    assert "Tuned step size" in page and number(mean) in page
    assert "0.250, 0.500" in page


def test_how_fast_the_samples_were_drawn_is_told_where_it_is_known(run):
    assert "Samples drawn" not in page_of(run)
    actor = {"host": "a", "pid": 1, "shards": 2, "samples": 40, "busy_seconds": 9.0, "lived_seconds": 10.0}
    actors = [{**actor, "chain_seconds": 8.0}, {**actor, "chain_seconds": 7.0}]
    numbers = {"seconds": 16.0, "samples": 80, "failed": 0, "retried": 0, "reissued": 0, "deaths": 0}
    storage.write_json_atomic(str(run / "samples/model/summary.json"), {**numbers, "actors": actors})
    page = page_of(run)
    assert "Samples drawn" in page and f"{number(5.0)} a second" in page
    assert "by 2 actors in 16 s; 75% of their time in chains" in page


def test_samples_of_another_model_than_the_run_now_holds_are_pointed_out(run):
    change_settings(run / "samples/model", lambda settings: settings.update(model="f" * 64))
    assert "another model" in page_of(run)


def test_a_phase_is_marked_where_the_one_before_ends(run):
    marks = phase_marks(read_contents(str(run)).metrics)
    assert [(mark.x, mark.label) for mark in marks] == [(1200, "energy phase")]


@pytest.mark.parametrize(
    ("overrides", "loss", "grids"),
    [
        ((), "Minus the KALE bound", "stands still, the chains that run beside it."),
        (("trainer.energy.chain_steps=0",), "Minus the KALE bound", "stands still, from low to high energy."),
        (
            ("trainer.objective=non_saturating", "trainer.energy.chain_steps=0", "trainer.energy.steps=0"),
            "the loss of the objective <code>non_saturating</code>",
            "as training went on.",
        ),
    ],
)
def test_training_is_told_as_the_recipe_has_it(run, overrides, loss, grids):
    (run / "config.toml").write_text(dump_recipe(load_recipe("mnist", overrides)))
    (run / "metrics/grids").mkdir()
    Image.new("RGBA", (66, 66)).save(run / "metrics/grids/round-00000010.png")
    html = page_of(run)
    assert loss in html and grids in html


def test_numbers_are_written_as_a_reader_would_say_them():
    written = [number(x) for x in (325.41, 0.66, 0.0341, -0.00021, 3.1e-19, 1234567.0, 0.0, 1000, None, float("nan"))]
    assert written == ["325", "0.660", "0.0341", "−0.000210", "3.10e−19", "1,234,567", "0.000", "1,000", "–", "–"]
    assert [p_words(p) for p in (0.0421, 0.001, 3e-9)] == ["p = 0.042", "p = 0.0010", "p < 0.0001"]
    assert [duration(s) for s in (2.31, 41.2, 372.0, 11100.0)] == ["2.3 s", "41 s", "6 min 12 s", "3 h 5 min"]


def test_modes_are_told_beside_what_even_draws_would_cover(run):
    found = {"covered": 700, "of": 1000, "kl_to_uniform": 0.91, "n": 2000}
    modes = {
        "modes_base": found,
        "modes_model": found | {"covered": 812, "kl_to_uniform": 0.52},
        "modes_real": found | {"covered": 861, "kl_to_uniform": 0.27},
        "modes_classifier": {"accuracy": 0.985, "n": 6000},
    }
    (run / "evaluation/main.json").write_text(json.dumps(evaluation() | modes))
    html = page_of(run)
    assert "<h2>Modes</h2>" in html and "865 by as many even draws" in html and "98.5%" in html
    assert {key: summary_of(run)[key] for key in modes} == modes
    console = Console(record=True, width=160)
    print_evaluation(summary_of(run), console)
    assert re.search(r"model +812 +1,000 +0\.520 +2,000", console.export_text())


def test_a_run_whose_modes_were_not_counted_says_nothing_of_them(run):
    assert "<h2>Modes</h2>" not in page_of(run)
    assert summary_of(run)["modes_model"] is None


def watched_lines() -> list[dict]:
    """Metrics with readings at intervals and a roll-back, as training leaves them."""
    lines = []
    for after in range(10, 110, 10):
        line = {"phase": "joint", "round": after, "critic_loss": -0.1, "energy_gradient_norm": 2.0}
        if after % 50 == 0:
            line |= {"log_partition_tracked": 0.31, "log_partition_fresh": 0.33, "log_partition_fresh_error": 0.02}
            line |= {"kale_train": 0.6, "kale_validation": 0.4, "kale_gap": 0.2, "kale_gap_error": 0.05, "fid": 321.0}
        lines.append(line)
    event = "training diverged in round 57 and went back to round 50 with learning rates times 0.5"
    lines.insert(5, {"phase": "joint", "round": 50, "event": event, "rolled_back_from": 57, "learning_rate_scale": 0.5})
    return lines


def test_what_was_watched_while_training_is_drawn_and_a_roll_back_is_told(run):
    shutil.rmtree(run / "metrics")
    (run / "metrics/grids").mkdir(parents=True)
    lines = "".join(json.dumps(line) + "\n" for line in watched_lines())
    (run / "metrics/values-00000000.jsonl").write_text(lines)
    for after in range(10, 110, 10):
        picture = Image.new("RGBA", (66, 66), (0, 0, after, 255))
        picture.save(run / f"metrics/grids/round-{after:08d}.png")
    html = page_of(run)
    for title in (
        "Log-partition against fresh draws",
        "KALE, training and validation",
        "KALE, training minus validation",
        "FID of a small sample",
        "Gradient norms",
    ):
        assert f">{title}</p>" in html, title
    assert "Learning rates" not in html
    assert "at the end: validation 0.400, training 0.600." in html
    assert "training diverged in round 57 and went back to round 50" in html
    contents = read_contents(str(run))
    assert len(contents.metrics) == 10 and "critic_loss" in contents.metrics[4]  # the event replaces no line
    shown = re.findall(r"A grid of samples after round (\d+)\.", html)
    assert (shown[0], shown[-1], len(shown)) == ("10", "100", 6)


def test_a_grid_that_is_no_picture_is_named(run):
    (run / "metrics/grids").mkdir()
    (run / "metrics/grids/round-00000010.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"grids/round-00000010\.png: not a readable picture"):
        build_report(str(run))
