"""`gebm report`: everything about a run on one page."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run with samples and evaluation.")],
) -> None:
    """Write RUN/report.html, one self-contained page, and RUN/summary.json."""
    from gebm.launch import stages
    from gebm.launch.progress import make_display
    from gebm.launch.run_directory import load_run

    load_run(run)
    with make_display().stage("report") as report:
        path = stages.write_report(run, report)
    print(path)
