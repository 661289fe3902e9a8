"""Pictures of a case: where target, base and model have their mass, and what the energy says about it."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure as Drawing
from scipy.ndimage import gaussian_filter

from gebm.launch.data.toy import CURVES, MIXTURES
from gebm.launch.illustration.cases import Case
from gebm.launch.illustration.measure import RIGHT_SUPPORT, Measurement, log_weight

PAPER, INK, MUTED = "#fbfaf7", "#1c1b19", "#67635b"
TARGET, BASE, MODEL = "#3d3b36", "#c05a0c", "#1560ac"  # the report's tones: reference, first, second
MASS_MAP = colormaps["PRGn"]  # purple: less mass than the base, green: more
PIXELS = 260  # a side of the maps of mass and energy
BLUR = 1.7  # pixels, of the maps of mass: a curve alone would be too thin to see
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
}


class Panel(NamedTuple):
    """title: above it; alt: what is to be seen; draw: into axes of its own."""

    title: str
    alt: str
    draw: Callable[[Axes], None]


def panels(measured: Measurement) -> tuple[Panel, ...]:
    """Target, base, learnt log-weight and re-weighted model, in this order."""
    draw_mass, draw_energy = (
        (_mass_on_the_line, _energy_on_the_line) if measured.toy in MIXTURES else (_mass_in_plane, _energy_in_plane)
    )
    ones = np.ones(len(measured.base))
    return (
        Panel("Target", "where the data has its mass", lambda axes: draw_mass(axes, measured, measured.target, ones)),
        Panel(
            "Base",
            "where the base has its mass",
            lambda axes: draw_mass(axes, measured, measured.base, ones, BASE),
        ),
        Panel(
            "Learnt log-weight, −E − c",
            "green where the energy gives more mass than the base has, purple where less",
            lambda axes: draw_energy(axes, measured),
        ),
        Panel(
            "Re-weighted model",
            "where the base has its mass after weighting by exp(−E − c)",
            lambda axes: draw_mass(axes, measured, measured.base, measured.weights, MODEL),
        ),
    )


def case_picture(case: Case, measured: Measurement) -> bytes:
    """All panels of a case in a row, and the mass along the line or curve, as PNG."""
    with rc_context(STYLE):
        drawing = Drawing(figsize=(17, 4.2), dpi=110, facecolor=PAPER, layout="constrained")
        FigureCanvasAgg(drawing)
        every = drawing.subplots(1, 5, width_ratios=[1, 1, 1, 1, 1.15])
        for axes, panel in zip(every, panels(measured), strict=False):
            panel.draw(axes)
            axes.set_title(panel.title, fontsize=12, loc="left")
        _mass_in_bins(every[-1], measured)
        drawing.suptitle(case.title, x=0.008, ha="left", fontsize=17, fontfamily="serif", fontweight="bold")
        return _png(drawing)


def panel_picture(panel: Panel) -> bytes:
    """One panel alone, without its title, as PNG."""
    with rc_context(STYLE):
        drawing = Drawing(figsize=(3.4, 3.4), dpi=140, facecolor=PAPER, layout="constrained")
        FigureCanvasAgg(drawing)
        panel.draw(drawing.subplots())
        return _png(drawing)


def _mass_on_the_line(
    axes: Axes, measured: Measurement, points: np.ndarray, weights: np.ndarray, colour: str = TARGET
) -> None:
    """A density; over that of base and model the target's outline."""
    low, high = _line_limits(measured)
    bins = np.linspace(low, high, 111)
    outline, _ = np.histogram(measured.target[:, 0], bins, density=True)
    heights, _ = np.histogram(points[:, 0], bins, weights=weights, density=True)
    axes.stairs(heights, bins, fill=True, color=colour, alpha=0.32)
    axes.stairs(heights, bins, color=colour, linewidth=1.4)
    if points is not measured.target:
        axes.stairs(outline, bins, color=TARGET, linewidth=1.2, linestyle=(0, (2, 1.5)), label="target")
        axes.legend(frameon=False, loc="upper left", fontsize=9, handlelength=1.4, borderaxespad=0.1)
    highest = max(np.histogram(side[:, 0], bins, density=True)[0].max() for side in (measured.target, measured.base))
    axes.set(xlim=(low, high), ylim=(0, 1.18 * highest), yticks=[], box_aspect=1, facecolor=PAPER)
    _bare(axes, "bottom")


def _energy_on_the_line(axes: Axes, measured: Measurement) -> None:
    """`-E - c` over the line, filled in the colour of its sign, and the exact `log dP/dQ` dashed."""
    low, high = _line_limits(measured)
    x = np.linspace(low, high, 500)
    learnt = log_weight(measured.model, x[:, None])
    exact = measured.exact_log_ratio(x) if measured.exact_log_ratio else None
    most = 1.5 * float(np.quantile(np.abs(np.log(measured.weights)), 0.99))
    shape = axes.fill_between(x, learnt, 0, color="none")
    image = axes.imshow(
        np.linspace(most, -most, 256)[:, None],
        extent=(low, high, -most, most),
        aspect="auto",
        cmap=MASS_MAP,
        vmin=-most,
        vmax=most,
    )
    image.set_clip_path(shape.get_paths()[0], transform=axes.transData)
    axes.plot(x, learnt, color=INK, linewidth=1.6, label="learnt")
    if exact is not None:
        axes.plot(x, exact, color=INK, linewidth=1.1, linestyle=(0, (2, 1.5)), label="exact")
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.legend(frameon=False, loc="lower left", fontsize=9, handlelength=1.4, ncols=2, borderaxespad=0.1)
    axes.set(xlim=(low, high), ylim=(-most, most), box_aspect=1, facecolor=PAPER)
    axes.text(0.98, 0.96, "more mass", transform=axes.transAxes, ha="right", va="top", color="#1b7837", fontsize=9)
    axes.text(0.98, 0.04, "less mass", transform=axes.transAxes, ha="right", color="#762a83", fontsize=9)
    _bare(axes, "bottom", "left")


