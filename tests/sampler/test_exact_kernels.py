"""MALA, HMC, random walk and independence Metropolis leave their target exactly as it is.

Chains start at exact, independent draws of the target and take some steps; where they end must again be
exact, independent draws. That is tested coordinate by coordinate at level 1e-4 for each pair of kernel and
target (`LEVEL`), and so is the detailed balance of one step: 24 checks, so that right kernels fail this file for one
seed in 400; the seeds are fixed. The same checks must reject kernels with planted errors.
"""

from __future__ import annotations

import importlib
import itertools
import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from gebm.sampler.algorithm import Algorithm, Potential
from gebm.sampler.hmc import HMCState, hmc
from gebm.sampler.imh import imh
from gebm.sampler.mala import MALAState, log_acceptance_ratio, mala
from gebm.sampler.rwmh import rwmh
from gebm.sampler.ula import ula
from tests.sampler.targets import Target, banana, gaussian, linear_generator, normal, p_value, two_modes

LEVEL = 1e-4
CHAINS = 30_000
STEPS = 15

TARGETS = {"linear generator": linear_generator(), "two modes": two_modes(), "banana": banana()}


def independence(potential: Potential) -> Algorithm:
    """IMH for any potential: the tilt is `U + log eta`, the prior wide enough for all the targets here."""
    scale = 1.6

    def tilt(z: Tensor) -> Tensor:
        return potential(z) - z.square().sum(1) / (2 * scale**2)

    def sample_prior(dimension: int):
        return lambda count, generator: scale * normal(count, dimension, generator)

    def init(position: Tensor, generator: torch.Generator):
        return imh(tilt, sample_prior(position.shape[1])).init(position, generator)

    def step(state, generator: torch.Generator):
        return imh(tilt, sample_prior(state.position.shape[1])).step(state, generator)

    return Algorithm(init, step)


KERNELS = {
    "mala": lambda potential: mala(potential, 0.25),
    "hmc": lambda potential: hmc(potential, 0.5, 3),
    "rwmh": lambda potential: rwmh(potential, 0.3),
    "imh": independence,
}


def run(algorithm: Algorithm, target: Target, seed: int = 0, steps: int = STEPS) -> tuple[Tensor, float]:
    """Where exact draws are after `steps`, and the share of proposals that was accepted."""
    generator = torch.Generator().manual_seed(seed)
    state = algorithm.init(target.draw(CHAINS, generator), generator)
    accepted = 0.0
    for _ in range(steps):
        state, info = algorithm.step(state, generator)
        accepted += info.accepted.double().mean().item() / steps
    return state.position, accepted


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_an_exact_kernel_leaves_its_target_invariant(kernel, target: Target) -> None:
    position, accepted = run(kernel(target.potential), target)
    assert 0.1 < accepted < 0.99  # it moves, and it is the acceptance step that is tested
    assert p_value(target, position) > LEVEL


@pytest.mark.parametrize("name", ["mala", "hmc", "rwmh", "imh"])
def test_an_exact_kernel_comes_from_far_away_to_its_target(name: str) -> None:
    """False-alarm rate 1e-4 for each kernel, beyond what is left of the start after 120 steps."""
    target = gaussian(0.7, dimension=2)
    algorithm = KERNELS[name](target.potential)
    generator = torch.Generator().manual_seed(1)
    state = algorithm.init(torch.full((5_000, 2), 2.0, dtype=torch.float64), generator)
    for _ in range(120):
        state, _ = algorithm.step(state, generator)
    assert p_value(target, state.position) > LEVEL


def balance_p_value(algorithm: Algorithm, target: Target) -> float:
    """Of "as many chains go from here to there as back": detailed balance of one step from exact draws.

    For functions `f`, `g` of a point, `f(z) g(z') - g(z) f(z')` has mean zero. Ten pairs of them; z-tests of their
    means, the smallest p-value, times their number.
    """
    generator = torch.Generator().manual_seed(5)
    before = target.draw(4 * CHAINS, generator)
    after, info = algorithm.step(algorithm.init(before, generator), generator)
    assert 0.1 < info.accepted.double().mean() < 0.99

    def functions(z: Tensor) -> list[Tensor]:
        a, b = target.coordinates(z)[:, :2].T
        return [a, b, a.square(), torch.sin(2 * a), a * b]

    here, there = functions(before), functions(after.position)
    smallest, pairs = 1.0, list(itertools.combinations(range(5), 2))
    for f, g in pairs:
        flow = here[f] * there[g] - here[g] * there[f]
        z = flow.mean() / (flow.std() / math.sqrt(len(flow)))
        smallest = min(smallest, 2 * stats.norm.sf(abs(float(z))))
    return min(1.0, len(pairs) * smallest)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS.keys())
