"""A step of a kernel that is recorded once and replayed: on a GPU, one launch in place of hundreds.

The step runs on fixed buffers: a state is copied into them, the recording is replayed, and what it left in its
outputs is copied out, so that to the caller it is a step like any other. Everything that changes from step to step
must be in the state's tensors or come from the generator; a Python number is what it was when the step was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from gebm.cluster.errors import InputError
from gebm.sampler.algorithm import Algorithm, TransitionInfo

WARM_UP_STEPS = 3


class Recording(NamedTuple):
    """replay: does the recorded work once more on the same memory. outputs: what the work returned, in that memory."""

    replay: Callable[[], None]
    outputs: Any


Recorder = Callable[[Callable[[], Any], torch.Generator], Recording]
"""Records work that draws from the generator. The generator is left as it was: recording draws nothing."""


def replayed(algorithm: Algorithm, record: Recorder) -> Algorithm:
    """`algorithm` whose step is recorded by `record` when it is first called, and replayed from then on.

    All of its chains go on with the generator, and with as many rows, as its first step had (`ValueError` else).
    """
    return Algorithm(algorithm.init, _ReplayedStep(algorithm.step, record))


class _ReplayedStep:
    def __init__(self, step: Callable[[Any, torch.Generator], tuple[Any, TransitionInfo]], record: Recorder):
        self.step, self.record = step, record
        self.recording: Recording | None = None

    def __call__(self, state: Any, generator: torch.Generator) -> tuple[Any, TransitionInfo]:
        if self.recording is None:
            self.generator, self.inputs = generator, copied(state)
            self.recording = self.record(lambda: self.step(self.inputs, generator), generator)
        if generator is not self.generator:
            raise ValueError("a recorded step draws from the generator that it was recorded with: go on with that one")
        for buffer, tensor in zip(tensors(self.inputs), tensors(state), strict=True):
            if buffer.shape != tensor.shape:
                raise ValueError(
                    f"a step recorded for {tuple(buffer.shape)} got {tuple(tensor.shape)}: build another sampler"
                )
            buffer.copy_(tensor)
        self.recording.replay()
        new_state, info = copied(self.recording.outputs)
        return new_state, info


def tensors(state: Any) -> Iterator[Tensor]:
    """The tensors of a kernel's state, a tuple of tensors and of such tuples, in order."""
    if isinstance(state, Tensor):
        yield state
    elif isinstance(state, tuple):
        for part in state:
            yield from tensors(part)
    else:
        raise TypeError(f"a kernel's state holds tensors alone, not {type(state).__name__}")


def copied(state: Any) -> Any:
    """The same tuples with copies of their tensors."""
    if isinstance(state, Tensor):
        return state.clone()
    parts = [copied(part) for part in state]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


def cuda_graph(work: Callable[[], Any], generator: torch.Generator) -> Recording:
    """A CUDA graph of `work`, whose every replay draws new numbers from `generator`.

    Raises `InputError` when the work cannot be captured: a foreign generator that waits for the device, say.
    """
    before = generator.get_state()
    aside = torch.cuda.Stream(generator.device)
    aside.wait_stream(torch.cuda.current_stream(generator.device))
    with torch.cuda.stream(aside):  # allocations and choices of algorithms that are made once
        for _ in range(WARM_UP_STEPS):
            work()
    torch.cuda.current_stream(generator.device).wait_stream(aside)
    generator.set_state(before)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    try:
        with torch.cuda.graph(graph):
            outputs = work()
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"sampler.cuda_graph: the networks cannot be captured in a CUDA graph ({reason}); give cuda_graph = false"
        ) from error
    return Recording(graph.replay, outputs)
