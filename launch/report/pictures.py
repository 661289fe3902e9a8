"""What the samples look like: beside real images, beside their own generator's, beside their nearest in training."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from gebm.cluster.errors import InputError
from gebm.cluster.reader import iterate_batches
from gebm.evaluation.report import Block, Columns, Head, ImageGrid, Section, Text, Tone
from gebm.launch.report.contents import RunContents, SampleSet
from gebm.launch.report.wording import missing, number

ACROSS, DOWN = 8, 8
MOST_CLASSES = 10
"""Of a conditional model, that are shown a column each."""
PAIRS = 24
SAMPLES_WITH_NEIGHBOURS = 12
NEIGHBOURS = 4
COMPARED = 200
"""Samples whose distance to the nearest training image is taken."""
MOST_TRAINING_IMAGES = 100_000
BATCH = 2000


class Neighbours(NamedTuple):
    """The nearest training images of some queries.

    images: uint8 `(queries, NEIGHBOURS, channels, height, width)`, nearest first, of the queries that are shown.
    distances: `(all queries,)`, root mean square difference of a pixel to the nearest one, in grey levels of 255.
    searched: how many training images were looked through.
    """

    images: np.ndarray
    distances: np.ndarray
    searched: int


def samples_section(contents: RunContents) -> Section:
    """Grids of real images, base and model, and pairs from the same latents."""
    grids: list[Block] = []
    absent: list[Block] = []
    if contents.real is not None:
        # Samples have labels where the model is conditional; real images may have them all the same.
        labels = contents.real_labels if contents.recipe.model.conditional else None
        grids.append(_grid(contents.real, labels, "Real", "Test images that training never saw.", "reference"))
    else:
        absent.append(missing_real())
    if contents.base is not None:
        words = "Prior draws, straight through the base."
        grids.append(_grid(contents.base.images, contents.base.labels, "Generator alone", words, "first"))
    else:
        absent.append(missing_samples(contents.run, "base"))
    if contents.model is not None:
        words = sampler_words(contents.model)
        grids.append(_grid(contents.model.images, contents.model.labels, "Model", words, "second"))
    else:
        absent.append(missing_samples(contents.run, "model"))
    blocks: list[Block] = [Columns(tuple(grids), 290)] if grids else []
    blocks += absent
    for name, samples in (("generator", contents.base), ("model", contents.model)):
        if samples is not None and contents.model_digest not in (None, samples.settings.get("model")):
            words = f"The samples of the {name} come from another model than the run now holds: draw them again."
            blocks.append(Text(words, "warning"))
    if contents.paired:
        blocks += _pairs(contents)
    lead = "The first images of each set as they came: nothing is picked out."
    if any(isinstance(grid, ImageGrid) and grid.heads for grid in grids):
        lead = "The first images of each class in each set, a column a class, as they came: nothing is picked out."
    return Section("Samples", tuple(blocks), lead)


def sampler_words(samples: SampleSet) -> str:
    """How the samples were drawn, in one line."""
    sampler = samples.settings["sampler"]
    name = str(sampler.get("name", "?"))
    if name == "sir":
        words = f"Resampled, each out of {number(sampler.get('draws_per_sample'))} prior draws"
        return f"{words}, inverse temperature {_plain(sampler.get('inverse_temperature'))}."
    words = f"{number(sampler.get('steps'))} steps of {name.upper()} in latent space"
    if name != "dot":
        words += f", inverse temperature {_plain(sampler.get('inverse_temperature'))}"
    if sampler.get("target_acceptance"):
        words += f", step size tuned to acceptance {_plain(sampler.get('target_acceptance'))}"
    elif name != "imh":
        words += f", step size {_plain(sampler.get('step_size'))}"
    return words + "."


def _plain(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "–"


def neighbours_section(contents: RunContents) -> Section:
    """Nearest training images of some model samples, and whether samples sit closer to them than real images."""
    title = "Nearest training images"
    lead = "Does the model repeat what it was trained on? Nearest by the squared difference of pixels."
    if contents.model is None:
        return Section(title, (missing_samples(contents.run, "model"),), lead)
    if contents.train is None:
        return Section(title, (Text("The training images (`data.train`) are not at hand.", "missing"),), lead)
    samples = contents.model.images[:COMPARED]
    held_out = (contents.real if contents.real is not None else samples[:0])[:COMPARED]
    if samples.shape[1:] != held_out.shape[1:] and len(held_out):
        held_out = samples[:0]
    found = nearest(np.concatenate([samples, held_out]), contents.train, SAMPLES_WITH_NEIGHBOURS)
    rows = np.concatenate([samples[:SAMPLES_WITH_NEIGHBOURS, None], found.images], axis=1)
    count, across = rows.shape[:2]
    halves = [rows[: -(-count // 2)], rows[-(-count // 2) :]]
    grids = tuple(
        ImageGrid(
            half.reshape(-1, *half.shape[2:]),
            across,
            f"{len(half)} rows: a model sample, then the {across - 1} training images nearest to it.",
            gap_after=(1,),
            heads=(Head("sample", 1), Head("nearest in training, nearest first", across - 1)),
        )
        for half in halves
        if len(half)
    )
    return Section(title, (Columns(grids, 290), Text(_distance_words(found, len(samples)))), lead)


def nearest(queries: np.ndarray, train: str, shown: int) -> Neighbours:
    """Nearest training images of uint8 `queries` `(q, channels, height, width)`; pictures for the first `shown`.

    One pass over the training shards, a batch at a time; squared distances by matrix products in float32, exact
    to about one part in a million. Raises `InputError` when the training images have another shape.
    """
    flat = queries.reshape(len(queries), -1).astype(np.float32) / 255
    norms = np.square(flat).sum(1)
    shown = min(shown, len(queries))
    best = np.full((len(queries), NEIGHBOURS), np.inf, np.float32)
    images = np.zeros((shown, NEIGHBOURS, *queries.shape[1:]), np.uint8)
    searched = 0
    for batch in iterate_batches(train, BATCH, stop=MOST_TRAINING_IMAGES):
        if batch.images.shape[1:] != queries.shape[1:]:
            raise InputError(
                f"{train}: its images are of shape {batch.images.shape[1:]}, the samples of {queries.shape[1:]}; "
                "set data.train to the shards that the run was trained on"
            )
        others = batch.images.reshape(len(batch.images), -1).astype(np.float32) / 255
        distances = norms[:, None] + np.square(others).sum(1) - 2 * flat @ others.T
        # Candidates: the best so far, then the best of this batch.
        take = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
        pooled = np.concatenate([best, np.take_along_axis(distances, take, 1)], axis=1)
        order = np.argsort(pooled, axis=1, kind="stable")[:, :NEIGHBOURS]
        best = np.take_along_axis(pooled, order, 1)
        candidates = np.concatenate([images, batch.images[take[:shown]]], axis=1)
        images = candidates[np.arange(shown)[:, None], order[:shown]]
        searched += len(batch.images)
    found = min(NEIGHBOURS, searched)
    per_pixel = np.sqrt(np.maximum(best[:, 0], 0) / flat.shape[1]) * 255
    return Neighbours(images[:, :found], per_pixel, searched)


def _distance_words(found: Neighbours, samples: int) -> str:
    model, real = found.distances[:samples], found.distances[samples:]
    words = (
        f"Among {found.searched:,} training images, the nearest one to a model sample differs by "
        f"{np.median(model):.0f} of 255 grey levels (root mean square over pixels, median of {len(model)} samples)"
    )
    if not len(real):
        return words + "."
    copies = int((model < real.min()).sum())
    words += f"; for {len(real)} real test images it is {np.median(real):.0f}. "
    if copies == 0:
        return words + "No sample lies closer to a training image than the closest test image does: no sign of copying."
    return words + f"{copies} of the samples lie closer to a training image than any test image does."


def _grid(images: np.ndarray, labels: np.ndarray | None, title: str, caption: str, tone: Tone) -> ImageGrid:
    """The first images; with labels of a few classes the first of each, a column a class."""
    columns = None if labels is None else class_columns(labels)
    if columns is None:
        shown = images[: ACROSS * DOWN]
        return ImageGrid(shown, ACROSS, f"{title}: a grid of {len(shown)} images.", title, caption, tone)
    across, down = len(columns), len(columns[0])
    return ImageGrid(
        images[np.stack(columns, axis=1).reshape(-1)],
        across,
        f"{title}: a grid of {across} columns, a class each, of {down} images.",
        title,
        caption,
        tone,
        heads=tuple(Head(str(label), 1) for label in range(across)),
    )


def class_columns(labels: np.ndarray) -> list[np.ndarray] | None:
    """For each class the rows of its first images, equally many, at most `DOWN`.

    `labels` are int `(n,)`. None where there is but one class, there are too many, or one of them has no image.
    """
    classes = int(labels.max(initial=0)) + 1
    if not 1 < classes <= MOST_CLASSES:
        return None
    rows = [np.flatnonzero(labels == each)[:DOWN] for each in range(classes)]
    down = min(len(each) for each in rows)
    return [each[:down] for each in rows] if down else None


def _pairs(contents: RunContents) -> tuple[Block, ...]:
    assert contents.base is not None and contents.model is not None
    both = np.stack([contents.base.images[:PAIRS], contents.model.images[:PAIRS]], axis=1)
    halves = [both[: -(-len(both) // 2)], both[-(-len(both) // 2) :]]
    grids = tuple(
        ImageGrid(
            half.reshape(-1, *half.shape[2:]),
            8,
            f"{len(half)} pairs: left the generator’s image of a latent, right the model’s after the chain.",
            gap_after=(2, 4, 6),
            heads=tuple(Head(name, 1) for _ in range(4) for name in ("before", "after")),
        )
        for half in halves
        if len(half)
    )
    words = (
        "Same latent, before and after. Each pair starts from one prior draw: left what the generator makes of it, "
        "right where the chain has taken it."
    )
    return Text(words), Columns(grids, 290)


def missing_real() -> Text:
    """The sentence in place of the test samples."""
    return missing("The test set is not at hand (`data.test`). For digits this makes one:", "gebm data mnist OUT")


def missing_samples(run: str, which: str) -> Text:
    """The sentence in place of the samples of `base` or `model`, and what draws them."""
    name = "base" if which == "base" else "ula"
    what = "the generator alone" if which == "base" else "the model"
    return missing(
        f"No finished samples of {what} yet. This draws them:",
        f"gebm sample {run} --sampler {name} --count 1000 --out {run}/samples/{which}",
    )
