"""The likelihood of a run with a density: measured once, written down, printed, and in report and summary."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from rich.console import Console

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.manifest import Manifest, write_manifest
from gebm.cluster.reader import read_all
from gebm.launch import likelihood, stages
from gebm.launch.config import dump_recipe, load_recipe
from gebm.launch.report import build_report
from gebm.launch.report.formats import Likelihood
from gebm.launch.report.likelihood import likelihood_section
from gebm.launch.report.wording import number
from gebm.launch.results import print_likelihood
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.work import make_shard_worker, publish_index, shard_items
from gebm.trainer.model import build_model, load_model, model_digest, save_model
from tests.conftest import draw_digit
from tests.evaluation.test_report_page import outline
from tests.launch.synthetic_run import evaluation, tuning, write_run

RECIPE = load_recipe("tabular_digits", ["data.name=iris", "likelihood.draws=2000"])


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Real rows and a model with fresh weights: the flow is the identity and the energy a random one."""
    where = str(tmp_path / "run")
    storage.write_bytes_atomic(f"{where}/config.toml", dump_recipe(RECIPE).encode())
    stages.prepare_data(where, RECIPE, lambda *_: None)
    save_model(build_model(RECIPE.model, (4,), seed=0), RECIPE.model, f"{where}/model")
    return where


def write_samples(run: str, name: str, count: int = 30) -> None:
    """What the sampling farm leaves, made by its own work function."""
    settings = SamplerSettings(name=name, steps=10, shard_size=count, chains=count)  # type: ignore[arg-type]
    out = f"{run}/samples/{'base' if name == 'base' else 'model'}"
    (item,) = shard_items(settings, count, 0)
    record = make_shard_worker(f"{run}/model", out, settings, 0, "cpu")()(item, "try0")
    publish_index(out, [record])
    described = {"model": model_digest(run), "sampler": settings.model_dump(mode="json"), "count": count, "seed": 0}
    items = {item.id: record}
    write_manifest(out, Manifest(settings_digest="0" * 64, settings=described, total=1, complete=True, items=items))


def test_the_likelihood_is_that_of_the_test_points_under_the_exported_model(run):
    found = stages.report_likelihood(run, RECIPE)
    points = torch.from_numpy(read_all(f"{run}/data/test").images)
    model = load_model(run)
    assert found["points"] == len(points)
    base = -torch.distributions.Normal(0.0, 1.0).log_prob(points).sum(1)
    assert found["base"] == pytest.approx(float(base.mean()), rel=1e-5)
    c = found["log_partition"]["value"]
    assert found["model"] == pytest.approx(float((base + model.energy(points)).mean()) + c, rel=1e-5)
    assert storage.read_json(f"{run}/{likelihood.RESULT}") == found


def test_what_was_measured_is_not_measured_again_and_other_weights_are(run, monkeypatch):
    first = stages.report_likelihood(run, RECIPE)
    with monkeypatch.context() as patch:
        patch.setattr(likelihood, "read_all", lambda url: pytest.fail("measured again"))
        assert stages.report_likelihood(run, RECIPE) == first
    save_model(build_model(RECIPE.model, (4,), seed=1), RECIPE.model, f"{run}/model")
    assert stages.report_likelihood(run, RECIPE)["model"] != first["model"]


def test_points_of_another_shape_and_models_without_density_are_refused(run, tmp_path):
    other = RECIPE.model_copy(update={"data": RECIPE.data.model_copy(update={"name": "wine"})})
    stages.prepare_data(str(tmp_path / "wine"), other, lambda *_: None)
    with pytest.raises(InputError, match="its samples are of shape 13, the model's of 4"):
        likelihood.measure_likelihood(run, str(tmp_path / "wine/data/test"), RECIPE.likelihood, seed=0)
    settings = RECIPE.model.model_copy(update={"base": "implicit"})
    save_model(build_model(settings, (4,), seed=0), settings, f"{run}/model")
    with pytest.raises(InputError, match="no density"):
        stages.report_likelihood(run, RECIPE)


@pytest.mark.parametrize(
    ("data", "split"),
    [({}, "test"), ({"test": None}, "validation"), ({"test": None, "validation": None}, None)],
)
def test_the_likelihood_is_reported_on_the_test_points_else_on_the_validation_points(data, split):
    recipe = RECIPE.model_copy(update={"data": RECIPE.data.model_copy(update=data)})
    assert stages.held_out_split(recipe) == split