def test_an_exact_kernel_is_in_detailed_balance(kernel, target: Target) -> None:
    """Level 1e-4 for each of the 12 pairs; 120,000 chains."""
    assert balance_p_value(kernel(target.potential), target) > LEVEL


def test_the_check_of_balance_rejects_mala_with_a_dropped_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(target: Tensor, source: MALAState, step_size: Tensor) -> Tensor:
        return -(target - source.position + step_size * source.gradient).square().sum(1) / (2 * step_size)

    monkeypatch.setattr(importlib.import_module("gebm.sampler.mala"), "log_proposal_density", planted)
    for target in TARGETS.values():
        assert balance_p_value(mala(target.potential, 0.25), target) < LEVEL


def test_mala_is_in_detailed_balance() -> None:
    """`pi(z) q(z'|z) a(z, z') = pi(z') q(z|z') a(z', z)`, `q` and `a` restated from the paper, to rounding."""
    target, h = banana(), 0.1
    generator = torch.Generator().manual_seed(2)
    algorithm = mala(target.potential, h)
    source = algorithm.init(target.draw(500, generator), generator)
    replay = generator.get_state()
    _, info = algorithm.step(source, generator)
    generator.set_state(replay)
    noise = normal(500, 2, generator)
    proposal = source.position - h * source.gradient + math.sqrt(2 * h) * noise

    def log_q(to: Tensor, at: MALAState) -> Tensor:
        law = torch.distributions.Normal(at.position - h * at.gradient, math.sqrt(2 * h))
        return law.log_prob(to).sum(1)

    arrived = algorithm.init(proposal, generator)
    log_flow = log_q(proposal, source) - source.potential
    log_return = log_q(source.position, arrived) - arrived.potential
    expected = (log_return - log_flow).clamp(max=0).exp()
    torch.testing.assert_close(info.acceptance, expected, rtol=1e-9, atol=1e-12)
    back = log_acceptance_ratio(source, arrived, h).clamp(max=0)
    torch.testing.assert_close(log_flow + info.acceptance.log(), log_return + back, rtol=1e-9, atol=1e-9)


def test_the_leapfrog_of_hmc_is_reversible_and_nearly_conserves_energy() -> None:
    """Error of H falls with the square of the step: halved step, about a quarter of the error."""
    target = banana()
    errors = []
    for step_size, leapfrog_steps in ((0.1, 8), (0.05, 16)):
        generator = torch.Generator().manual_seed(3)
        algorithm = hmc(target.potential, step_size, leapfrog_steps)
        state = algorithm.init(target.draw(20_000, generator), generator)
        _, info = algorithm.step(state, generator)
        errors.append((1 - info.acceptance).mean().item())
    # E[1 - acceptance] is proportional to the standard deviation of the energy error.
    assert 3.3 < errors[0] / errors[1] < 4.7


def test_the_check_rejects_the_reference_implementation_of_mala(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its correction multiplies by `gamma / 4` where `1 / (4 gamma)` belongs."""

    def planted(target: Tensor, source: MALAState, step_size: float) -> Tensor:
        return -(target - source.position + step_size * source.gradient).square().sum(1) * step_size / 4

    monkeypatch.setattr(importlib.import_module("gebm.sampler.mala"), "log_proposal_density", planted)
    for target in TARGETS.values():
        assert p_value(target, run(mala(target.potential, 0.25), target)[0]) < LEVEL


def test_the_check_rejects_mala_with_a_dropped_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    """`1 / (2h)` in place of `1 / (4h)`."""

    def planted(target: Tensor, source: MALAState, step_size: float) -> Tensor:
        return -(target - source.position + step_size * source.gradient).square().sum(1) / (2 * step_size)

    monkeypatch.setattr(importlib.import_module("gebm.sampler.mala"), "log_proposal_density", planted)
    for target in TARGETS.values():
        assert p_value(target, run(mala(target.potential, 0.25), target)[0]) < LEVEL


def test_the_check_rejects_hmc_with_a_stale_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a rejection it goes on with the gradient at the rejected proposal, as the reference does."""
    module = importlib.import_module("gebm.sampler.hmc")
    right = module.choose

    def planted(accepted: Tensor, proposed: HMCState, current: HMCState) -> HMCState:
        return right(accepted, proposed, current)._replace(gradient=proposed.gradient)

    monkeypatch.setattr(module, "choose", planted)
    for name, step_size in (("linear generator", 0.9), ("two modes", 0.9), ("banana", 0.5)):
        target = TARGETS[name]
        assert p_value(target, run(hmc(target.potential, step_size, 2), target)[0]) < LEVEL


def test_the_check_rejects_langevin_without_acceptance_step() -> None:
    for name in ("linear generator", "two modes"):  # on the banana it flies away
        assert p_value(TARGETS[name], run(ula(TARGETS[name].potential, 0.2), TARGETS[name])[0]) < LEVEL
