"""Several models, or several samplers of one, as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from gebm.launch.report.wording import number, p_value
from gebm.launch.results import standard_output
from gebm.launch.sampler_words import law_words, settings_words
from gebm.sampler.settings import SamplerSettings


def print_models(result: dict[str, Any], console: Console | None = None) -> None:
    """A row a model: its distance to the data, over the base's, and what its samples cost."""
    console = console or standard_output()
    modes = result["modes_base"] is not None
    table = Table(
        *("samples", "evaluations", "acceptance", "FID", "over the base's", "KID"),
        *(("modes",) if modes else ()),
        *("closer? p", "Holm's p", "law"),
        box=None,
        title=f"{result['n_generated']:,} generated against {result['n_real']:,} real samples",
        title_justify="left",
    )
    if result["fid_base"] is not None:
        covered = (number(result["modes_base"]["covered"]),) if modes else ()
        table.add_row(
            "base", "0", "", number(result["fid_base"]), "1", number(result["kid_base"]), *covered, "", "", ""
        )
    for model in result["models"]:
        covered = (number(model["modes_model"]["covered"]),) if modes else ()
        relative = model["mmd_relative"] or {}
        table.add_row(
            name_of(model),
            evaluations_words(model["drawn"]),
            acceptance_words(model["drawn"]),
            number(model["fid_model"]),
            ratio_words(model),
            number(model["kid_model"]),
            *covered,
            p_value(relative.get("p_value")),
            p_value(relative.get("p_value_holm")),
            "" if model["drawn"] is None else law_words(sampler_of(model)),
        )
    console.print(table)
    for warning in result["warnings"]:
        console.print(f"[yellow]note:[/yellow] {warning}")


def sampler_of(model: dict[str, Any]) -> SamplerSettings:
    """The sampler of a model that was `drawn` by one."""
    return SamplerSettings.model_validate(model["drawn"]["sampler"])


def name_of(model: dict[str, Any]) -> str:
    """`ula, β 3, step 0.01`, or the folder of samples that came from elsewhere."""
    if model["drawn"] is None:
        return str(model["samples"]).rstrip("/").rpartition("/")[2]
    sampler = sampler_of(model)
    return sampler.name if sampler.name == "base" else f"{sampler.name}, {settings_words(sampler)}"


def evaluations_words(drawn: dict[str, Any] | None) -> str:
    """`100`, or `100 without gradient`."""
    if drawn is None:
        return ""
    spent = drawn["evaluations"]
    words = f"{spent['gradients'] + spent['values']:,.4g}"
    return f"{words} without gradient" if spent["values"] else words


def acceptance_words(drawn: dict[str, Any] | None) -> str:
    """Only of samplers that can reject."""
    if drawn is None or drawn["sampler"]["name"] not in ("mala", "hmc", "rwmh", "imh"):
        return ""
    return f"{drawn['acceptance']:.3g}"


def ratio_words(model: dict[str, Any]) -> str:
    """`0.61 [0.56, 0.65]`."""
    if model["fid_ratio"] is None:
        return ""
    low, high = model["fid_ratio_interval"]
    return f"{model['fid_ratio']:.2f} \\[{low:.2f}, {high:.2f}]"
