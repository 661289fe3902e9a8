"""The same chains at several stages, at high and at low friction.

Kinetic Langevin chains (`kla`) start from the same latents with the same velocities and the same noise, once for each
friction. At high friction velocities are forgotten at every step: chains diffuse, and their images change slowly. At
low friction they keep their velocities and run from mode to mode.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from pydantic import ValidationError

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.randomness import derive_seed
from gebm.cluster.settings import StrictModel
from gebm.sampler.chain import Samples, sample_from
from gebm.sampler.labels import check_label, draw_labels
from gebm.sampler.settings import SamplerSettings
from gebm.sampler.work import prepare
from gebm.trainer.model import GEBM, load_model, model_digest, to_stored

RESULT, IMAGES = "chains.json", "chains.npy"


class ChainStages(StrictModel):
    """`RUN/chains.json`; the images lie beside it, uint8 `(frictions, chains, stages, channels, height, width)`.

    model: digest of the weights. sampler: without its friction. steps: transitions done at each stage.
    energy: mean of `E(B(z))` over chains, `(frictions, stages)`. moved: root mean square change of a pixel from stage
    to stage, in grey levels of 255, mean over chains and stages, `(frictions,)`. images_sha256: of the file of images.
    """

    format_version: Literal[1] = 1
    model: str
    sampler: SamplerSettings
    seed: int
    frictions: tuple[float, ...]
    steps: tuple[int, ...]
    energy: tuple[tuple[float, ...], ...]
    moved: tuple[float, ...]
    images_sha256: str


def stage_settings(tuned: SamplerSettings, every: int, stages: int) -> SamplerSettings:
    """`kla` that goes as far in a step as `tuned` does, and keeps its latents at so many stages.

    At high friction a step `d` of `kla` is one of `ula` with `h = d² / 2`.
    """
    step_size = tuned.step_size if tuned.name in ("kla", "hmc") else math.sqrt(2 * tuned.step_size)
    return tuned.named("kla").model_copy(
        update={"step_size": step_size, "steps": 0, "thin": every, "samples_per_chain": stages, "record_every": every}
    )


def draw_stages(
    run: str,
    settings: SamplerSettings,
    frictions: Sequence[float],
    chains: int,
    seed: int,
    progress: Callable[[int, int, str], None] | None = None,
) -> ChainStages:
    """Run the chains of `settings` (see `stage_settings`) at each friction; write `RUN/chains.json` and its images.

    Raises `InputError` when `run` has no model, or one of vectors, and when the chains fly away.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = prepare(load_model(run, device=device))
    if len(model.image_shape) != 3:
        raise InputError(
            f"{run}: its samples are vectors of {model.image_shape[0]} numbers; chains are shown as images"
        )
    check_label(settings, model.classes)
    made = []
    for done, friction in enumerate(frictions):
        if progress is not None:
            progress(done, len(frictions), f"friction {friction:g}")
        made.append(_chains(model, settings.model_copy(update={"friction": friction}), chains, seed))
    stages = settings.samples_per_chain
    images = np.stack([_by_chain(samples, stages) for samples in made])
    energy = torch.stack([samples.energies.double().mean(1) for samples in made])
    if any(samples.nonfinite for samples in made) or not energy.isfinite().all():
        raise InputError(f"{run}: chains fly away at step size {settings.step_size:g}; give a smaller --step-size")
    data = _npy(images)
    result = ChainStages(
        model=model_digest(run),
        sampler=settings,
        seed=seed,
        frictions=tuple(frictions),
        steps=made[0].recorded_steps,
        energy=tuple(tuple(row) for row in energy.tolist()),
        moved=tuple(_moved(each) for each in images),
        images_sha256=hashlib.sha256(data).hexdigest(),
    )
    storage.write_bytes_atomic(storage.join(run, IMAGES), data)
    storage.write_json_atomic(storage.join(run, RESULT), result.model_dump(mode="json"))
    return result


def read_stages(run: str) -> tuple[ChainStages, np.ndarray] | None:
    """What `draw_stages` wrote, with its images; None where it never did. Raises `InputError` for broken files."""
    location = storage.join(run, RESULT)
    if not storage.exists(location):
        return None
    try:
        result = ChainStages.model_validate(storage.read_json(location))
        data = storage.read_bytes(storage.join(run, IMAGES))
        if hashlib.sha256(data).hexdigest() != result.images_sha256:
            raise ValueError(f"{IMAGES} is not the file that it names")
        return result, np.load(io.BytesIO(data), allow_pickle=False)
    except (ValidationError, ValueError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{location}: not the chains of this version ({reason}); run `gebm chains {run}`") from error


def _chains(model: GEBM, settings: SamplerSettings, chains: int, seed: int) -> Samples:
    """Latents, labels, velocities and noise depend on the seed alone, not on the friction."""
    device = next(model.parameters()).device
    latents = model.sample_prior(chains, torch.Generator().manual_seed(derive_seed(seed, "chains", "prior")))
    labels = draw_labels(model, settings, chains, torch.Generator().manual_seed(derive_seed(seed, "chains", "label")))
    generator = torch.Generator(device).manual_seed(derive_seed(seed, "chains", "noise"))
    return sample_from(
        model, settings, latents.to(device), generator, labels=None if labels is None else labels.to(device)
    )


def _by_chain(samples: Samples, stages: int) -> np.ndarray:
    """uint8 `(chains, stages, channels, height, width)`; samples come stage by stage."""
    stored = to_stored(samples.images).cpu().numpy()
    return stored.reshape(stages, -1, *stored.shape[1:]).swapaxes(0, 1)


def _moved(images: np.ndarray) -> float:
    """Root mean square change of a pixel from stage to stage, mean over `(chains, stages, …)`."""
    steps = np.diff(images.astype(np.float64), axis=1)
    return float(np.sqrt(np.square(steps).mean(axis=(2, 3, 4))).mean())


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()
