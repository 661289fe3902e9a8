"""From settings and the shape of the data to a model, or to one message that says why they do not fit."""

from __future__ import annotations

import torch
from torch import nn

from gebm.cluster.errors import InputError
from gebm.trainer.model.bases.foreign import ForeignBase, check_generator, import_base, load_weights, weights_digest
from gebm.trainer.model.bases.realnvp import RealNVP
from gebm.trainer.model.gebm import GEBM
from gebm.trainer.model.networks.table import NETWORKS
from gebm.trainer.model.settings import ImageShape, ModelSettings

LATENT_DIMENSION = 64  # unless the settings say another


def build_model(
    settings: ModelSettings, image_shape: ImageShape, classes: int | None = None, seed: int | None = None
) -> GEBM:
    """A model with fresh weights for data of `image_shape`: `(channels, height, width)` or `(d,)`.

    `classes` is the number of classes that the data is labelled with, None when it is not; only a conditional model
    reads it. With `seed`, the weights are a function of it and the global random state is left as it was.
    A foreign generator comes with the weights of its file. Raises `InputError` when the networks cannot make or read
    such data.
    """
    model = assemble(settings, image_shape, classes, seed)
    if settings.foreign is not None and isinstance(model.base, ForeignBase):
        load_weights(model.base, settings.foreign)
        check_generator(
            model.base, settings.foreign, settings.prior, model.latent_dimension, image_shape, model.classes
        )
    return model


def assemble(
    settings: ModelSettings, image_shape: ImageShape, classes: int | None = None, seed: int | None = None
) -> GEBM:
    """As `build_model`, but with a foreign generator as its own initialisation leaves it."""
    if len(image_shape) == 3 and image_shape[1] != image_shape[2]:
        raise InputError(
            f"images of {image_shape[1]}x{image_shape[2]} pixels: only square images can be modelled; "
            "`gebm data index URL --size N` has them cropped and resized when they are read"
        )
    if settings.conditional and classes is None:
        raise InputError(
            "model.conditional = true, but the data has no labels: give labelled shards (index.json: classes), "
            "or model.conditional = false"
        )
    classes = classes if settings.conditional else None
    latent_dimension = latents_of(settings, image_shape)
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        try:
            base = _base(settings, latent_dimension, image_shape, classes)
            energy = NETWORKS[settings.network].energy(settings, image_shape, classes)
        except InputError:  # which is a ValueError too
            raise
        except ValueError as error:
            raise InputError(f"model.{error}") from error
    return GEBM(base, energy, latent_dimension, image_shape, classes, settings.prior)


def pinned(settings: ModelSettings) -> ModelSettings:
    """The settings with the digest of a foreign generator's weights: they name the file's content, not its place.

    Raises `InputError` when the file is missing or another one than the settings say.
    """
    if settings.foreign is None:
        return settings
    foreign = settings.foreign.model_copy(update={"weights_sha256": weights_digest(settings.foreign)})
    return settings.model_copy(update={"foreign": foreign})


def latents_of(settings: ModelSettings, image_shape: ImageShape) -> int:
    """The latent dimension. Raises `InputError` when a flow is asked for another than that of its data."""
    if settings.base != "realnvp":
        return settings.latent_dimension or LATENT_DIMENSION
    if len(image_shape) != 1:
        size = "x".join(map(str, image_shape[1:]))
        raise InputError(f'model.base = "realnvp" models vectors, the data are {size} images: use base = "implicit"')
    (dimension,) = image_shape
    if settings.latent_dimension not in (None, dimension):
        raise InputError(
            f"model.latent_dimension = {settings.latent_dimension}, but a RealNVP base has the {dimension} of its "
            "data: leave it out"
        )
    return dimension


def _base(settings: ModelSettings, latents: int, image_shape: ImageShape, classes: int | None) -> nn.Module:
    if settings.foreign is not None:
        return import_base(settings.foreign)
    if settings.base == "realnvp":
        return RealNVP(latents, settings.realnvp, classes)
    return NETWORKS[settings.network].base(settings, latents, image_shape, classes)
