"""All samplers against each other on the run's model: the table of `gebm contest`, and its ratios drawn."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from gebm.cluster import storage
from gebm.evaluation.report import Block, Cell, Column, Interval, Section, Table, Text, Tone, draw_intervals
from gebm.launch.report.contents import RunContents
from gebm.launch.report.formats import Modes, read_format
from gebm.launch.report.wording import fixed, number, p_value
from gebm.launch.run_directory import CONTEST
from gebm.launch.sampler_words import law_words, settings_words
from gebm.sampler.settings import SamplerSettings

TITLE = "Samplers compared"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Spent(_Part):
    """Evaluations of the energy for a sample, with their gradient and alone."""

    gradients: float
    values: float


class Drawn(_Part):
    """How a sampler's samples were drawn."""

    sampler: SamplerSettings
    evaluations: Spent
    acceptance: float


class Relative(_Part):
    """The relative-similarity test, and its p-value corrected for the number of samplers."""

    p_value: float
    p_value_holm: float


class Row(_Part):
    """One sampler."""

    drawn: Drawn
    fid_model: float
    fid_ratio: float
    fid_ratio_interval: tuple[float, float]
    kid_model: float | None = None
    mmd_relative: Relative
    modes_model: Modes | None = None


class Contest(_Part):
    """`contest.json`, what `gebm contest` found."""

    model: str
    inverse_temperature: float
    energy_evaluations: int
    models: tuple[Row, ...]
    left_out: tuple[str, ...]
    fid_base: float
    kid_base: float | None = None
    modes_base: Modes | None = None
    n_real: int
    n_generated: int
    warnings: tuple[str, ...] = ()


def contest_section(contents: RunContents) -> Section | None:
    """Ratios with their intervals, and the table; None where `gebm contest` was not run."""
    contest = read_format(storage.join(contents.run, CONTEST), Contest)
    if contest is None:
        return None
    if contents.model_digest not in (None, contest.model):
        words = "This comparison is of another model than the run now holds: run `gebm contest` again."
        return Section(TITLE, (Text(words, "warning"),))
    blocks: list[Block] = [_figure(contest), _table(contest)]
    blocks.extend(Text(f"Passed over in tuning: {reason}.", "warning") for reason in contest.left_out)
    blocks.extend(Text(warning, "warning") for warning in contest.warnings)
    blocks.append(
        Text(
            "Settings were chosen on validation samples, for each sampler among candidates of the same cost. An "
            "evaluation is one latent through generator and energy, with the gradient or, where it says so, without. "
            "The last p-value is corrected by Holm’s method for the number of samplers.",
            "note",
        )
    )
    lead = (
        f"One target law, inverse temperature {contest.inverse_temperature:g}, and {contest.energy_evaluations:,} "
        f"evaluations of the energy for each sample; {number(contest.n_generated)} samples of each against "
        f"{number(contest.n_real)} test samples, from the same prior draws."
    )
    return Section(TITLE, tuple(blocks), lead)


def _figure(contest: Contest) -> Block:
    intervals = [
        Interval(row.drawn.sampler.name.upper(), row.fid_ratio, *row.fid_ratio_interval, _tone(row))
        for row in contest.models
    ]
    best = min(contest.models, key=lambda row: row.fid_ratio)
    return draw_intervals(
        intervals,
        title="FID over that of the generator alone",
        x_label="left of the dashed line: closer to the data than the generator",
        alt=f"A ratio with its interval for each of {len(intervals)} samplers, and a line at 1; the smallest is "
        f"{best.fid_ratio:.2f}, of {best.drawn.sampler.name.upper()}.",
        caption="95% intervals from a paired delete-group jackknife.",
        level=1.0,
    )


def _tone(row: Row) -> Tone:
    low, high = row.fid_ratio_interval
    return "good" if high < 1 else "bad" if low > 1 else "plain"


def _table(contest: Contest) -> Table:
    modes = contest.modes_base is not None
    columns = (
        Column("Sampler"),
        Column("Evaluations", "right"),
        Column("Acceptance", "right"),
        Column("FID", "right"),
        Column("Ratio", "right"),
        Column("KID", "right"),
        *((Column("Modes", "right"),) if modes else ()),
        Column("Closer? p", "right"),
    )
    covered = (Cell(number(contest.modes_base.covered)),) if contest.modes_base is not None else ()
    base = (
        Cell("Generator alone", tone="first"),
        Cell("0"),
        Cell("–"),
        Cell(number(contest.fid_base)),
        Cell("1"),
        Cell(number(contest.kid_base)),
        *covered,
        Cell("–"),
    )
    return Table(columns, (base, *(_cells(row, modes) for row in contest.models)))


def _cells(row: Row, modes: bool) -> tuple[Cell, ...]:
    sampler, spent = row.drawn.sampler, row.drawn.evaluations
    test = row.mmd_relative
    exact: Any = row.drawn.acceptance if sampler.name in ("mala", "hmc", "imh") else None
    return (
        Cell(sampler.name.upper(), f"{settings_words(sampler)}; law: {law_words(sampler)}"),
        Cell(number(round(spent.gradients + spent.values)), "without gradient" if spent.values else ""),
        Cell(number(exact)),
        Cell(number(row.fid_model)),
        Cell(f"{row.fid_ratio:.2f}", " to ".join(map(fixed, row.fid_ratio_interval)), _tone(row)),
        Cell(number(row.kid_model)),
        *((Cell(number(None if row.modes_model is None else row.modes_model.covered)),) if modes else ()),
        Cell(p_value(test.p_value_holm), f"alone {p_value(test.p_value)}"),
    )
