"""The objective of power and its gradient against the published form, in float64."""

import numpy as np
import pytest
import torch

from gebm.evaluation.two_sample.kernels import Kernel, KernelSum
from gebm.evaluation.two_sample.learnt.learnt_kernel import kernel_on_rows
from gebm.evaluation.two_sample.learnt.objective import deep_power, power_of_kernels
from gebm.evaluation.two_sample.samples import prepare_rows
from tests.benchmarks.published_deep_kernel import published_power


def inputs(n: int, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(n)
    features = torch.randn(2 * n, 5, generator=generator, dtype=torch.float64) + 3.0
    points = torch.randn(2 * n, 3, generator=generator, dtype=torch.float64) - 2.0
    features[n:] *= 1.2
    scales = {"feature_scale": 4.0, "point_scale": 6.0, "mixing": 0.3}
    numbers = {name: torch.tensor(value, dtype=dtype, requires_grad=True) for name, value in scales.items()}
    return {"features": features.to(dtype).requires_grad_(), "points": points.to(dtype).requires_grad_()} | numbers


def ours(
    features: torch.Tensor,
    points: torch.Tensor,
    feature_scale: torch.Tensor,
    point_scale: torch.Tensor,
    mixing: torch.Tensor,
) -> torch.Tensor:
    return deep_power(features / feature_scale.sqrt(), points / point_scale.sqrt(), mixing)


@pytest.mark.parametrize("n", [7, 400])  # one tile; three tiles, one of which is not square
def test_objective_and_every_gradient_are_those_of_the_published_form(n: int) -> None:
    arguments = inputs(n, torch.float64)
    expected = published_power(**arguments)
    gradients = torch.autograd.grad(expected, list(arguments.values()))
    value = ours(**arguments)
    torch.testing.assert_close(value, expected, rtol=1e-10, atol=0.0)
    for found, gradient in zip(torch.autograd.grad(value, list(arguments.values())), gradients, strict=True):
        torch.testing.assert_close(found, gradient, rtol=1e-7, atol=1e-10)


def test_objective_in_float32_is_near_that_in_float64() -> None:
    wide, narrow = inputs(400, torch.float64), inputs(400, torch.float32)
    torch.testing.assert_close(ours(**narrow).double(), ours(**wide), rtol=1e-4, atol=0.0)
    gradients = [torch.autograd.grad(ours(**each), each["features"])[0].double() for each in (narrow, wide)]
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 1e-4


def test_a_mixing_lost_in_rounding_is_left_out_and_changes_nothing() -> None:
    wide, narrow = inputs(400, torch.float64), inputs(400, torch.float32)
    for arguments in (wide, narrow):
        arguments["mixing"] = torch.tensor(1e-10, dtype=arguments["points"].dtype, requires_grad=True)
    torch.testing.assert_close(ours(**narrow).double(), published_power(**wide), rtol=1e-4, atol=0.0)
    for name in ("features", "point_scale"):
        found = torch.autograd.grad(ours(**narrow), narrow[name])[0].double()
        expected = torch.autograd.grad(published_power(**wide), wide[name])[0]
        assert float((found - expected).norm() / expected.norm()) < 1e-4
    assert float(torch.autograd.grad(ours(**narrow), narrow["mixing"])[0]) == 0.0


@pytest.mark.parametrize("n", [30, 700])  # one tile; two of them
def test_any_kernel_of_the_library_has_the_objective_of_its_formula(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, 8)), rng.normal(size=(n, 8)) * 1.1 + 0.3
    pooled = np.concatenate([x, y])
    kernels = [Kernel("gaussian", 2.0, 8), Kernel("linear", 1.0, 8), kernel_on_rows(5, 3, 0.25)]
    rows = prepare_rows(torch.from_numpy(pooled), *kernels)
    found = power_of_kernels(rows, kernels)
    squares = np.square(pooled[:, None] - pooled[None])
    tail = squares[..., 5:].sum(-1)
    dense = [
        np.exp(-squares.sum(-1) / 8.0),
        pooled @ pooled.T,
        0.75 * np.exp(-squares.sum(-1)) + 0.25 * np.exp(-tail),
    ]
    for index, k in enumerate(dense):
        h = k[:n, :n] + k[n:, n:] - k[:n, n:] - k[n:, :n]
        mmd = (h.sum() - np.trace(h)) / (n * (n - 1))
        variance = 4 * (np.square(h.sum(1)).sum() / n**3 - h.sum() ** 2 / n**4) + 1e-8
        assert float(found.mmd[index]) == pytest.approx(mmd, rel=1e-6, abs=1e-9)
        assert float(found.objective[index]) == pytest.approx(mmd / variance**0.5, rel=1e-6)
    assert isinstance(kernels[2], KernelSum)
