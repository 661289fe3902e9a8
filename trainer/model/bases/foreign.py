"""Someone else's generator as the base: how to put an energy on top of a pretrained GAN.

Any `torch.nn.Module` that maps latents `(n, p)` to images `(n, channels, height, width)` in [-1, 1] (or to vectors
`(n, d)`), named by import path; a conditional one takes the labels `(n,)` as its second argument. Whoever loads the
exported model needs the same module at the same import path; its weights travel with the model.
"""

from __future__ import annotations

import importlib
import io
import pickle
import pkgutil
from difflib import get_close_matches
from types import ModuleType
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.trainer.model.prior import from_normal
from gebm.trainer.model.settings import ForeignSettings, ImageShape, PriorSettings

RANGE_TOLERANCE = 1e-3  # beyond [-1, 1]: half precision weights overshoot a little
TRIALS = 4  # latents that a generator is tried on


class ForeignBase(nn.Module):
    """A generator that was imported. `weights_sha256` names the weights file that it began from, None without one."""

    weights_sha256: str | None = None

    def __init__(self, generator: nn.Module):
        super().__init__()
        self.generator = generator

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        return self.generator(latent) if labels is None else self.generator(latent, labels)


def import_base(settings: ForeignSettings) -> ForeignBase:
    """The generator with the weights that its own initialisation gives it, in evaluation mode.

    Raises `InputError` when it cannot be imported, cannot be called with the arguments, or is no `torch.nn.Module`.
    """
    make = _import(settings.generator)
    call = f"{settings.generator}({', '.join(f'{key}={value!r}' for key, value in settings.arguments.items())})"
    try:
        generator = make(**settings.arguments)
    except Exception as error:  # of the user's own code: anything
        raise InputError(f"model.foreign.arguments: {call} failed: {_reason(error)}") from error
    if not isinstance(generator, nn.Module):
        raise InputError(
            f"model.foreign.generator: {call} gives a value of type {type(generator).__name__}, not a torch.nn.Module"
        )
    return ForeignBase(generator).eval()


def weights_digest(settings: ForeignSettings) -> str | None:
    """SHA-256 of the weights file, None when there is none.

    Raises `InputError` when the file is missing, or not the one that `weights_sha256` names.
    """
    if settings.weights is None:
        return None
    if not storage.exists(settings.weights):
        raise InputError(f"model.foreign.weights: {settings.weights}: no such file")
    digest = storage.sha256(settings.weights)
    if settings.weights_sha256 not in (None, digest):
        raise InputError(
            f"model.foreign.weights: {settings.weights} is not the file that weights_sha256 names (its SHA-256 is "
            f"{digest}): give the right file, or leave weights_sha256 out"
        )
    return digest


def load_weights(base: ForeignBase, settings: ForeignSettings) -> None:
    """Fill the generator from the weights file, if the settings name one. Raises `InputError` when it does not fit."""
    base.weights_sha256 = weights_digest(settings)
    if settings.weights is None:
        return
    state = _read_state(settings.weights)
    try:
        base.generator.load_state_dict(state)
    except RuntimeError as error:
        own = base.generator.state_dict()
        problems = [
            *(f"{name} is missing" for name in own if name not in state),
            *(f"{name} is not of the generator" for name in state if name not in own),
            *(
                f"{name} is {tuple(state[name].shape)}, the generator's {tuple(own[name].shape)}"
                for name in own
                if name in state and own[name].shape != state[name].shape
            ),
        ] or [_reason(error)]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(
            f"model.foreign.weights: {settings.weights} does not fit {settings.generator}: {problems[0]}{more}; "
            "give the state_dict of this very generator, or other arguments"
        ) from error


