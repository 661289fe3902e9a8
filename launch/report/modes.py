"""How many of the modes of stacked digits the samples cover, and how evenly."""

from __future__ import annotations

from gebm.evaluation.modes import expected_coverage
from gebm.evaluation.report import Cell, Column, Section, Table, Text, Tone
from gebm.launch.report.formats import Evaluation, Modes
from gebm.launch.report.wording import number

_SETS: tuple[tuple[str, str, Tone], ...] = (
    ("modes_real", "Real test images", "reference"),
    ("modes_base", "Generator", "first"),
    ("modes_model", "Model", "second"),
)


def modes_section(evaluation: Evaluation) -> Section | None:
    """A table of real images, generator and model; None where no modes were counted."""
    rows = []
    for key, name, tone in _SETS:
        found: Modes | None = getattr(evaluation, key)
        if found is not None:
            even = expected_coverage(found.of, found.n)
            rows.append(
                (
                    Cell(name, f"{number(found.n)} images", tone),
                    Cell(number(found.covered), f"{even:.0f} by as many even draws"),
                    Cell(number(found.kl_to_uniform)),
                )
            )
    if not rows:
        return None
    columns = (Column("Set"), Column("Modes covered", "right"), Column("KL to uniform, nats", "right"))
    classifier = evaluation.modes_classifier
    words = "Both figures depend on the number of images, so that real images are counted beside the others."
    if classifier is not None:
        words += (
            f" Modes are read off by a classifier of single digits, trained on the training digits; on "
            f"{number(classifier.n)} test digits it is right in {classifier.accuracy:.1%}, and each of its mistakes "
            "puts an image into a wrong mode."
        )
    of = next(found.of for key, *_ in _SETS if (found := getattr(evaluation, key)) is not None)
    lead = f"Three digits, one a channel, make {number(of)} modes that are equally likely in the data."
    return Section("Modes", (Table(columns, tuple(rows), narrow="cards"), Text(words, "note")), lead)
