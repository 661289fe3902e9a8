"""The cases of the illustration: which recipe each trains, and what it is there to show."""

from __future__ import annotations

from typing import NamedTuple

PAGE, NUMBERS = "illustration.html", "illustration.json"
"""What the whole illustration leaves, beside the run of each case."""


class Case(NamedTuple):
    """name: the folder of its run, and its picture; recipe: the packaged recipe; title and lead: on the page."""

    name: str
    recipe: str
    title: str
    lead: str


CASES = (
    Case(
        "modes",
        "illustration_modes",
        "Three modes, wrong masses",
        "The base knows the three modes but not how often each occurs. The energy moves mass between them; the exact "
        "answer is known here, and drawn beside the learnt one.",
    ),
    Case(
        "curve",
        "illustration_curve",
        "Right support, wrong mass",
        "The base lies exactly on the spiral of the data and spreads its mass evenly over it. The data prefers the "
        "two ends. The base is frozen: the energy alone puts the mass right.",
    ),
    Case(
        "support",
        "illustration_support",
        "Wrong support, wrong mass",
        "The base is an ellipse beside the ring of the data. The energy can only choose among the base’s own "
        "points: it prefers those near to where the data is, and none of them gets any nearer.",
    ),
    Case(
        "trained",
        "illustration_trained",
        "Wrong support, and the base may learn",
        "The same start, but the ellipse may be stretched and moved while both are trained: the base comes nearer to "
        "the ring, which no energy can do, and the energy puts the mass right, which this base cannot. “Base” here is "
        "the trained one.",
    ),
)