@torch.no_grad()
def check_generator(
    base: ForeignBase,
    settings: ForeignSettings,
    prior: PriorSettings,
    latents: int,
    image_shape: ImageShape,
    classes: int | None,
) -> None:
    """Raise `InputError` unless a few prior draws come out in the shape of the data, finite, in [-1, 1] where they are
    images, and each as a function of its own latent alone."""
    name = f"model.foreign.generator: {settings.generator}"
    generator = torch.Generator().manual_seed(0)
    parameter = next(base.parameters(), torch.zeros(()))
    inputs = [from_normal(prior, torch.randn(TRIALS, latents, generator=generator)).to(parameter.dtype)]
    if classes is not None:
        inputs.append(torch.arange(TRIALS) % classes)
    try:
        points, again, alone = base(*inputs), base(*inputs), base(*(each[:1] for each in inputs))
    except Exception as error:  # of the user's own code: anything
        labels = f" and labels ({TRIALS},)" if classes is not None else ""
        raise InputError(
            f"{name} fails on latents ({TRIALS}, {latents}){labels}: {_reason(error)}; is model.latent_dimension right?"
        ) from error
    if not isinstance(points, Tensor):
        raise InputError(f"{name} returns a value of type {type(points).__name__}, not a tensor")
    if points.shape != (TRIALS, *image_shape):
        raise InputError(
            f"{name} maps latents ({TRIALS}, {latents}) to {tuple(points.shape)}, the data would be "
            f"{(TRIALS, *image_shape)}: give data of that shape, or another generator"
        )
    if not points.isfinite().all():
        raise InputError(f"{name} makes values that are not finite")
    if len(image_shape) == 3 and points.abs().max() > 1 + RANGE_TOLERANCE:
        raise InputError(
            f"{name} makes values from {float(points.min()):.3g} to {float(points.max()):.3g}, images are in "
            "[-1, 1]: wrap it in a module that scales them"
        )
    if not (torch.equal(points, again) and torch.allclose(points[:1], alone, atol=1e-3)):
        raise InputError(
            f"{name} does not make each image from its latent alone, even in evaluation mode (noise or statistics of "
            "the batch): the model needs a function of the latent"
        )


def _import(path: str) -> Any:
    module_name, _, attribute = path.partition(":")
    field = f"model.foreign.generator: {path}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise InputError(f"{field}: importing {module_name} failed: {_reason(error)}") from error
        raise InputError(
            f"{field}: there is no module {error.name}{_nearest_module(error.name)}; install it, or put its folder "
            "on PYTHONPATH (of every worker)"
        ) from error
    except Exception as error:  # of the user's own code: anything
        raise InputError(f"{field}: importing {module_name} failed: {_reason(error)}") from error
    if not hasattr(module, attribute):
        raise InputError(f"{field}: {module_name} has no {attribute}{_nearest(attribute, _public_names(module))}")
    return getattr(module, attribute)


def _read_state(url: str) -> dict[str, Tensor]:
    content = storage.read_bytes(url)
    try:
        if url.endswith(".safetensors"):
            return safetensors.torch.load(content)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise InputError(
            f"model.foreign.weights: {url} holds no plain tensors ({_reason(error)}); save "
            "generator.state_dict() by torch.save, or by safetensors under a name that ends in .safetensors"
        ) from error
    if isinstance(state, dict) and all(isinstance(value, Tensor) for value in state.values()):
        return state
    what = (
        f"a dict of {', '.join(map(str, state))}"
        if isinstance(state, dict)
        else f"a value of type {type(state).__name__}"
    )
    raise InputError(f"model.foreign.weights: {url} holds {what}; save generator.state_dict() alone")


def _nearest_module(name: str) -> str:
    parent, _, last = name.rpartition(".")
    path = getattr(importlib.import_module(parent), "__path__", []) if parent else None
    known = [module.name for module in pkgutil.iter_modules(path)]
    return _nearest(last, known, f"{parent}." if parent else "")


def _nearest(name: str, known: list[str], prefix: str = "") -> str:
    near = get_close_matches(name, known, n=1)
    return f" (did you mean {prefix}{near[0]}?)" if near else ""


def _public_names(module: ModuleType) -> list[str]:
    return [name for name in dir(module) if not name.startswith("_")]


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return f"{type(error).__name__}: {text.splitlines()[0]}" if text else type(error).__name__
