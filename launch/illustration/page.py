"""The page of the illustration: every case with its panels, its numbers, and one sentence on what they say."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from gebm.evaluation.report import (
    Cell,
    Column,
    Columns,
    Figure,
    KeyFigure,
    KeyFigures,
    Line,
    Page,
    Section,
    Table,
    Text,
    Tone,
    draw_lines,
    render_page,
)
from gebm.launch.data.toy import MIXTURES
from gebm.launch.illustration.cases import Case
from gebm.launch.illustration.measure import BINS, DRAWS, RIGHT_SUPPORT, Measurement
from gebm.launch.illustration.pictures import Panel, panel_picture, panels

Measured = Sequence[tuple[Case, Measurement]]


def illustration_page(measured: Measured, out: str) -> str:
    """The self-contained HTML page of all cases; `out` is named in the footer."""
    return render_page(
        Page(
            title="What the energy does",
            kicker="Generalized energy-based model",
            subtitle="A base says where points may lie, an energy says how much mass there is: the model has "
            "exp(−E(x) − c) times the base’s mass at x. So an energy can move mass about on the base’s "
            "support, and it can never leave that support.",
            opening=(KeyFigures(tuple(_key_figure(case, each) for case, each in measured)),),
            sections=(*(_section(case, each) for case, each in measured), _method()),
            footer=f"Made by gebm in `{out}`.",
        )
    )


def _key_figure(case: Case, measured: Measurement) -> KeyFigure:
    before, after = measured.error_before, measured.error_after
    return KeyFigure(
        case.title, f"{before:.2f} → {after:.2f}", "share of the mass in the wrong place", _tone(before, after)
    )


def _section(case: Case, measured: Measurement) -> Section:
    drawings = tuple(_panel_figure(panel) for panel in panels(measured))
    return Section(
        case.title,
        (
            Columns(drawings, least_width=230),
            Columns((_mass_figure(measured), _table(measured)), least_width=340),
            Text(_finding(measured)),
        ),
        lead=case.lead,
    )


def _panel_figure(panel: Panel) -> Figure:
    """The panel's pixels inside a drawing: unlike an image grid, it is scaled smoothly."""
    data = base64.b64encode(panel_picture(panel)).decode()
    image = f'<image width="100" height="100" href="data:image/png;base64,{data}"/>'
    return Figure(f'<svg viewBox="0 0 100 100">{image}</svg>', panel.title, panel.alt)


def _mass_figure(measured: Measurement) -> Figure:
    on_line = measured.toy in MIXTURES
    edges = np.repeat(measured.edges, 2)[1:-1]
    shares: tuple[tuple[str, np.ndarray, Tone], ...] = (
        ("target", measured.target_shares, "reference"),
        ("base", measured.base_shares, "first"),
        ("model", measured.model_shares, "second"),
    )
    return draw_lines(
        [Line(name, edges, np.repeat(values, 2), tone) for name, values, tone in shares],
        title=f"Share of the mass in each of {BINS} bins",
        x_label="place on the line" if on_line else "position along the curve",
        alt="the shares of target, base and model, bin by bin",
    )


def _table(measured: Measurement) -> Table:
    before, after = measured.error_before, measured.error_after
    rows = [
        (
            Cell("Mass in the wrong place", note="total variation over the bins"),
            Cell(f"{before:.3f}"),
            Cell(f"{after:.3f}", tone=_tone(before, after)),
        ),
        (
            Cell("The same, of the training data", note="what a model of it is entitled to"),
            Cell("–"),
            Cell(f"{measured.error_of_training_data:.3f}"),
        ),
    ]
    if measured.toy not in MIXTURES:
        off_support = measured.base_distance > RIGHT_SUPPORT
        rows.append(
            (
                Cell("Mean distance from the curve", note="how wrong the support is"),
                Cell(f"{measured.base_distance:.3f}"),
                Cell(
                    f"{measured.model_distance:.3f}",
                    tone=_tone(measured.base_distance, measured.model_distance) if off_support else "plain",
                ),
            )
        )
    rows.append(
        (
            Cell("Effective share of the draws", note="of weights exp(−E − c)"),
            Cell("100%"),
            Cell(f"{100 * measured.effective_share:.0f}%"),
        )
    )
    return Table((Column("measured"), Column("base", "right"), Column("model", "right")), tuple(rows))


def _finding(measured: Measurement) -> str:
    before, after = measured.error_before, measured.error_after
    change = f"{100 * (1 - after / before):.0f}% of the misplaced mass" if after < before else "None of it"
    mass = f"The base has {100 * before:.0f}% of its mass in the wrong bins, the model {100 * after:.0f}%: {change} "
    mass += "is put right by the energy."
    if measured.base_distance < RIGHT_SUPPORT:
        return mass
    return (
        f"{mass} The points of the base are {measured.base_distance:.2f} from the curve on average, those of the "
        f"model {measured.model_distance:.2f}: weights can prefer the nearer points, but they make none."
    )


def _method() -> Section:
    return Section(
        "How this was measured",
        (
            Text(
                f"Targets are known, so target and base are drawn {DRAWS:,} times each, independently of the training "
                f"data. The model is the base’s draws with weights exp(−E − c). A point of the plane is counted "
                f"where its nearest point of the target’s curve is. Total variation, ½ Σ |p − q| over {BINS} equal "
                "bins, is the share of the mass that would have to be moved. Maps of mass are blurred a little, base "
                "and model on the scale of the target; the dark line in the map of the log-weight is the base’s "
                "support. A dashed line beside base and model is the target’s support, where theirs is another."
            ),
        ),
    )


def _tone(before: float, after: float) -> Tone:
    return "good" if after < before else "bad" if after > before else "plain"
