"""What is not finite is never accepted, and is counted; wrong parameters are refused at once."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from gebm.sampler.ddls import ddls
from gebm.sampler.dot import dot
from gebm.sampler.hmc import hmc
from gebm.sampler.imh import imh
from gebm.sampler.kla import kla
from gebm.sampler.mala import mala
from gebm.sampler.rwmh import rwmh
from gebm.sampler.ula import ula


def walled(value: float):
    """A standard normal potential that is `value` outside of the unit ball's 1.5-fold."""

    def potential(z: Tensor) -> Tensor:
        inside = z.square().sum(1) < 1.5**2
        return torch.where(inside, z.square().sum(1) / 2, z.sum(1) * 0 + value)

    return potential


def prior(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 2, generator=generator)


KERNELS = {
    "ula": lambda u: ula(u, 0.2),
    "ddls": lambda u: ddls(u, 0.2, 1.5),
    "mala": lambda u: mala(u, 0.2),
    "hmc": lambda u: hmc(u, 0.5, 3),
    "kla": lambda u: kla(u, 0.5, 1.0),
    "rwmh": lambda u: rwmh(u, 0.2),
    "imh": lambda u: imh(u, prior),
}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS.keys())
def test_a_proposal_that_is_not_finite_is_rejected_and_counted(make, value: float) -> None:
    algorithm = make(walled(value))
    generator = torch.Generator().manual_seed(0)
    state = algorithm.init(0.1 * prior(200, generator), generator)
    start, nonfinite = state.position, torch.zeros(200, dtype=torch.int64)
    for _ in range(30):
        before = state.position
        state, info = algorithm.step(state, generator)
        nonfinite += info.nonfinite
        assert torch.equal(state.position[info.nonfinite], before[info.nonfinite])
        assert not (info.nonfinite & info.accepted).any()
        assert (info.acceptance[info.nonfinite] == 0).all()
    assert state.position.isfinite().all()
    assert nonfinite.sum() > 50
    # Chains that met the wall go on from where they were: none is stuck at its start.
    assert (state.position != start).any(1).all()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda u: ula(u, 0.0), "step_size"),
        (lambda u: mala(u, -1.0), "step_size"),
        (lambda u: hmc(u, 0.1, 0), "leapfrog_steps"),
        (lambda u: kla(u, 0.1, math.nan), "friction"),
        (lambda u: rwmh(u, math.inf), "step_size"),
        (lambda u: dot(u, 0.1, 0.0), "lipschitz"),
    ],
)
def test_a_parameter_that_makes_no_kernel_is_refused(make, name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} must be positive"):
        make(walled(0.0))
