"""Split-R̂ and the summary of a run."""

from __future__ import annotations

import json

import numpy as np
import pytest

from gebm.sampler.diagnostics import describe_chains, split_r_hat, summarise


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


def test_the_summary_of_shards_is_that_of_all_their_chains() -> None:
    random = np.random.default_rng(3)
    energies = random.normal(size=(12, 90)) + np.linspace(3, 0, 12)[:, None]
    steps = range(0, 120, 10)
    parts = np.split(energies, [50, 70], axis=1)
    acceptance = [0.5, 0.6, 0.9]
    records = [
        {"count": part.shape[1], "seconds": 2.0, "diagnostics": describe_chains(steps, part, rate, number)}
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


def test_an_energy_that_is_not_finite_is_null_in_json() -> None:
    described = describe_chains([0, 1], np.array([[1.0, 2.0], [np.inf, 0.0]]), 1.0, 0)
    assert described["energy_mean"] == [1.5, None]
    json.dumps(described, allow_nan=False)
    assert summarise([{"count": 2, "seconds": 1.0, "diagnostics": described}])["energy_mean"] == [1.5, None]
