"""What tuning tried on the validation samples, and what it chose."""

from __future__ import annotations

import math

from gebm.evaluation.report import Block, Cell, Column, Fold, Section, Table, Text
from gebm.launch.report.contents import RunContents
from gebm.launch.report.formats import Tried, Tuning
from gebm.launch.report.wording import fixed, missing, number
from gebm.launch.sampler_words import sampler_words, settings_words

SHOWN = 12
"""Rows outside the fold."""

_COLUMNS = (
    Column("Sampler"),
    Column("Steps", "right"),
    Column("FID", "right"),
    Column("Ratio", "right"),
    Column("Energy gap", "right"),
)


def tuning_section(contents: RunContents) -> Section:
    """The candidates as a table, best first, the chosen one marked."""
    tuning = contents.tuning
    if tuning is None:
        command = f"gebm tune {contents.run} --validation SHARDS"
        words = "Not tuned: the recipe’s sampler settings hold. This tunes them:"
        return Section("Tuning", (missing(words, command),))
    rows = sorted((row for row in tuning.tried if row.failure is None), key=lambda row: _badness(row, tuning.criterion))
    position = next((number for number, row in enumerate(rows) if row.sampler == tuning.chosen), 0)
    shown = max(SHOWN, position + 1)
    blocks: list[Block] = [_table(rows[:shown], tuning)]
    if len(rows) > shown:
        blocks.append(Fold(f"{len(rows) - shown} more that were tried", (_table(rows[shown:], tuning),)))
    blocks.extend(
        Text(f"Passed over: {sampler_words(row.sampler)}: {row.failure}.", "warning")
        for row in tuning.tried
        if row.failure is not None
    )
    if not tuning.improves:
        blocks.append(
            Text(
                "No candidate was better than the generator beyond the uncertainty of its ratio; the best of them is "
                "used all the same.",
                "warning",
            )
        )
    blocks.append(
        Text(
            "Ratio: FID over the generator’s on the same latents, with its 95% interval. Energy gap: mean energy of "
            "the samples minus that of validation samples; below 0 the chain has gone past the data.",
            "note",
        )
    )
    lead = (
        f"{number(tuning.n_generated)} chains for each candidate against {number(tuning.n_validation)} validation "
        f"samples, on which the generator alone has an FID of {number(tuning.fid_base)}. The test set had no part "
        "in it, and FIDs at other numbers of samples are not comparable."
    )
    return Section("Tuning", tuple(blocks), lead)


def _badness(row: Tried, criterion: str) -> float:
    """What is smallest for the best row, as in `gebm.launch.tune_scores.choose`."""
    value = row.fid if criterion == "fid" else row.energy_gap
    return math.inf if value is None else abs(value)


def _table(rows: list[Tried], tuning: Tuning) -> Table:
    marked = frozenset(place for place, row in enumerate(rows) if row.sampler == tuning.chosen)
    cells = tuple(
        (
            Cell(row.sampler.name.upper() + (" — chosen" if place in marked else ""), settings_words(row.sampler)),
            Cell(f"{row.sampler.steps:,}"),
            Cell(number(row.fid)),
            _ratio(row),
            Cell(number(row.energy_gap)),
        )
        for place, row in enumerate(rows)
    )
    return Table(_COLUMNS, cells, marked=marked)


def _ratio(row: Tried) -> Cell:
    if row.fid_ratio is None or row.fid_ratio_interval is None:
        return Cell(number(None))
    return Cell(f"{row.fid_ratio:.2f}", " to ".join(map(fixed, row.fid_ratio_interval)))
