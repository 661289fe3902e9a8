"""The illustration: bases whose law is known, an energy that puts mass right, and a page that shows all of it."""

from __future__ import annotations

import re
import sys

import numpy as np
import pytest
import torch
from scipy.stats import kstest, norm

from gebm.cluster import storage
from gebm.launch.config import load_recipe
from gebm.launch.data.toy import CURVES, MIXTURES
from gebm.launch.illustration.cases import CASES
from gebm.launch.illustration.curve_base import CurveBase, MixtureBase
from gebm.launch.illustration.measure import bin_edges, places_of, shares, total_variation
from gebm.launch.illustration.run import run_illustration
from gebm.launch.progress import LineDisplay

PANELS = ("Target", "Base", "Learnt log-weight, −E − c", "Re-weighted model", "Share of the mass in each of")
FEW_STEPS = ["trainer.energy.steps=300", "trainer.log_every=20", "trainer.checkpoint_every=400", "seed=3"]


def latents(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 1, generator=torch.Generator().manual_seed(seed))


def test_the_mixture_base_has_its_own_weights_and_the_components_of_the_data():
    weights = np.array([0.15, 0.25, 0.6])
    _, means, deviations = np.array(MIXTURES["three_modes"]).T

    def cumulative(x: np.ndarray) -> np.ndarray:
        return norm.cdf((x[:, None] - means) / deviations) @ weights

    points = MixtureBase("three_modes", weights.tolist())(latents(5000))[:, 0].numpy()
    assert kstest(points, cumulative).pvalue > 1e-3  # false alarm one in 1,000; the seed is fixed


def test_weights_that_are_no_shares_are_refused():
    with pytest.raises(ValueError, match="3 positive shares of 1"):
        MixtureBase("three_modes", [0.5, 0.4, 0.3])


@pytest.mark.parametrize("curve", CURVES)
def test_the_curve_base_lies_on_the_curve_and_is_spread_evenly_over_its_positions(curve):
    points = CurveBase(curve)(latents(5000)).detach().double().numpy()
    positions, distances = places_of(curve, points)
    assert distances.max() < 0.01
    # Rounded to the steps at which the curve is followed, far below what 5,000 points can tell. False alarm 1 in 1,000.
    assert kstest(positions, "uniform").pvalue > 1e-3


def test_a_stretched_and_moved_curve_base_is_off_the_curve_and_can_learn_its_way_back():
    base = CurveBase("ring", scale=[1.4, 0.8], shift=[0.3, 0.2])
    points = base(latents(1000))
    assert places_of("ring", points.detach().double().numpy())[1].mean() > 0.2
    (points.norm(dim=1) - 1).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().min() > 0 for parameter in base.parameters())


def test_mass_beyond_the_bins_is_counted_and_total_variation_is_the_mass_to_be_moved():
    edges = bin_edges("two_modes")
    left, right = shares(np.array([-99.0, -99.0]), edges), shares(np.array([99.0, -99.0]), edges, np.array([3.0, 1.0]))
    assert left[0] == 1 and right[-1] == 0.75
    assert total_variation(left, right) == pytest.approx(0.75)


def test_every_case_has_a_recipe_of_a_toy_and_a_base_of_its_own():
    recipes = [load_recipe(case.recipe) for case in CASES]
    assert all(recipe.data.source == "toy" and recipe.model.base == "foreign" for recipe in recipes)
    assert [recipe.trainer.joint.steps > 0 for recipe in recipes] == [False, False, False, True]


def test_the_energy_puts_right_at_least_half_of_the_misplaced_mass_and_the_page_shows_it(ray_cluster, tmp_path, capsys):
    page = run_illustration(str(tmp_path / "run"), LineDisplay(sys.stderr), FEW_STEPS, cases=CASES[:1])
    numbers = storage.read_json(str(tmp_path / "run" / "illustration.json"))["modes"]
    assert numbers["mass_error_base"] > 0.3  # the recipe's weights against the data's
    assert numbers["mass_error_model"] < 0.5 * numbers["mass_error_base"]
    assert sum(numbers["model_shares"]) == pytest.approx(1)
    html = storage.read_text(page)
    section = html.split("<section")[2]
    assert all(panel in section for panel in PANELS)
    assert section.count("data:image/png;base64,") == 4
    assert not re.search(r'(src|href)="(?!data:|#)', html), "the page is not self-contained"
    assert f"{numbers['mass_error_base']:.3f}" in section and f"{numbers['mass_error_model']:.3f}" in section
    assert storage.read_bytes(str(tmp_path / "run" / "modes.png")).startswith(b"\x89PNG")

    run_illustration(str(tmp_path / "run"), LineDisplay(sys.stderr), FEW_STEPS, cases=CASES[:1])
    assert "modes: trained before" in capsys.readouterr().err