def test_a_model_without_density_has_no_points_to_report():
    assert stages.held_out_split(load_recipe("mnist")) is None


def test_report_and_summary_of_vectors_have_the_likelihood_and_points_for_pictures(run):
    found = stages.report_likelihood(run, RECIPE)
    write_samples(run, "base")
    write_samples(run, "ula")
    storage.write_bytes_atomic(f"{run}/metrics/values-00000000.jsonl", b'{"phase": "base", "round": 1}\n')
    build_report(run)
    html = Path(run, "report.html").read_text()
    assert "250 steps of maximum likelihood of the generator, then 1,000 steps of the energy alone" in html
    parsed = outline(html)
    assert parsed.images == [] and parsed.outside == []
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings[:3] == ["Samples", "Likelihood", "The energy at work"]
    assert "Nearest training images" not in headings
    assert "the plane of the two directions" in html
    # Three clouds, the bound, the energies along the chains and their histograms.
    assert html.count("<svg") == 6
    summary = json.loads(Path(run, "summary.json").read_text())
    assert summary["likelihood"]["base"] == found["base"]
    assert summary["likelihood"]["log_partition"] == found["log_partition"]


def test_a_report_of_vectors_does_not_speak_of_images_and_opens_with_the_likelihood(run):
    """Neither when all is there, nor when parts are missing; names of settings aside."""
    found = stages.report_likelihood(run, RECIPE)
    build_report(run)
    bare = Path(run, "report.html").read_text()
    write_samples(run, "base")
    write_samples(run, "ula")
    storage.write_json_atomic(f"{run}/tune.json", tuning())
    raw = {"name": "raw", "layer": None, "input_size": None, "weights": None, "dimension": 4}
    storage.write_json_atomic(f"{run}/evaluation/main.json", evaluation() | {"extractor": raw, "kid_model": -0.01})
    lines = [{"phase": "base", "round": 1, "negative_log_likelihood": 3.0}]
    lines += [{"phase": "energy", "round": 2, "critic_loss": 0.1, "penalty": 0.1, "kale_train": 0.2, "fid": 3.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    storage.write_bytes_atomic(f"{run}/metrics/values-00000000.jsonl", text.encode())
    build_report(run)
    whole = Path(run, "report.html").read_text()
    for html in (bare, whole):
        said = re.sub(
            r"<style.*?</style>|<[^>]+>", " ", html[: html.index("<h2>Settings and versions</h2>")], flags=re.DOTALL
        )
        assert "image" not in said.lower(), re.search(r".{60}[Ii]mage.{20}", said)
    assert "On the values themselves." in whole
    opening = whole[: whole.index("<h2>")]
    assert "Negative log-likelihood" in opening and number(found["difference"]) in opening


def test_a_run_of_images_has_no_likelihood(tmp_path):
    where = str(tmp_path / "images")
    write_run(where, lambda random: draw_digit(3, 32, 1, random).transpose(2, 0, 1), counts=(30, 30), samples=30)
    build_report(where)
    assert json.loads(Path(where, "summary.json").read_text())["likelihood"] is None
    assert "<h2>Likelihood</h2>" not in Path(where, "report.html").read_text()


def finding(upper: float, better: bool, effective: float = 5000.0) -> Likelihood:
    c = {"value": 0.1, "standard_error": 0.01, "draws": 10_000, "effective_draws": effective}
    values = {"base": 5.0, "model": 4.5, "difference": -0.5, "difference_upper": upper, "better": better}
    errors = {"base_error": 0.3, "model_error": 0.3, "difference_error": 0.1, "level": 0.05, "points": 99}
    return Likelihood.model_validate({**values, **errors, "log_partition": c})


@pytest.mark.parametrize(
    ("found", "words", "printed"),
    [
        (finding(-0.2, True), "better than its generator: the upper bound", "is better than its base"),
        (finding(0.1, False), "Not shown to be better", "not shown to be better than its base"),
        (finding(-0.2, False, 12.0), "no more than 12.0 effective draws", "not shown to be better than its base"),
    ],
)
def test_the_words_say_better_only_where_it_was_shown(found, words, printed):
    assert any(words in block.text for block in likelihood_section(found).blocks if block.template == "text")
    console = Console(record=True, width=160)
    print_likelihood(found.model_dump(), console)
    text = console.export_text()
    assert printed in text
    assert "4.500" in text and "-0.500" in text and "0.0100" in text and "99 held-out points" in text
