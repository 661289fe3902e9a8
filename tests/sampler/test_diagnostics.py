"""Split-R̂, effective sample sizes and the summary of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gebm.sampler.diagnostics import describe_chains, split_r_hat, summarise
from gebm.sampler.effective_size import effective_sample_size


def test_r_hat_of_independent_draws_is_one_within_its_spread() -> None:
    """At 200 records and 50 chains its standard deviation is about 0.001: six of them."""
    trace = np.random.default_rng(0).normal(size=(200, 50))
    assert split_r_hat(trace) == pytest.approx(1, abs=0.01)


def test_r_hat_sees_chains_that_stay_apart() -> None:
    """Shifts of variance 1 beside a within variance of 1: sqrt(2)."""
    random = np.random.default_rng(1)
    trace = random.normal(size=(400, 200)) + random.normal(size=200)
    assert split_r_hat(trace) == pytest.approx(2**0.5, rel=0.1)


def test_r_hat_sees_a_drift_that_all_chains_share() -> None:
    trace = np.random.default_rng(2).normal(size=(100, 20)) + np.linspace(0, 4, 100)[:, None]
    found = split_r_hat(trace)
    assert found is not None and found > 1.2


@pytest.mark.parametrize("trace", [np.zeros((10, 4)), np.ones((3, 4)), np.ones((10, 1)), np.full((10, 4), np.nan)])
def test_r_hat_is_none_where_it_is_not_defined(trace: np.ndarray) -> None:
    assert split_r_hat(trace) is None


def autoregressive(correlation: float, records: int, chains: int, seed: int = 4) -> np.ndarray:
    """`(records, chains)`, stationary AR(1) with variance 1."""
    random = np.random.default_rng(seed)
    trace = random.normal(size=(records, chains))
    for step in range(1, records):
        trace[step] = correlation * trace[step - 1] + np.sqrt(1 - correlation**2) * trace[step]
    return trace


@pytest.mark.parametrize(("correlation", "spread"), [(0.0, 0.018), (0.6, 0.04), (0.9, 0.07)])
def test_the_bulk_effective_size_of_an_autoregressive_chain_is_what_theory_says(
    correlation: float, spread: float
) -> None:
    """`S (1 - r) / (1 + r)`, to four times the relative spread of the estimate, seen over 20 seeds."""
    found = effective_sample_size(autoregressive(correlation, 2000, 10), "bulk")
    assert found == pytest.approx(2000 * 10 * (1 - correlation) / (1 + correlation), rel=4 * spread)


def test_the_tail_effective_size_sees_chains_that_differ_in_scale_alone() -> None:
    """The case of the paper's figure 1: means of ranks agree, so the bulk sees nothing."""
    trace = np.random.default_rng(5).normal(size=(400, 20))
    trace[:, :2] *= 5
    bulk, tail = effective_sample_size(trace, "bulk"), effective_sample_size(trace, "tail")
    assert bulk is not None and bulk > 0.9 * trace.size
    assert tail is not None and tail < 0.05 * trace.size


def test_independent_draws_count_once_and_stuck_chains_about_as_many_as_there_are() -> None:
    """At ten records ArviZ by itself says 3,800 for 2,500 independent draws."""
    assert effective_sample_size(autoregressive(0.0, 10, 250), "bulk") == 2500
    stuck = effective_sample_size(autoregressive(0.999, 20, 250), "bulk")
    assert stuck is not None and 240 < stuck < 520


@pytest.mark.parametrize("trace", [np.ones((20, 4)), np.full((20, 4), np.nan), autoregressive(0.0, 9, 50)])
def test_the_effective_size_is_none_where_it_says_nothing(trace: np.ndarray) -> None:
    assert effective_sample_size(trace, "bulk") is None
    assert effective_sample_size(trace, "tail") is None


def test_what_came_before_the_second_half_does_not_count() -> None:
    settled = autoregressive(0.3, 60, 30)
    fall = np.concatenate([settled[::-1] + np.linspace(40, 0, 60)[:, None], settled])
    found = describe_chains(range(120), fall, 1.0, 0)
    assert found["energy_ess_bulk"] == effective_sample_size(settled, "bulk")
    assert found["energy_ess_tail"] == effective_sample_size(settled, "tail")
    assert found["energy_change"] == pytest.approx(fall[-1].mean() - fall[0].mean())


def test_the_summary_of_shards_is_that_of_all_their_chains() -> None:
    random = np.random.default_rng(3)
    energies = random.normal(size=(30, 90)) + np.linspace(3, 0, 30)[:, None]
    steps = range(0, 300, 10)
    parts = np.split(energies, [50, 70], axis=1)
    acceptance = [0.5, 0.6, 0.9]
    records = [
        {
            "count": part.shape[1],
            "seconds": 2.0,
            "chain_seconds": 1.5,
            "diagnostics": describe_chains(steps, part, rate, number),
        }
        for number, (part, rate) in enumerate(zip(parts, acceptance, strict=True))
    ]
    json.dumps(records, allow_nan=False)
    found = summarise(records)
    np.testing.assert_allclose(found["energy_mean"], energies.mean(1))
    np.testing.assert_allclose(found["energy_std"], energies.std(1))
    assert found["energy_change"] == pytest.approx(energies[-1].mean() - energies[0].mean())
    assert found["acceptance"] == pytest.approx((50 * 0.5 + 20 * 0.6 + 20 * 0.9) / 90)
    assert (found["nonfinite"], found["count"], found["actor_seconds"]) == (3, 90, 6.0)
    assert found["energy_r_hat"] == max(record["diagnostics"]["energy_r_hat"] for record in records)
    for key in ("energy_ess_bulk", "energy_ess_tail"):
        assert found[key] == pytest.approx(sum(record["diagnostics"][key] for record in records))
    assert found["energy_ess_per_second"] == pytest.approx(found["energy_ess_bulk"] / 4.5)


def test_an_energy_that_is_not_finite_is_null_in_json() -> None:
    described = describe_chains([0, 1], np.array([[1.0, 2.0], [np.inf, 0.0]]), 1.0, 0)
    assert described["energy_mean"] == [1.5, None]
    json.dumps(described, allow_nan=False)
    record = {"count": 2, "seconds": 1.0, "chain_seconds": 1.0, "diagnostics": described}
    assert summarise([record])["energy_mean"] == [1.5, None]
    assert summarise([record])["energy_ess_per_second"] is None
