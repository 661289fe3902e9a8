"""What samples that are vectors look like: on the line, in the plane, or in the plane where real ones vary most."""

from __future__ import annotations

import numpy as np

from gebm.evaluation.report import (
    Block,
    Columns,
    Points,
    Section,
    Tone,
    Values,
    draw_histograms,
    draw_points,
)
from gebm.launch.report.contents import RunContents
from gebm.launch.report.pictures import missing_real, missing_samples, sampler_words

SHOWN = 600
"""Points of each cloud."""


def points_section(contents: RunContents) -> Section:
    """One cloud of points a set, all in the same plane; histograms for numbers on the line."""
    sets: list[tuple[str, np.ndarray, Tone, str]] = []
    absent: list[Block] = []
    if contents.real is not None:
        sets.append(("Real", contents.real, "reference", "Test points that training never saw."))
    else:
        absent.append(missing_real())
    if contents.base is not None:
        sets.append(("Generator alone", contents.base.images, "first", "Prior draws, straight through the base."))
    else:
        absent.append(missing_samples(contents.run, "base"))
    if contents.model is not None:
        sets.append(("Model", contents.model.images, "second", sampler_words(contents.model)))
    else:
        absent.append(missing_samples(contents.run, "model"))
    if not sets:
        return Section("Samples", tuple(absent))
    first = sets[0][1]
    figures: tuple[Block, ...]
    if first.shape[1] == 1:
        lead = "Distributions of the samples."
        values = [Values(name, points[:, 0], tone) for name, points, tone, _ in sets]
        words = ", ".join(name.lower() for name, *_ in sets)
        figures = (draw_histograms(values, title="Samples", x_label="value", alt=f"Histograms of {words}."),)
    else:
        lead, figures = _clouds(sets)
    return Section("Samples", (Columns(figures, 290), *absent), lead)


def _clouds(sets: list[tuple[str, np.ndarray, Tone, str]]) -> tuple[str, tuple[Block, ...]]:
    name, reference, *_ = sets[0]
    if reference.shape[1] == 2:
        lead = "The first points of each set as they came."
        names, shown = ("first number", "second number"), lambda points: points
    else:
        centre = reference.mean(0)
        _, strength, axes = np.linalg.svd(reference - centre, full_matrices=False)
        share = float((strength[:2] ** 2).sum() / (strength**2).sum())
        lead = (
            "The first points of each set as they came, in the plane of the two directions in which the set "
            f"“{name}” varies most: {share:.0%} of its variance."
        )
        names, shown = (
            ("first principal direction", "second principal direction"),
            lambda points: (points - centre) @ axes[:2].T,
        )
    planes = [shown(points[:SHOWN]) for _, points, *_ in sets]
    low, high = planes[0].min(0), planes[0].max(0)
    margin = 0.15 * (high - low)
    limits = ((low[0] - margin[0], high[0] + margin[0]), (low[1] - margin[1], high[1] + margin[1]))
    return lead, tuple(
        draw_points(
            [Points(name, plane[:, 0], plane[:, 1], tone)],
            title=name,
            x_label=names[0],
            y_label=names[1],
            alt=f"{name}: {len(plane)} points.",
            caption=caption,
            limits=limits,
        )
        for (name, _, tone, caption), plane in zip(sets, planes, strict=True)
    )
