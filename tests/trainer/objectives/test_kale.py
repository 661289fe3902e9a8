"""KALE is the lower bound that its name says, and its gradients are the paper's."""

import math

import pytest
import torch

from gebm.trainer.objectives import kale


def gaussian_log_ratio(x: torch.Tensor, shift: float) -> torch.Tensor:
    """`log p/q` of `P = N(shift, 1)` and `Q = N(0, 1)`: `-(E + c)` at the optimum."""
    return shift * x - shift**2 / 2


def test_kale_at_the_true_energy_is_the_kl_divergence():
    # 400,000 draws: the standard error of the estimate is below 0.004; 5 of them are allowed.
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400_000, generator=generator, dtype=torch.float64) + 0.8
    y = torch.randn(400_000, generator=generator, dtype=torch.float64)
    c = torch.tensor(1.3, dtype=torch.float64)
    energy_real, energy_fake = -gaussian_log_ratio(x, 0.8) - c, -gaussian_log_ratio(y, 0.8) - c
    value = -kale.critic_loss(energy_real, energy_fake, c)
    assert float(value) == pytest.approx(0.8**2 / 2, abs=0.02)


def test_kale_is_largest_in_c_at_the_log_mean_exp_and_equals_donsker_varadhan_there():
    energy_real, energy_fake = torch.randn(2, 512, generator=torch.Generator().manual_seed(1)).double()
    best = kale.log_mean_exp(-energy_fake)
    donsker_varadhan = energy_real.mean() + best
    torch.testing.assert_close(kale.critic_loss(energy_real, energy_fake, best), donsker_varadhan)
    for off in (-0.3, -0.01, 0.01, 0.3):
        assert kale.critic_loss(energy_real, energy_fake, best + off) > donsker_varadhan


def test_kale_of_equal_samples_is_at_most_zero():
    energy = torch.randn(256, generator=torch.Generator().manual_seed(2)).double()
    for c in (-1.0, 0.0, 0.7):
        assert kale.critic_loss(energy, energy, torch.tensor(c).double()) >= 0


@pytest.mark.parametrize("start", [-500.0, -3.0, 3.0, 500.0])
@pytest.mark.parametrize("energies_in", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("held_in", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5), (torch.bfloat16, 2**-3)]
)
def test_the_log_partition_converges_from_far_below_and_far_above(start, energies_in, held_in, tolerance):
    """To what its precision can hold: near 37, bfloat16 numbers are 1/4 apart and the nearest is within 1/8."""
    energy_fake = (2 * torch.randn(512, generator=torch.Generator().manual_seed(3)) + 40).to(energies_in)
    target = float(torch.logsumexp(-energy_fake.double(), 0)) - math.log(512)
    c = torch.tensor(start, dtype=held_in)
    for _ in range(60):
        c = kale.next_log_partition(c, energy_fake, rate=0.5)
    assert c.dtype == held_in
    assert float(c) == pytest.approx(target, abs=tolerance)


@pytest.mark.parametrize("start", [-0.9, 0.9])
def test_within_reach_the_log_partition_moves_by_a_share_of_newtons_step(start):
    energy_fake = torch.randn(64, generator=torch.Generator().manual_seed(5)).double()
    target = kale.log_mean_exp(-energy_fake)
    c = target + start
    ratio = torch.exp(-energy_fake - c).mean()  # M
    torch.testing.assert_close(kale.next_log_partition(c, energy_fake, rate=0.3), c + 0.3 * (1 - 1 / ratio))


def test_the_base_gradient_is_the_softmax_weighted_energy_gradient():
    """`grad K(theta) = sum_i w_i grad E(B(z_i))`, against central differences of the loss itself."""
    z = torch.randn(64, generator=torch.Generator().manual_seed(4)).double()

    def energies(theta: torch.Tensor) -> torch.Tensor:
        return (theta * z - 0.5).square() + torch.sin(3 * theta * z)

    theta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    loss = kale.base_loss(energies(theta))
    (gradient,) = torch.autograd.grad(loss, theta)
    weights = torch.softmax(-energies(theta.detach()), 0)
    (weighted,) = torch.autograd.grad((weights * energies(theta)).sum(), theta)
    h = 1e-6
    differences = (kale.base_loss(energies(theta.detach() + h)) - kale.base_loss(energies(theta.detach() - h))) / (
        2 * h
    )
    torch.testing.assert_close(gradient, weighted)
    torch.testing.assert_close(gradient, differences, rtol=1e-6, atol=1e-8)


def test_log_mean_exp_does_not_overflow():
    assert float(kale.log_mean_exp(torch.full((4,), 2000.0))) == pytest.approx(2000.0)
    assert float(kale.log_mean_exp(torch.tensor([0.0, math.log(3)]))) == pytest.approx(math.log(2), rel=1e-6)
