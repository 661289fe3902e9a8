"""Building the report of a run: `report.html` for people and `summary.json` for programs."""

from __future__ import annotations

from collections.abc import Callable

from gebm.cluster import storage
from gebm.evaluation.report import Block, KeyFigures, Page, Section, render_page
from gebm.launch.report.background import collect_versions, settings_section, time_section
from gebm.launch.report.chains import chains_section
from gebm.launch.report.contents import RunContents, read_contents
from gebm.launch.report.contest import contest_section
from gebm.launch.report.labels import labels_section
from gebm.launch.report.likelihood import likelihood_figure, likelihood_section
from gebm.launch.report.measurements import measurements
from gebm.launch.report.modes import modes_section
from gebm.launch.report.pictures import neighbours_section, samples_section
from gebm.launch.report.points import points_section
from gebm.launch.report.stages import stages_section
from gebm.launch.report.summary import summarise_run
from gebm.launch.report.training import training_section
from gebm.launch.report.tuning import tuning_section
from gebm.launch.report.verdict import judge, key_figures
from gebm.launch.run_directory import REPORT, SUMMARY


def build_report(run: str, *, progress: Callable[[int, int, str], None] | None = None) -> str:
    """Write `RUN/report.html` and `RUN/summary.json` and return the path of the page.

    What the run does not hold yet is left out, with a sentence that names the command that makes it. The files
    are written last, the page after the summary. `progress` is called with (done, total, what comes next).

    Raises `InputError` when `run` is not a run, and naming each file that is broken.
    """
    contents = read_contents(run)
    versions = collect_versions()
    level = contents.recipe.evaluation.level
    parts: list[tuple[str, Callable[[], Section | None]]] = [
        ("samples", lambda: points_section(contents) if contents.are_vectors else samples_section(contents)),
        ("measurements", lambda: measurements(contents.evaluation, level) if contents.evaluation else None),
        ("modes", lambda: modes_section(contents.evaluation) if contents.evaluation else None),
        ("labels", lambda: labels_section(contents.evaluation) if contents.evaluation else None),
        ("likelihood", lambda: likelihood_section(contents.likelihood) if contents.likelihood else None),
        ("samplers compared", lambda: contest_section(contents)),
        ("energies", lambda: chains_section(contents)),
        ("chains", lambda: stages_section(contents)),
        ("nearest training images", lambda: None if contents.are_vectors else neighbours_section(contents)),
        ("training curves", lambda: training_section(contents)),
        ("tuning", lambda: tuning_section(contents)),
        ("timings", lambda: time_section(contents.seconds)),
        ("settings", lambda: settings_section(contents, versions)),
    ]
    sections = []
    for done, (name, make) in enumerate(parts):
        if progress is not None:
            progress(done, len(parts), name)
        if (section := make()) is not None:
            sections.append(section)
    html = render_page(_page(contents, tuple(sections), level))
    storage.write_json_atomic(storage.join(contents.run, SUMMARY), summarise_run(contents, versions))
    storage.write_bytes_atomic(storage.join(contents.run, REPORT), html.encode())
    if progress is not None:
        progress(len(parts), len(parts), "written")
    return storage.join(contents.run, REPORT)


def _page(contents: RunContents, sections: tuple[Section, ...], level: float) -> Page:
    opening: list[Block] = [judge(contents.evaluation, level, contents.run)]
    figures = key_figures(contents.evaluation) if contents.evaluation else ()
    figures += (likelihood_figure(contents.likelihood),) if contents.likelihood else ()
    if figures:
        opening.append(KeyFigures(figures))
    return Page(
        title=f"{contents.recipe.name}, seed {contents.recipe.seed}",
        kicker="Generalized energy-based model",
        subtitle="A generator says where the data may lie, an energy says how likely it is there. This page tells "
        "whether the energy makes the samples better than the generator’s own.",
        opening=tuple(opening),
        sections=sections,
        footer=f"Made by gebm from `{contents.run}`.",
    )
