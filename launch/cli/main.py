"""The `gebm` command: its grammar, and what every failure looks like from outside.

Commands import what they need when they run: `gebm --help` must not wait for torch and Ray.
"""

from __future__ import annotations

import os
import signal
import sys
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gebm.cluster.errors import FarmError, InputError, StorageError
from gebm.launch.cli import chains, compare, contest, data, demo, evaluate, report, sample, train, tune
from gebm.launch.interrupts import Interrupted

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130

ORDER = ("demo", "data", "train", "tune", "sample", "chains", "evaluate", "compare", "contest", "report")


class _InOrder(TyperGroup):
    """Lists commands in the order in which they are used; typer would put `data`, a group, last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=ORDER.index)


app = typer.Typer(
    name="gebm",
    cls=_InOrder,
    help="Train, sample and evaluate Generalized Energy-Based Models, on a laptop or a Ray cluster.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="demo")(demo.command)
app.add_typer(data.app, name="data")
app.command(name="train")(train.command)
app.command(name="tune")(tune.command)
app.command(name="sample")(sample.command)
app.command(name="chains")(chains.command)
app.command(name="evaluate")(evaluate.command)
app.command(name="compare")(compare.command)
app.command(name="contest")(contest.command)
app.command(name="report")(report.command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"gebm {version('gebm')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and leave."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line and exit: 0 done, 1 failed, 2 bad input, 130 or 143 ended by Ctrl-C or SIGTERM."""
    sys.exit(run())


def run(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        app(args=arguments, prog_name="gebm")
    except InputError as error:
        _complain(str(error))
        return BAD_INPUT
    except (FarmError, StorageError) as error:
        _complain(str(error))
        return FAILED
    except KeyboardInterrupt:
        return _interrupted()
    except Interrupted as end:
        print(end, file=sys.stderr)
        return end.code
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; keep the interpreter from complaining at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # so Ray's handler of the signal ends a process that is connected
            return _interrupted(128 + signal.SIGTERM)
        # typer turns Ctrl-C into this exit code without a word.
        return _interrupted() if end.code == INTERRUPTED else end.code if isinstance(end.code, int) else OK
    return OK


def _interrupted(code: int = INTERRUPTED) -> int:
    print("\ninterrupted: the same command goes on from where it stopped", file=sys.stderr)
    return code


def _complain(message: str) -> None:
    print(f"error: {message}", file=sys.stderr)
