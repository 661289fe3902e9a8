"""Step sizes may be tensors, one for each chain, and change from step to step as their schedule says."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, TransitionInfo
from gebm.sampler.ddls import ddls
from gebm.sampler.dot import dot
from gebm.sampler.hmc import hmc
from gebm.sampler.kla import kla
from gebm.sampler.mala import mala
from gebm.sampler.rwmh import rwmh
from gebm.sampler.schedule import polynomial, schedule_of, scheduled, stepwise
from gebm.sampler.settings import ScheduleSettings
from gebm.sampler.ula import ula
from tests.sampler.targets import banana, gaussian, p_value

LEVEL = 1e-4

KERNELS = {
    "ula": ula,
    "ddls": lambda u, h: ddls(u, h, 2.0),
    "mala": mala,
    "hmc": lambda u, h: hmc(u, h, 3),
    "kla": lambda u, h: kla(u, h, 1.0),
    "rwmh": rwmh,
    "dot": lambda u, h: dot(u, h, 1.0),
}


def run(algorithm: Algorithm, chains: int = 40, steps: int = 5) -> Tensor:
    """Where chains on the banana are after some steps, from the same start with the same noise each time."""
    generator = torch.Generator().manual_seed(0)
    state = algorithm.init(banana().draw(chains, generator), generator)
    for _ in range(steps):
        state, _ = algorithm.step(state, generator)
    return state.position


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS.keys())
def test_a_step_size_for_each_chain_moves_it_as_that_number_would(make) -> None:
    """Also as a tensor without axes. Noise and uniforms do not depend on the step size."""
    potential = banana().potential
    small, large = run(make(potential, 0.05)), run(make(potential, 0.3))
    assert (small != large).any(1).all()
    sizes = torch.tensor([0.05, 0.3], dtype=torch.float64)
    torch.testing.assert_close(run(make(potential, sizes[1])), large)
    both = run(make(potential, sizes.repeat(20)))
    torch.testing.assert_close(both[0::2], small[0::2])
    torch.testing.assert_close(both[1::2], large[1::2])


def sizes(schedule, steps: int) -> list[float]:
    """The step sizes that a kernel of step size 0.5 is given."""
    seen = []

    def kernel(step_size) -> Algorithm:
        def step(state, generator):
            seen.append(float(step_size))
            ones = torch.ones(len(state.position))
            return state, TransitionInfo(ones, ones.bool(), ~ones.bool())

        return Algorithm(ula(gaussian(1.0).potential, 1.0).init, step)

    run(scheduled(kernel, 0.5, schedule), steps=steps)
    return seen


def test_stepwise_is_the_schedule_of_the_reference() -> None:
    """A tenth after each 200 steps: 1,000 steps are made with five step sizes."""
    expected = [0.5 * 0.1 ** (n // 200) for n in range(1000)]
    assert sizes(schedule_of(ScheduleSettings(shape="stepwise")), 1000) == pytest.approx(expected)
    assert sizes(stepwise(0.5, 2), 5) == pytest.approx([0.5, 0.5, 0.25, 0.25, 0.125])


def test_polynomial_falls_from_the_first_step_on() -> None:
    assert sizes(polynomial(2.0, 1.0), 4) == pytest.approx([0.5 / (1 + n / 2) for n in range(4)])
    found = schedule_of(ScheduleSettings(shape="polynomial", offset=10, power=0.55))
    assert sizes(found, 30)[-1] == pytest.approx(0.5 * (1 + 29 / 10) ** -0.55)
    assert schedule_of(ScheduleSettings()) is None


def test_a_schedule_takes_no_more_gradients() -> None:
    calls = []

    def potential(z: Tensor) -> Tensor:
        calls.append(len(z))
        return z.square().sum(1) / 2

    run(scheduled(lambda h: mala(potential, h), 0.3, stepwise(0.5, 2)), steps=10)
    assert calls == [40] * 11


def test_ula_forgets_its_large_steps_for_the_law_of_its_small_ones() -> None:
    """`s² / (1 - h / (2 s²))` of the last step size, and not of the first. False-alarm rate 1e-4."""
    scale, h = 0.8, 0.6
    algorithm = scheduled(lambda size: ula(gaussian(scale).potential, size), h, stepwise(0.1, 20))
    generator = torch.Generator().manual_seed(1)
    state = algorithm.init(gaussian(scale).draw(30_000, generator), generator)
    laws = {}
    for done in range(1, 131):
        state, _ = algorithm.step(state, generator)
        if done in (20, 40):
            laws[done] = state.position
    at = {done: h * 0.1 ** ((done - 1) // 20) for done in (20, 40)}
    stationary = {done: gaussian(scale / math.sqrt(1 - size / (2 * scale**2))) for done, size in at.items()}
    assert p_value(stationary[20], laws[20]) > LEVEL
    assert p_value(stationary[40], laws[40]) > LEVEL
    assert p_value(stationary[20], laws[40]) < LEVEL


def test_an_exact_kernel_stays_exact_while_its_step_size_falls() -> None:
    target = banana()
    algorithm = scheduled(lambda size: mala(target.potential, size), 0.6, polynomial(3.0, 1.0))
    generator = torch.Generator().manual_seed(2)
    state = algorithm.init(target.draw(30_000, generator), generator)
    for _ in range(15):
        state, _ = algorithm.step(state, generator)
    assert p_value(target, state.position) > LEVEL
