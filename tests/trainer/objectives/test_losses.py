"""The losses are those of the papers, in value and in gradient, and safe where exponentials are not."""

import math
from typing import get_args

import numpy as np
import pytest
import torch

from gebm.trainer.objectives import f_divergence, mmd
from gebm.trainer.objectives.table import OBJECTIVES
from gebm.trainer.settings import TrainerSettings
from tests.trainer.objectives.formulas import FORMULAS
from tests.trainer.objectives.gaussians import P, Q

F_DIVERGENCES = ("kl", "reverse_kl", "pearson", "hellinger", "jensen_shannon")


def test_every_objective_of_the_table_is_checked_and_may_be_named_by_a_recipe():
    assert OBJECTIVES.keys() == FORMULAS.keys()
    assert set(get_args(TrainerSettings.model_fields["objective"].annotation)) == OBJECTIVES.keys()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_are_those_of_the_papers(name):
    generator = torch.Generator().manual_seed(0)
    shape = (9, 3) if OBJECTIVES[name].reads == "features" else (9,)
    on_real = torch.randn(*shape, generator=generator, dtype=torch.float64) - 0.5
    on_fake = torch.randn(*shape, generator=generator, dtype=torch.float64) + 0.5
    c = torch.tensor(0.3, dtype=torch.float64)
    critic = OBJECTIVES[name].critic_loss(on_real, on_fake, c)
    base = OBJECTIVES[name].base_loss(on_fake, on_real if OBJECTIVES[name].needs_real_for_base else None)
    real, fake = on_real.numpy(), on_fake.numpy()
    assert float(critic) == pytest.approx(FORMULAS[name].critic_loss(real, fake, 0.3), rel=1e-12)
    assert float(base) == pytest.approx(FORMULAS[name].base_loss(fake, real), rel=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_moving_generated_points_towards_the_data_lowers_the_base_loss(name):
    """At the best critic of `P = N(0.6, 0.9^2)` against `Q = N(0, 1)`: `log q/p`, or the points for MMD."""
    shift = torch.zeros((), dtype=torch.float64, requires_grad=True)
    y = Q.quantiles(500) + shift
    if OBJECTIVES[name].reads == "features":
        loss = OBJECTIVES[name].base_loss(y[:, None], P.quantiles(500)[:, None])
    else:
        loss = OBJECTIVES[name].base_loss(Q.log_density(y) - P.log_density(y), None)
    (slope,) = torch.autograd.grad(loss, shift)
    assert slope < -0.01


@pytest.mark.parametrize("name", OBJECTIVES)
def test_only_where_a_constant_in_the_energy_is_said_to_be_free_does_it_change_nothing(name):
    """For KALE, which has a `c` to take it up, together with `c`."""
    if OBJECTIVES[name].reads == "features":
        assert not OBJECTIVES[name].constant_is_free
        return
    on_real, on_fake = torch.randn(2, 16, generator=torch.Generator().manual_seed(1)).double()
    c = torch.tensor(0.4, dtype=torch.float64)
    moved = c - 0.7
    loss = OBJECTIVES[name].critic_loss(on_real, on_fake, c)
    shifted = OBJECTIVES[name].critic_loss(on_real + 0.7, on_fake + 0.7, moved)
    assert (abs(float(loss - shifted)) < 1e-12) == OBJECTIVES[name].constant_is_free


@pytest.mark.parametrize("name", F_DIVERGENCES)
@pytest.mark.parametrize("size", [30.0, 300.0, 1e6])
def test_f_divergences_neither_overflow_nor_lose_the_gradient_of_a_critic_that_is_wrong(name, size):
    """Float32: energies far too high on data and far too low on generated points are still pulled back."""
    on_real = torch.full((4,), size, requires_grad=True)
    on_fake = torch.full((4,), -size, requires_grad=True)
    loss = OBJECTIVES[name].critic_loss(on_real, on_fake, torch.zeros(()))
    up, down = torch.autograd.grad(loss, [on_real, on_fake])
    assert torch.isfinite(loss) and torch.isfinite(torch.cat([up, down])).all()
    assert (up > 0).all() and (down < 0).all()


def test_the_map_to_a_log_ratio_is_the_identity_up_to_twenty_increasing_and_smooth():
    v = torch.linspace(-60, 60, 4801, dtype=torch.float64, requires_grad=True)
    ratio = f_divergence.log_ratio(v)
    (slope,) = torch.autograd.grad(ratio.sum(), v)
    inside = v.detach().abs() < 20
    assert torch.equal(ratio[inside], v[inside]) and bool((slope > 0).all())
    assert float(slope.diff().abs().max()) < 0.03  # steps of 1/40: no jump
    torch.testing.assert_close(ratio, -ratio.flip(0))
    assert float(ratio.detach()[-1]) == pytest.approx(20 + math.log(41))


def test_the_witness_is_high_on_data_and_its_mean_gap_is_mmd():
    generator = torch.Generator().manual_seed(2)
    real = torch.randn(40, 2, generator=generator, dtype=torch.float64) + 1.0
    fake = torch.randn(50, 2, generator=generator, dtype=torch.float64)
    gap = mmd.witness(real, real, fake).mean() - mmd.witness(fake, real, fake).mean()
    biased = mmd.kernel(real, real).mean() + mmd.kernel(fake, fake).mean() - 2 * mmd.kernel(real, fake).mean()
    torch.testing.assert_close(gap, biased)
    assert gap > 0
    torch.testing.assert_close(mmd.energy(fake, real, fake), -mmd.witness(fake, real, fake))


def test_energies_of_the_points_that_the_witness_compares_with_leave_each_ones_own_kernel_out():
    """Point by point the energy with the point taken out of the reference; the gap of the means is `MMD^2_u`."""
    generator = torch.Generator().manual_seed(4)
    real = torch.randn(6, 2, generator=generator, dtype=torch.float64) + 1.0
    fake = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    on_real, on_fake = mmd.energies_of_batch(real, fake)
    for i in range(6):
        others = torch.cat([real[:i], real[i + 1 :]])
        torch.testing.assert_close(on_real[i : i + 1], mmd.energy(real[i : i + 1], others, fake))
    for j in range(5):
        others = torch.cat([fake[:j], fake[j + 1 :]])
        torch.testing.assert_close(on_fake[j : j + 1], mmd.energy(fake[j : j + 1], real, others))
    torch.testing.assert_close(on_fake.mean() - on_real.mean(), mmd.mmd_squared(real, fake))


def test_mmd_is_unbiased_at_small_samples_and_falls_along_the_witness():
    """Of equal laws its mean over 4,000 pairs of samples of 4 is 0: |z| < 4.5, a false alarm in 150,000 seeds.

    The V-statistic, with pairs of a point with itself, has a mean far above 0.
    """
    points = torch.randn(4000, 8, 1, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    values = torch.stack([mmd.mmd_squared(pair[:4], pair[4:]) for pair in points])
    assert abs(float(values.mean() / (values.std() / 4000**0.5))) < 4.5

    real, fake = P.quantiles(30)[:, None], Q.quantiles(30)[:, None].requires_grad_()
    (towards,) = torch.autograd.grad(mmd.mmd_squared(real, fake), fake)
    at = fake.detach().requires_grad_()
    off_diagonal = (mmd.kernel(at, fake.detach()) - torch.diag(mmd.kernel(at, fake.detach()).diagonal())).sum(1) / 29
    (slope,) = torch.autograd.grad((mmd.kernel(at, real).mean(1) - off_diagonal).sum(), at)
    torch.testing.assert_close(towards, -2.0 / 30 * slope)


def test_the_kernel_is_exact_far_from_the_origin_and_differentiable_where_points_coincide():
    """Float32 features with a mean of 1,000: products of them alone would be off by more than the distances."""
    near = torch.randn(16, 8, generator=torch.Generator().manual_seed(4))
    far = near + 1000.0
    exact = mmd.kernel((far.double() - 1000.0), (far.double() - 1000.0))
    np.testing.assert_allclose(mmd.kernel(far, far).numpy(), exact.numpy(), rtol=1e-4)
    same = torch.zeros(3, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(mmd.mmd_squared(same, same), same)
    assert torch.equal(gradient, torch.zeros(3, 2))
