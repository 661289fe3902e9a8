"""A recorded step is the step itself: the same numbers, with memory of its own. CUDA graphs are tested on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from gebm.cluster.errors import InputError
from gebm.sampler.algorithm import Algorithm, TransitionInfo
from gebm.sampler.hmc import hmc
from gebm.sampler.imh import imh
from gebm.sampler.kla import kla
from gebm.sampler.mala import mala
from gebm.sampler.replay import Recording, cuda_graph, replayed, tensors
from gebm.sampler.rwmh import rwmh
from gebm.sampler.ula import ula

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")


def potential(z: Tensor) -> Tensor:
    return z.square().sum(1) / 2 + torch.sin(3 * z[:, 0])


def prior(count: int, generator: torch.Generator) -> Tensor:
    return torch.randn(count, 4, generator=generator, device=generator.device)


KERNELS = {
    "ula": lambda: ula(potential, 0.2),
    "mala": lambda: mala(potential, 0.4),
    "hmc": lambda: hmc(potential, 0.7, 3),
    "kla": lambda: kla(potential, 0.5, 1.0),
    "rwmh": lambda: rwmh(potential, 0.4),
    "imh": lambda: imh(potential, prior),
}


def by_running_again(work: Callable[[], Any], generator: torch.Generator) -> Recording:
    """What a CUDA graph does, on any device: the outputs of every replay lie in the memory of the first."""
    before = generator.get_state()
    outputs = work()
    generator.set_state(before)

    def replay() -> None:
        for buffer, new in zip(tensors(outputs), tensors(work()), strict=True):
            buffer.copy_(new)

    return Recording(replay, outputs)


def path(algorithm: Algorithm, device: str = "cpu", steps: int = 6) -> list[tuple[Any, TransitionInfo]]:
    """State and info after each of some steps; all of them are looked at when the last is done."""
    generator = torch.Generator(device).manual_seed(0)
    state = algorithm.init(prior(50, generator), generator)
    found = []
    for _ in range(steps):
        state, info = algorithm.step(state, generator)
        found.append((state, info))
    return found


@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS.keys())
def test_a_replayed_step_is_the_step(make: Callable[[], Algorithm]) -> None:
    for own, replay in zip(path(make()), path(replayed(make(), by_running_again)), strict=True):
        assert type(own[0]) is type(replay[0])
        assert all(torch.equal(a, b) for a, b in zip(tensors(own), tensors(replay), strict=True))


def test_a_replayed_step_leaves_the_state_that_it_was_given() -> None:
    algorithm = replayed(mala(potential, 0.4), by_running_again)
    generator = torch.Generator().manual_seed(1)
    first = algorithm.init(prior(50, generator), generator)
    copies = [tensor.clone() for tensor in first]
    second, _ = algorithm.step(first, generator)
    assert not torch.equal(first.position, second.position)
    assert all(torch.equal(tensor, copy) for tensor, copy in zip(first, copies, strict=True))
    generator.manual_seed(2)
    once = algorithm.step(first, generator)
    generator.manual_seed(2)
    again = algorithm.step(first, generator)
    assert all(torch.equal(a, b) for a, b in zip(tensors(once), tensors(again), strict=True))


def test_a_replayed_step_goes_on_with_its_own_generator_and_number_of_chains() -> None:
    algorithm = replayed(mala(potential, 0.4), by_running_again)
    generator = torch.Generator().manual_seed(1)
    state, _ = algorithm.step(algorithm.init(prior(50, generator), generator), generator)
    with pytest.raises(ValueError, match="the generator that it was recorded with"):
        algorithm.step(state, torch.Generator().manual_seed(1))
    with pytest.raises(ValueError, match=r"recorded for \(50, 4\) got \(49, 4\)"):
        algorithm.step(algorithm.init(prior(49, generator), generator), generator)


def test_a_state_that_holds_more_than_tensors_cannot_be_recorded() -> None:
    with pytest.raises(TypeError, match="tensors alone, not int"):
        list(tensors((torch.zeros(1), 3)))


@on_a_gpu
@pytest.mark.parametrize("make", KERNELS.values(), ids=KERNELS.keys())
def test_a_cuda_graph_is_the_step(make: Callable[[], Algorithm]) -> None:
    """New numbers at every replay, and the very ones that the step itself would have drawn."""
    graphed = path(replayed(make(), cuda_graph), "cuda")
    for own, replay in zip(path(make(), "cuda"), graphed, strict=True):
        for a, b in zip(tensors(own), tensors(replay), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)
    assert not torch.equal(graphed[0][0].position, graphed[1][0].position)


@on_a_gpu
def test_what_waits_for_the_device_cannot_be_captured_and_says_so() -> None:
    def waiting(z: Tensor) -> Tensor:
        return potential(z) * (1.0 if z.sum().item() > 0 else 2.0)

    with pytest.raises(InputError, match=r"cannot be captured in a CUDA graph .*give cuda_graph = false"):
        path(replayed(ula(waiting, 0.1), cuda_graph), "cuda")
