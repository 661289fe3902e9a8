"""Annealing: the temperatures are those of the schedule, cost no evaluation, and lead to the law of the last."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import Tensor

from gebm.sampler.annealing import annealed, temperature_of
from gebm.sampler.hmc import hmc
from gebm.sampler.kla import kla
from gebm.sampler.mala import mala
from gebm.sampler.rwmh import rwmh
from gebm.sampler.settings import AnnealSettings
from gebm.sampler.temperature import tempered
from gebm.sampler.ula import ula
from tests.sampler.targets import FarModes, far_modes, normal, p_value, tempered_gaussian

LEVEL = 1e-4

KERNELS = {
    "ula": lambda u: ula(u, 0.05),
    "mala": lambda u: mala(u, 0.2),
    "hmc": lambda u: hmc(u, 0.4, 2),
    "kla": lambda u: kla(u, 0.2, 1.0),
    "rwmh": lambda u: rwmh(u, 0.2),
}


def test_the_temperatures_lead_from_start_to_end_and_stay() -> None:
    done = torch.arange(8)
    linear = temperature_of(AnnealSettings(start=1.0, steps=4, shape="linear"), 3.0)
    torch.testing.assert_close(linear(done), torch.tensor([1, 1.5, 2, 2.5, 3, 3, 3, 3], dtype=torch.float64))
    geometric = temperature_of(AnnealSettings(start=1.0, steps=2), 100.0)
    torch.testing.assert_close(geometric(done), torch.tensor([1.0, 10] + [100] * 6, dtype=torch.float64))


@pytest.mark.parametrize("name", ["ula", "mala", "hmc", "rwmh"])
def test_what_the_chains_remember_is_of_the_new_temperature(name: str) -> None:
    """Potential and gradient after a change, worked out from the old, are those that an evaluation gives.

    One step at inverse temperature 0.5 and one at 2: the second must be that of a kernel that starts at 2.
    """
    target = tempered_gaussian()
    generator = torch.Generator().manual_seed(0)

    def temperature(done: Tensor) -> Tensor:
        return torch.where(done < 1, 0.5, 2.0).double()

    algorithm = annealed(KERNELS[name], target.energy, target.prior, temperature)
    state, _ = algorithm.step(algorithm.init(normal(300, 3, generator), generator), generator)
    replay = generator.get_state()
    annealed_state, info = algorithm.step(state, generator)
    generator.set_state(replay)
    fresh = KERNELS[name](tempered(target.energy, target.prior, torch.tensor(2.0)))
    expected, expected_info = fresh.step(fresh.init(state.position, generator), generator)
    for found, wanted in zip(annealed_state.chains, expected, strict=True):
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(info.acceptance, expected_info.acceptance)
    if name in ("mala", "hmc", "rwmh"):  # also what rejected chains keep
        assert (~info.accepted).any()


@pytest.mark.parametrize(("name", "evaluations"), [("ula", 11), ("mala", 11), ("hmc", 21), ("kla", 10), ("rwmh", 11)])
def test_annealing_takes_no_more_evaluations(name: str, evaluations: int) -> None:
    target, calls = tempered_gaussian(), []

    def energy(z: Tensor) -> Tensor:
        calls.append(len(z))
        return target.energy(z)

    temperature = temperature_of(AnnealSettings(start=0.1, steps=8), 2.0)
    algorithm = annealed(KERNELS[name], energy, target.prior, temperature)
    generator = torch.Generator().manual_seed(1)
    state = algorithm.init(normal(20, 3, generator), generator)
    for _ in range(10):
        state, _ = algorithm.step(state, generator)
    assert calls == [20] * evaluations


@pytest.mark.parametrize("name", ["mala", "hmc", "rwmh"])
def test_an_exact_kernel_is_exact_once_the_chains_are_cold(name: str) -> None:
    """From the prior through 30 steps of cooling and 60 at rest, against the exact law: false-alarm rate 1e-4."""
    target = tempered_gaussian()
    temperature = temperature_of(AnnealSettings(start=0.1, steps=30), 1.0)
    algorithm = annealed(KERNELS[name], target.energy, target.prior, temperature)
    generator = torch.Generator().manual_seed(2)
    state = algorithm.init(normal(20_000, 3, generator), generator)
    for _ in range(90):
        state, _ = algorithm.step(state, generator)
    assert p_value(target.at(1.0), state.position) > LEVEL
    assert p_value(target.at(0.8), state.position) < LEVEL


def crossed(target: FarModes, start_temperature: float | None) -> float:
    """The share of 4,000 chains that begin in the left mode and end in the right one after 300 steps of MALA."""
    generator = torch.Generator().manual_seed(3)
    start = target.scale * normal(4000, 2, generator)
    start[:, 0] -= target.offset
    if start_temperature is None:
        algorithm = mala(tempered(target.energy, target.prior, torch.tensor(1.0)), 0.05)
    else:
        temperature = temperature_of(AnnealSettings(start=start_temperature, steps=300), 1.0)
        algorithm = annealed(lambda u: mala(u, 0.05), target.energy, target.prior, temperature)
    state = algorithm.init(start, generator)
    for _ in range(300):
        state, _ = algorithm.step(state, generator)
    return (state.position[:, 0] > 0).double().mean().item()


def test_hot_chains_cross_between_modes_that_cold_ones_never_leave() -> None:
    """And cooled they are in the modes: where exactly they freeze is not promised, that is for tempering."""
    target = far_modes()
    assert crossed(target, None) == 0
    share = crossed(target, 0.02)
    assert stats.binomtest(round(share * 4000), 4000, 0.5).statistic > 0.3
