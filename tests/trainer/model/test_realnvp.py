"""The flow is one to one, its density is the density of its draws, and with an energy the model's is normalised."""

import math

import pytest
import torch
from torch import Tensor

from gebm.cluster.errors import InputError
from gebm.trainer.model import GEBM, ModelSettings, build_model
from gebm.trainer.model.bases.realnvp import RealNVP
from gebm.trainer.model.settings import RealNVPSettings

SMALL = RealNVPSettings(couplings=4, hidden_width=16)


def random_flow(dimension: int, *, classes: int | None = None, settings: RealNVPSettings = SMALL) -> RealNVP:
    """A flow far from the identity that it begins as."""
    generator = torch.Generator().manual_seed(dimension)
    flow = RealNVP(dimension, settings, classes)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return flow


def grid(side: int, reach: float) -> tuple[Tensor, float]:
    """Points of a square grid over [-reach, reach]², `(side², 2)`, and the area of a cell."""
    axis = torch.linspace(-reach, reach, side)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
@pytest.mark.parametrize("dimension", [2, 3, 8])
def test_the_inverse_undoes_the_flow(dimension, dtype, tolerance):
    flow = random_flow(dimension).to(dtype)
    latent = torch.randn(200, dimension, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    points = flow(latent)
    assert (points - latent).abs().max() > 0.5
    torch.testing.assert_close(flow.inverse(points), latent, rtol=0, atol=tolerance)


@pytest.mark.parametrize("classes", [None, 3])
@pytest.mark.parametrize("dimension", [2, 5])
def test_the_log_density_has_the_jacobian_determinant_of_autograd(dimension, classes):
    flow = random_flow(dimension, classes=classes).double()
    latents = torch.randn(6, dimension, generator=torch.Generator().manual_seed(1)).double()
    labels = () if classes is None else (torch.arange(6) % classes,)
    points = flow(latents, *labels)
    for k, latent in enumerate(latents):
        own = [each[k : k + 1] for each in labels]
        jacobian = torch.autograd.functional.jacobian(lambda z, own=own: flow(z[None], *own)[0], latent)
        log_prior = torch.distributions.Normal(0.0, 1.0).log_prob(latent).sum()
        expected = log_prior - torch.linalg.slogdet(jacobian)[1]
        torch.testing.assert_close(flow.log_density(points[k : k + 1], *own)[0], expected)


@torch.no_grad()
def test_the_density_integrates_to_one_over_the_plane():
    flow = random_flow(2)
    points, cell = grid(400, 20.0)
    assert float(flow.log_density(points).double().exp().sum() * cell) == pytest.approx(1.0, abs=1e-3)


def test_a_coupling_scales_by_no_more_than_its_bound():
    flow = random_flow(2, settings=RealNVPSettings(couplings=1, log_scale_bound=0.5)).double()
    with torch.no_grad():
        flow.couplings[0].log_gain.zero_()
        flow.couplings[0].to_scale_and_shift.weight[0].mul_(1e6)  # the scale's; the shift's stays
    far = 100 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)).double()
    volume = flow.log_density(far) + 0.5 * flow.inverse(far).square().sum(1) + math.log(2 * math.pi)
    assert volume.abs().max() <= 0.5 + 1e-9


def banana(count: int, seed: int) -> Tensor:
    z = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
    return torch.stack([z[:, 0], 0.3 * z[:, 1] + z[:, 0].square()], 1)


def test_likelihood_training_describes_a_banana_better_than_any_gaussian_can():
    """Held-out nats per point: below the best Gaussian's of the held-out points themselves, near the truth's."""
    torch.manual_seed(0)
    flow, train, held_out = RealNVP(2, SMALL), banana(1024, 0), banana(4096, 1)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-2)
    start = float(-flow.log_density(held_out).mean().detach())
    for _ in range(200):
        optimizer.zero_grad()
        (-flow.log_density(train).mean()).backward()
        optimizer.step()
    nats = float(-flow.log_density(held_out).mean().detach())
    gaussian = 0.5 * float(torch.logdet(2 * math.pi * math.e * torch.cov(held_out.t(), correction=0)))
    truth = math.log(2 * math.pi * math.e) + math.log(0.3)
    assert start > gaussian + 0.3
    assert nats < gaussian - 0.5
    assert truth - 0.05 < nats < truth + 0.25


def tabular_model(**settings) -> GEBM:
    return build_model(
        ModelSettings.model_validate(
            {"network": "mlp", "base": "realnvp", "energy_widths": [16], "realnvp": SMALL.model_dump(), **settings}
        ),
        (2,),
        classes=3,
        seed=0,
    )


@pytest.mark.parametrize("conditional", [False, True])
@torch.no_grad()
def test_the_models_density_is_normalised_by_the_log_partition(conditional):
    """With `c` from 40,000 draws, the model's mass on a grid is 1 within 4 of its standard errors (1 in 16,000)."""
    model = tabular_model(conditional=conditional).eval()
    model.base = random_flow(2, classes=model.classes)
    model.energy_network.to_energy.weight.mul_(5)
    stream = torch.Generator().manual_seed(0)
    labels = model.sample_labels(40_000, stream)
    weights = torch.exp(-model.energy(model.generate(model.sample_prior(40_000, stream), labels), labels)).double()
    model.log_partition.copy_(weights.mean().log())
    assert weights.std() / weights.mean() > 0.1
    error = float(weights.std() / weights.mean()) / 200
    points, cell = grid(400, 25.0)
    classes = [None] if not conditional else [torch.full((len(points),), y) for y in range(3)]
    masses = [float(model.log_density(points, y).double().exp().sum() * cell) for y in classes]
    assert sum(masses) / len(masses) == pytest.approx(1.0, abs=4 * error + 1e-3)


def test_a_flow_has_the_latents_of_its_data_and_refuses_others():
    model = tabular_model()
    assert model.latent_dimension == 2 and model.has_density
    with pytest.raises(InputError, match=r"model\.latent_dimension = 5, but a RealNVP base has the 2 of its data"):
        tabular_model(latent_dimension=5)
    with pytest.raises(InputError, match=r'model\.base = "realnvp" models vectors, the data are 32x32 images'):
        build_model(ModelSettings(base="realnvp"), (1, 32, 32))
    with pytest.raises(InputError, match=r"model\.base realnvp needs vectors of at least 2 numbers"):
        build_model(ModelSettings(network="mlp", base="realnvp"), (1,))


def test_a_model_without_a_density_says_so():
    model = build_model(ModelSettings(network="mlp"), (2,), seed=0)
    assert not model.has_density
    with pytest.raises(ValueError, match="the base has no density"):
        model.log_density(torch.zeros(1, 2))
