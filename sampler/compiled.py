"""A kernel's step through `torch.compile`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._dynamo import config

from gebm.sampler.algorithm import Algorithm, TransitionInfo
from gebm.sampler.random_numbers import Drawing, DrawnBefore, Noting

COMPILER = {
    "trace_autograd_ops": True,  # only so does it follow torch.autograd.grad
    "recompile_limit": 64,  # a kernel, a potential, a number of chains: each takes one, of all samplers of a process
}
"""How the compiler is set while a step is compiled, and not after: training compiles too."""


def compiled(algorithm: Algorithm) -> Algorithm:
    """`algorithm` with a compiled step: the potential, its gradient and the kernel's arithmetic fused into few loops.

    Worth while where the networks are small, so that the time goes to the number of operations: chains on vectors, or
    on a density in closed form. It takes seconds to compile, once in a process. Numbers are those that the kernel
    would draw itself, so the chain is the same up to rounding.
    """
    return Algorithm(algorithm.init, _CompiledStep(algorithm))


class _CompiledStep:
    """A step that is made once for nothing tells which numbers it draws; given them, it has no generator to compile.

    All steps that count are compiled, so that chains which are taken up in the middle take the same ones.
    """

    def __init__(self, algorithm: Algorithm):
        def pure(state: Any, numbers: tuple[Tensor, ...]) -> tuple[Any, TransitionInfo]:
            return algorithm.step(state, DrawnBefore(numbers))  # type: ignore[arg-type]

        self.step = algorithm.step
        # Each loop is to end where its result is needed twice: HMC's whole path would be computed again for every
        # tensor of the new state.
        self.pure = torch.compile(pure, dynamic=False, options={"realize_reads_threshold": 1})
        self.notes: list[Drawing] | None = None
        self.compiled = False

    def __call__(self, state: Any, generator: torch.Generator) -> tuple[Any, TransitionInfo]:
        if self.notes is None:
            before, noting = generator.get_state(), Noting(generator)
            self.step(state, noting)  # type: ignore[arg-type]
            generator.set_state(before)
            self.notes, self.chains = noting.notes, state.position.shape
        if state.position.shape != self.chains:
            raise ValueError(
                f"a step compiled for {tuple(self.chains)} got {tuple(state.position.shape)}: build another sampler"
            )
        numbers = tuple(drawing.draw(generator) for drawing in self.notes)
        if self.compiled:
            return self.pure(state, numbers)
        self.compiled = True
        with config.patch(COMPILER):
            return self.pure(state, numbers)
