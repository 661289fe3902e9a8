"""Whether a conditional model of digits draws the digit that it is asked for."""

from __future__ import annotations

from gebm.evaluation.report import Cell, Column, Section, Table, Text, Tone
from gebm.launch.report.formats import Agreement, Evaluation
from gebm.launch.report.wording import number

_SETS: tuple[tuple[str, str, Tone], ...] = (
    ("labels_real", "Real test images", "reference"),
    ("labels_base", "Generator", "first"),
    ("labels_model", "Model", "second"),
)


def labels_section(evaluation: Evaluation) -> Section | None:
    """A table of real images, generator and model; None where no labels were read."""
    rows = []
    for key, name, tone in _SETS:
        found: Agreement | None = getattr(evaluation, key)
        if found is not None:
            rows.append(
                (
                    Cell(name, f"{number(found.n)} images", tone),
                    Cell(f"{found.share:.1%}", f"± {found.standard_error:.1%}"),
                    Cell(*_worst(found)),
                )
            )
    if not rows:
        return None
    columns = (Column("Set"), Column("Show their digit", "right"), Column("Worst digit", "right"))
    words = (
        "Images are read by a classifier that was trained on the training digits. On real test images it errs by "
        "itself, so that their share is what a perfect model would have; ± is one standard error."
    )
    lead = "Every sample was drawn for a digit, its label. How many show it?"
    return Section("Labels", (Table(columns, tuple(rows), narrow="cards"), Text(words, "note")), lead)


def _worst(found: Agreement) -> tuple[str, str]:
    shares = [(share, digit) for digit, share in enumerate(found.by_class or ()) if share is not None]
    if not shares:
        return ("–", "")
    share, digit = min(shares)
    return (str(digit), f"{share:.1%}")
