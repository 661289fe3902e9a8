"""Results on the terminal: the table that ends the demo, an evaluation, a comparison of two samples."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table

from gebm.cluster import storage
from gebm.launch.illustration.cases import NUMBERS
from gebm.launch.run_directory import REPORT, SUMMARY, TIMINGS
from gebm.launch.timings import read_timings

TESTS = {
    "mmd_base": "base against data",
    "mmd_model": "model against data",
    "mmd_null": "data against data",
    "mmd_relative": "model closer to the data than its base?",
}
SETS = {"base": "base", "model": "model", "real": "real test images"}


def print_run(run: str, console: Console | None = None) -> None:
    """The results of a finished run, where the time went, and the path of its report."""
    console = console or standard_output()
    summary = storage.read_json(storage.join(run, SUMMARY))
    print_evaluation(summary, console)
    if summary.get("likelihood"):
        print_likelihood(summary["likelihood"], console)
    seconds = read_timings(run)
    table = Table("stage", "seconds", box=None, title="Time", title_justify="left")
    for stage, spent in seconds.items():
        table.add_row(stage, f"{spent:,.1f}")
    table.add_row("[bold]total", f"[bold]{sum(seconds.values()):,.1f}")
    console.print(table)
    console.print(f"seconds by stage: {storage.join(run, TIMINGS)}")
    console.print(f"[bold]report: {storage.join(run, REPORT)}")


def print_illustration(page: str, console: Console | None = None) -> None:
    """What the energy did in every case of the illustration, and the path of its page."""
    console = console or standard_output()
    folder = page.rpartition("/")[0]
    table = Table("mass in the wrong place", "base", "model", "training data", box=None)
    for case, numbers in storage.read_json(storage.join(folder, NUMBERS)).items():
        errors = (numbers[f"mass_error_{of}"] for of in ("base", "model", "training_data"))
        table.add_row(case, *(f"{error:.3f}" for error in errors))
    console.print(table)
    console.print(f"[bold]page: {page}")


def print_evaluation(result: dict[str, Any], console: Console | None = None) -> None:
    """The findings of an evaluation: distances, their ratio with its interval, tests; what there is of them."""
    console = console or standard_output()
    table = Table(
        "distance to the data",
        "base",
        "model",
        "model / base",
        box=None,
        title=f"{result.get('n_generated', 0):,} generated against {result.get('n_real', 0):,} real samples",
        title_justify="left",
    )
    for metric in ("fid", "kid"):
        model, base = result.get(f"{metric}_model"), result.get(f"{metric}_base")
        if model is not None or base is not None:
            table.add_row(metric.upper(), _number(base), _number(model), _ratio(result) if metric == "fid" else "")
    for metric in ("precision", "recall", "density", "coverage"):
        model, base = result.get(f"{metric}_model"), result.get(f"{metric}_base")
        if model is not None:
            table.add_row(metric, _number(base), _number(model), "")
    console.print(table)
    print_modes(result, console)
    print_labels(result, console)
    tests = {name: label for name, label in TESTS.items() if result.get(name)}
    if tests:
        table = Table("MMD test", "statistic", "p-value", box=None)
        for name, label in tests.items():
            table.add_row(label, _number(result[name].get("statistic")), _number(result[name].get("p_value")))
        console.print(table)
    for warning in result.get("warnings") or []:
        console.print(f"[yellow]note:[/yellow] {warning}")


def print_comparison(result: dict[str, Any], level: float, console: Console | None = None) -> None:
    """The outcome of one two-sample test."""
    console = console or standard_output()
    table = Table("two-sample test", "value", box=None)
    for key, value in result.items():
        if isinstance(value, bool):
            table.add_row(key, "yes" if value else "no")
        elif isinstance(value, int | float | str) and value != "":
            table.add_row(key, _number(value) if isinstance(value, float) else str(value))
    console.print(table)
    if (p_value := result.get("p_value")) is None:
        return
    if "sign_flip_p_value" in result:  # only the relative test has one
        verdict = "the second set [bold]is closer[/bold] to the first than the base is"
        if p_value > level:
            verdict = "it is [bold]not shown[/bold] that the second set is closer to the first than the base is"
    else:
        verdict = f"the two samples [bold]{'differ' if p_value <= level else 'could not be told apart'}[/bold]"
    console.print(f"at level {level:g} {verdict} (p = {p_value:.4g})")


def print_modes(result: dict[str, Any], console: Console) -> None:
    """Modes of stacked digits that are covered, where they were counted."""
    rows = [(label, result.get(f"modes_{name}")) for name, label in SETS.items()]
    if not any(found for _, found in rows):
        return
    table = Table("modes of stacked digits", "covered", "of", "KL to uniform, nats", "images", box=None)
    for label, found in rows:
        if found:
            kl = f"{found['kl_to_uniform']:.3f}"
            table.add_row(label, f"{found['covered']:,}", f"{found['of']:,}", kl, f"{found['n']:,}")
    console.print(table)
    classifier = result["modes_classifier"]
    console.print(
        f"[dim]classifier of single digits: {classifier['accuracy']:.1%} of {classifier['n']:,} test digits right[/dim]"
    )


def print_labels(result: dict[str, Any], console: Console) -> None:
    """Images of digits that show what their label says, where they were read."""
    rows = [(label, found) for name, label in SETS.items() if (found := result.get(f"labels_{name}"))]
    if rows:
        table = Table("images that show the digit asked for", "share", "standard error", "images", box=None)
        for label, found in rows:
            table.add_row(label, f"{found['share']:.1%}", f"{found['standard_error']:.1%}", f"{found['n']:,}")
        console.print(table)
        console.print("[dim]read by a classifier of digits: its own mistakes are those on the real test images[/dim]")


def print_likelihood(result: dict[str, Any], console: Console | None = None) -> None:
    """Held-out negative log-likelihood of base and model with its errors, and whether the model is better."""
    console = console or standard_output()
    c = result["log_partition"]
    heading = f"nats a point, {result['points']:,} held-out points"
    title = "negative log-likelihood"
    table = Table(heading, "value", "standard error", box=None, title=title, title_justify="left")
    table.add_row("base", f"{result['base']:.3f}", f"{result['base_error']:.3f}")
    table.add_row("model", f"{result['model']:.3f}", f"{result['model_error']:.3f}")
    table.add_row("model - base", f"{result['difference']:+.3f}", f"{result['difference_error']:.3f}")
    table.add_row("log-partition c", f"{c['value']:.4f}", f"{c['standard_error']:.4f}")
    console.print(table)
    verdict = "better than its base" if result["better"] else "not shown to be better than its base"
    console.print(
        f"the model is [bold]{verdict}[/bold]: upper bound of model - base {result['difference_upper']:+.3f} at level "
        f"{result['level']:g}, for points and c; c from {c['draws']:,} draws, {c['effective_draws']:,.0f} effective"
    )


def _ratio(result: dict[str, Any]) -> str:
    ratio, interval = result.get("fid_ratio"), result.get("fid_ratio_interval")
    if ratio is None:
        return ""
    # A percentage of confidence is the evaluation's to state; its interval is printed as it is.
    return f"{ratio:.3f}" + (f"  [dim]\\[{interval[0]:.3f}, {interval[1]:.3f}][/dim]" if interval else "")


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, int):
        return f"{value:,}"
    size = abs(value)
    if not math.isfinite(value) or size == 0 or 1e-4 <= size < 1e5:
        return f"{value:.4g}"
    return f"{value:.2e}"


def standard_output() -> Console:
    """Standard output; a pipe gets whole lines, however narrow it says it is."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=160)