def _mass_in_plane(
    axes: Axes, measured: Measurement, points: np.ndarray, weights: np.ndarray, colour: str = TARGET
) -> None:
    """A map of the mass; base and model on the scale of the target, whose support is shown where theirs is another."""
    low, high = _square(measured)
    limits = [(low[0], high[0]), (low[1], high[1])]

    def mass(points: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
        counts, _, _ = np.histogram2d(points[:, 0], points[:, 1], PIXELS, limits, weights=weights)
        return gaussian_filter(counts / counts.sum(), BLUR)

    scale = np.quantile(mass(measured.target)[mass(measured.target) > 0], 0.985)
    shown = np.clip(mass(points, weights) / scale, 0, 1)
    tint = LinearSegmentedColormap.from_list("tint", [PAPER, colour])
    axes.imshow(shown.T, origin="lower", extent=(*limits[0], *limits[1]), cmap=tint, vmin=0, vmax=1)
    if points is not measured.target and measured.base_distance > RIGHT_SUPPORT:
        axes.plot(*CURVES[measured.toy](np.linspace(0, 1, 400)), color=TARGET, linewidth=0.8, linestyle=(0, (4, 3)))
    _frame(axes)


def _energy_in_plane(axes: Axes, measured: Measurement) -> None:
    """`-E - c` over the plane, 0 in the middle of the colours, and the support of the base as a line."""
    low, high = _square(measured)
    x, y = np.linspace(low[0], high[0], PIXELS), np.linspace(low[1], high[1], PIXELS)
    plane = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    values = log_weight(measured.model, plane).reshape(PIXELS, PIXELS)
    most = float(np.quantile(np.abs(np.log(measured.weights)), 0.95))
    image = axes.imshow(
        values,
        origin="lower",
        extent=(x[0], x[-1], y[0], y[-1]),
        cmap=MASS_MAP,
        vmin=-most,
        vmax=most,
        interpolation="bilinear",
    )
    axes.scatter(measured.base[:4000, 0], measured.base[:4000, 1], s=1.2, color=INK, alpha=0.5, linewidths=0)
    scale = axes.inset_axes((0.0, -0.075, 1.0, 0.035))
    axes.figure.colorbar(image, cax=scale, orientation="horizontal", ticks=[-most, 0, most]).outline.set_visible(False)
    scale.set_xticklabels([f"−{most:.1f}: less mass", "0", f"+{most:.1f}: more mass"], fontsize=8.5)
    outer = scale.get_xticklabels()
    outer[0].set_horizontalalignment("left")
    outer[-1].set_horizontalalignment("right")
    scale.tick_params(length=0)
    _frame(axes)


def _mass_in_bins(axes: Axes, measured: Measurement) -> None:
    """The shares of target, base and model in the bins in which the error is counted."""
    axes.stairs(measured.target_shares, measured.edges, fill=True, color=TARGET, alpha=0.18, label="target")
    axes.stairs(measured.base_shares, measured.edges, color=BASE, linewidth=1.5, label="base")
    axes.stairs(measured.model_shares, measured.edges, color=MODEL, linewidth=2, label="model")
    axes.legend(frameon=False, fontsize=9, handlelength=1.2, loc="upper right")
    axes.set(xlim=measured.edges[[0, -1]], yticks=[], facecolor=PAPER, box_aspect=0.87)
    axes.set_ylim(0, 1.2 * max(measured.target_shares.max(), measured.base_shares.max(), measured.model_shares.max()))
    where = "on the line" if measured.toy in MIXTURES else "along the curve"
    axes.set_title(f"Mass {where}: off by {measured.error_before:.2f} → {measured.error_after:.2f}", loc="left")
    _bare(axes, "bottom")


def _line_limits(measured: Measurement) -> tuple[float, float]:
    return float(measured.edges[0]), float(measured.edges[-1])


def _square(measured: Measurement) -> tuple[np.ndarray, np.ndarray]:
    """Lower left and upper right corner of a square around target and base."""
    both = np.concatenate([measured.target, measured.base])
    low, high = both.min(axis=0), both.max(axis=0)
    half = 0.58 * (high - low).max()
    return (low + high) / 2 - half, (low + high) / 2 + half


def _frame(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    _bare(axes)


def _bare(axes: Axes, *kept: str) -> None:
    for name, spine in axes.spines.items():
        spine.set_visible(name in kept)
        spine.set_color(MUTED)


def _png(drawing: Drawing) -> bytes:
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", facecolor=PAPER)
    return buffer.getvalue()
