"""The density report of a run: held-out negative log-likelihood of base and model, in `evaluation/likelihood.json`."""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field, PositiveInt

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.index import index_digest, load_index
from gebm.cluster.randomness import derive_seed
from gebm.cluster.reader import read_all
from gebm.cluster.settings import StrictModel

RESULT = "evaluation/likelihood.json"
FORMAT_VERSION = 1


class LikelihoodSettings(StrictModel):
    """How the likelihood of a model with a density is measured."""

    draws: PositiveInt = 100_000
    """Prior draws that the log-partition is estimated from."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """Largest chance of calling the model better when it is not."""


def measure_likelihood(run: str, points: str, settings: LikelihoodSettings, *, seed: int) -> dict[str, Any]:
    """Compare model and base on the shard set `points`; the run gets `evaluation/likelihood.json`.

    Returns the fields of `gebm.trainer.held_out_likelihood.Likelihood`, JSON-able, with `request`; what was
    measured before is returned as it is. Raises `InputError` for a model without a density, and for points of
    another shape than the model's or without a finite density.
    """
    from gebm.trainer.held_out_likelihood import held_out_likelihood
    from gebm.trainer.model import load_model, model_digest

    run, points = storage.absolute(run), storage.absolute(points)
    request = {
        "model": model_digest(run),
        "points": index_digest(load_index(points)),
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
    }
    location = storage.join(run, RESULT)
    if storage.exists(location):
        before = storage.read_json(location)
        if before.get("request") == request and before.get("format_version") == FORMAT_VERSION:
            return before
    model = load_model(run)
    held_out = read_all(points)
    if held_out.images.shape[1:] != tuple(model.image_shape):
        shapes = ("x".join(map(str, shape)) for shape in (held_out.images.shape[1:], model.image_shape))
        raise InputError(f"{points}: its samples are of shape {next(shapes)}, the model's of {next(shapes)}")
    conditional = model.classes is not None and held_out.labels is not None
    found = held_out_likelihood(
        model,
        torch.from_numpy(held_out.images),
        torch.from_numpy(held_out.labels) if conditional else None,
        draws=settings.draws,
        seed=derive_seed(seed, "likelihood", "log-partition"),
        level=settings.level,
    )
    result = {
        "format_version": FORMAT_VERSION,
        **found._asdict(),
        "log_partition": found.log_partition._asdict(),
        "exported_log_partition": float(model.log_partition),
        "request": request,
    }
    storage.write_json_atomic(location, result)
    return result
