"""What a user sees while work goes on: a bar on a terminal, a line every few seconds in a log file.

The work reports through a plain callable; that it has nothing to report is shown too, so that a process which
waits can be told from one that died.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

LINE_EVERY = 8.0
"""Seconds between two lines of a stage when there is no terminal."""

Report = Callable[[int, int, str], None]
"""Called with (done, total, detail) of the stage that runs. `total` 0: not known yet; `detail` is then an event, such
as a worker that died, which gets a line of its own and stays in sight."""


class Display(Protocol):
    """Shows stages, one after the other."""

    def stage(self, name: str) -> AbstractContextManager[Report]:
        """A context in which the stage `name` runs; it ends with a line that says how long it took."""

    def note(self, text: str) -> None:
        """One line, above the bar."""


def make_display(console: Console | None = None) -> Display:
    """Bars when standard error is a terminal, lines otherwise. Results alone go to standard output."""
    console = console or Console(stderr=True, highlight=False)
    return BarDisplay(console) if console.is_terminal else LineDisplay(sys.stderr)


class BarDisplay:
    """A rich progress bar with elapsed time, redrawn by rich's own thread."""

    def __init__(self, console: Console):
        self._console = console

    @contextmanager
    def stage(self, name: str) -> Iterator[Report]:
        begun = time.monotonic()
        columns = (
            SpinnerColumn(),
            TextColumn("{task.description:<10}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[share]:>5}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}"),
        )
        with Progress(*columns, console=self._console, transient=True) as progress:
            task = progress.add_task(name, total=None, share="", detail="starting")

            def report(done: int, total: int, detail: str = "") -> None:
                if not total and detail:
                    progress.console.print(f"{name}: {detail}", markup=False, highlight=False)
                share = f"{100 * done // total}%" if total else ""
                progress.update(task, completed=done, total=total or None, share=share, detail=detail)

            yield report
        self.note(f"[green]✓[/green] {name:<10} {time.monotonic() - begun:6.1f} s")

    def note(self, text: str) -> None:
        self._console.print(text)


class LineDisplay:
    """Plain lines: at once when a stage begins and ends, and every `every` seconds in between."""

    def __init__(self, stream: TextIO, every: float = LINE_EVERY):
        self._stream, self._every = stream, every

    @contextmanager
    def stage(self, name: str) -> Iterator[Report]:
        begun = time.monotonic()
        state = {"text": "starting"}
        ended = threading.Event()

        def tick() -> None:
            while not ended.wait(self._every):
                self.note(f"{name}: {state['text']} ({time.monotonic() - begun:.0f} s)")

        def report(done: int, total: int, detail: str = "") -> None:
            if not total and detail:
                self.note(f"{name}: {detail}")
            share = f"{done:,} of {total:,}" if total else ""
            state["text"] = "  ".join(part for part in (share, detail) if part)

        self.note(f"{name}: begins")
        ticker = threading.Thread(target=tick, name="progress", daemon=True)
        ticker.start()
        try:
            yield report
        finally:
            ended.set()
            ticker.join()
        self.note(f"{name}: done in {time.monotonic() - begun:.1f} s")

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)
