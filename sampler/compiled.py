"""A kernel's step through `torch.compile`."""

from __future__ import annotations

from typing import Any

import torch
from torch._dynamo import config

from gebm.sampler.algorithm import Algorithm, TransitionInfo


def compiled(algorithm: Algorithm) -> Algorithm:
    """`algorithm` with a compiled step: the potential, its gradient and the kernel's arithmetic fused into few loops.

    Worth while where the networks are small, so that the time goes to the number of operations: chains on vectors,
    on a density in closed form. It takes seconds to compile, once in a process. Numbers are drawn as without it, so
    the chain is the same up to rounding.
    """
    step = torch.compile(algorithm.step, dynamic=False)

    # Only so does the compiler follow torch.autograd.grad; it looks when it compiles, and training must not be changed.
    @config.patch(trace_autograd_ops=True)
    def traced_step(state: Any, generator: torch.Generator) -> tuple[Any, TransitionInfo]:
        new_state, info = step(state, generator)
        return new_state, info

    return Algorithm(algorithm.init, traced_step)
