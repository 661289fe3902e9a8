"""A trained model on disk: `model.toml` says what it is, `weights.safetensors` holds its numbers.

The description is enough to rebuild the model without the configuration of its training. It names the digest
of the weights, so it is written last: whoever finds `model.toml` finds the weights that belong to it.
"""

from __future__ import annotations

import tomllib
from typing import Any, Literal

import safetensors.torch
import tomli_w
import torch
from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.settings import StrictModel
from gebm.trainer.model.bases.foreign import ForeignBase
from gebm.trainer.model.build import assemble
from gebm.trainer.model.gebm import GEBM, freeze
from gebm.trainer.model.settings import ModelSettings
from gebm.trainer.model.witness import WitnessEnergy

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS, CARD = "model.toml", "weights.safetensors", "README.md"


class ModelDescription(StrictModel):
    """What `model.toml` holds."""

    format_version: int = FORMAT_VERSION
    image_shape: tuple[int, int, int] | tuple[int]
    classes: int | None = None  # of a conditional model
    energy: Literal["network", "witness"] = "network"  # witness: minus that of the network's features
    weights_sha256: str
    network: ModelSettings


def save_model(model: GEBM, settings: ModelSettings, url: str, card: str = "") -> str:
    """Write the model to the folder `url` and return the digest of its weights."""
    # Clones: a foreign generator may share a tensor between layers, which the format refuses.
    state = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.state_dict().items()
    }
    weights = safetensors.torch.save(state)
    storage.make_directory(url)
    storage.write_bytes_atomic(storage.join(url, WEIGHTS), weights)
    if card:
        storage.write_bytes_atomic(storage.join(url, CARD), card.encode())
    digest = storage.sha256(storage.join(url, WEIGHTS))
    description = ModelDescription.model_validate(
        {
            "image_shape": model.image_shape,
            "classes": model.classes,
            "energy": "witness" if isinstance(model.energy_network, WitnessEnergy) else "network",
            "weights_sha256": digest,
            "network": _described(model, settings),
        }
    )
    text = tomli_w.dumps(description.model_dump(mode="json", exclude_none=True))
    storage.write_bytes_atomic(storage.join(url, DESCRIPTION), text.encode())
    return digest


def _described(model: GEBM, settings: ModelSettings) -> ModelSettings:
    """The settings with what was left to the data, and the digest of the weights that a foreign base began from."""
    settings = settings.model_copy(update={"latent_dimension": model.latent_dimension})
    if settings.foreign is None or not isinstance(model.base, ForeignBase):
        return settings
    foreign = settings.foreign.model_copy(update={"weights_sha256": model.base.weights_sha256})
    return settings.model_copy(update={"foreign": foreign})


def find_model(url: str) -> str:
    """The folder with `model.toml`: `url` itself or, when `url` is a run, its `model/`."""
    for folder in (url, storage.join(url, "model")):
        if storage.exists(storage.join(folder, DESCRIPTION)):
            return folder
    raise InputError(
        f"{url}: no {DESCRIPTION} here or in model/; give a finished run of `gebm train` or its model folder"
    )


def read_description(url: str) -> ModelDescription:
    """What the model at `url` is. Raises `InputError` when the description cannot be understood."""
    path = storage.join(find_model(url), DESCRIPTION)
    try:
        content: dict[str, Any] = tomllib.loads(storage.read_text(path))
        description = ModelDescription.model_validate(content)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise InputError(f"{path}: not a model description ({_first_line(error)}); export the model again") from error
    if description.format_version != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version {description.format_version}, this version of gebm reads {FORMAT_VERSION}; "
            "use the version that wrote it"
        )
    return description


def model_digest(url: str) -> str:
    """SHA-256 of the weights of the model at `url`, as its description names it."""
    return read_description(url).weights_sha256


def load_model(url: str, device: str | torch.device = "cpu") -> GEBM:
    """The model at `url` (a run or a model folder), frozen: evaluation mode, no weight gradients.

    Raises `InputError` when there is none, when the weights are damaged (their digest is checked) or when they
    belong to another architecture than the description.
    """
    folder = find_model(url)
    description = read_description(folder)
    path = storage.join(folder, WEIGHTS)
    if not storage.exists(path):
        raise InputError(f"{path}: missing; {DESCRIPTION} names it: export the model again")
    if storage.sha256(path) != description.weights_sha256:
        raise InputError(f"{path}: damaged (its SHA-256 is not the weights_sha256 of {DESCRIPTION}); export it again")
    try:
        model = assemble(description.network, description.image_shape, description.classes)
    except InputError as error:
        raise InputError(f"{storage.join(folder, DESCRIPTION)}: {error}") from error
    try:
        state = safetensors.torch.load(storage.read_bytes(path))
        if description.energy == "witness":
            references = (state[f"energy_network.{side}_features"] for side in ("real", "fake"))
            model.energy_network = WitnessEnergy(model.energy_network, *references)
        model.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: weights of another architecture than {DESCRIPTION} describes: {reason}") from error
    return freeze(model.to(device))


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
