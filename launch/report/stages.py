"""The same chains at several stages, a block of rows for each friction."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Drawing

from gebm.evaluation.report import Block, Columns, Head, ImageGrid, Section, Text
from gebm.evaluation.report.tiles import tile
from gebm.launch.chain_stages import ChainStages, read_stages
from gebm.launch.report.contents import RunContents
from gebm.launch.report.wording import number


def stages_section(contents: RunContents) -> Section | None:
    """Rows of images; None where `gebm chains` was not run."""
    found = read_stages(contents.run)
    if found is None:
        return None
    stages, images = found
    if contents.model_digest not in (None, stages.model):
        words = "These chains are of another model than the run now holds: run `gebm chains` again."
        return Section("Chains at several stages", (Text(words, "warning"),))
    grids: tuple[Block, ...] = tuple(
        ImageGrid(
            block.reshape(-1, *block.shape[2:]),
            block.shape[1],
            f"{len(block)} chains, a row each, at friction {friction:g}; from left to right their images after "
            f"{', '.join(map(str, stages.steps))} steps.",
            f"Friction {friction:g}",
            f"Mean energy from {number(energy[0])} to {number(energy[-1])}; from one stage to the next a pixel changes "
            f"by {moved:.0f} of 255 grey levels (root mean square).",
            heads=tuple(Head(f"{step:,}", 1) for step in stages.steps),
        )
        for friction, block, energy, moved in zip(stages.frictions, images, stages.energy, stages.moved, strict=True)
    )
    sampler = stages.sampler
    lead = (
        f"A chain a row, its image after so many steps of KLA (inverse temperature {sampler.inverse_temperature:g}, "
        f"step size {sampler.step_size:.3g}). Chains of all frictions start from the same latents with the same noise: "
        "at high friction they diffuse, at low friction they keep their velocity and run from mode to mode."
    )
    return Section("Chains at several stages", (Columns(grids, 420),), lead)


def stages_picture(stages: ChainStages, images: np.ndarray) -> bytes:
    """The same as one PNG: a block of rows for each friction, the number of steps over its columns.

    images: uint8 `(frictions, chains, stages, channels, height, width)`.
    """
    chains, columns = images.shape[1:3]
    size = 0.62  # inches, of one image
    drawing = Drawing(figsize=(size * columns + 0.4, (size * chains + 0.75) * len(images)), dpi=150)
    FigureCanvasAgg(drawing)
    axes = drawing.subplots(len(images), 1, squeeze=False)[:, 0]
    for ax, friction, block in zip(axes, stages.frictions, images, strict=True):
        picture = tile(block.reshape(-1, *block.shape[2:]), columns)
        ax.imshow(picture, interpolation="nearest")
        width = picture.shape[1] / columns
        ax.set_xticks([(column + 0.5) * width for column in range(columns)], [f"{step:,}" for step in stages.steps])
        ax.xaxis.tick_top()
        ax.set_yticks([])
        ax.tick_params(length=0, labelsize=8)
        ax.set_frame_on(False)
        ax.set_title(f"friction {friction:g}", loc="left", fontsize=10)
    drawing.tight_layout()
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png")
    return buffer.getvalue()
