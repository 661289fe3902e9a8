"""A picture of the witness function, in the style of the report page."""

import numpy as np

from gebm.evaluation.report.blocks import Figure
from gebm.evaluation.report.figures import Line, Points, Values, draw_histograms, draw_lines, draw_points
from gebm.evaluation.two_sample.kernels import Bandwidth
from gebm.evaluation.two_sample.samples import Sample, as_samples
from gebm.evaluation.two_sample.witness import witness, witness_of_samples

CURVE_POINTS = 400
CURVE_MARGIN = 0.1  # of the range of the points, beyond it on each side
CLEARLY_DIFFERENT = 0.5  # of the largest witness in size: points beyond stand out in the plane


def draw_witness(
    x: Sample,
    y: Sample,
    *,
    labels: tuple[str, str] = ("x", "y"),
    kernel: str = "gaussian",
    bandwidth: Bandwidth = "median",
    seed: int = 0,
) -> Figure:
    """Where `x` `(n, d)` and `y` `(m, d)` differ: on a line the function itself, in a plane the points that stand
    out, in more dimensions the witness's values at either sample's points.

    Args:
        x: a sample.
        y: another.
        labels: what the two are called.
        kernel: as for `mmd_test`.
        bandwidth: as for `mmd_test`.
        seed: of the bandwidth's subsample.

    Raises:
        InputError: samples that cannot be compared.
    """
    points_x, points_y = (side.cpu().numpy() for side in as_samples({"x": x, "y": y}, None))
    at = witness_of_samples(x, y, kernel=kernel, bandwidth=bandwidth, seed=seed)
    title = f"Where {labels[0]} and {labels[1]} differ"
    signs = f"Above zero where {labels[0]} is denser, below where {labels[1]} is."
    if points_x.shape[1] == 1:
        low, high = min(points_x.min(), points_y.min()), max(points_x.max(), points_y.max())
        margin = CURVE_MARGIN * (high - low) or 1.0
        line = np.linspace(low - margin, high + margin, CURVE_POINTS)
        curve = witness(line[:, None], x, y, kernel=kernel, bandwidth=bandwidth, seed=seed)
        return draw_lines(
            [Line("witness", line, curve)],
            title=title,
            x_label="value",
            alt=f"The witness function; largest, {curve.max():.2g}, at {line[curve.argmax()]:.3g}, where {labels[0]} "
            f"is denser; smallest, {curve.min():.2g}, at {line[curve.argmin()]:.3g}, where {labels[1]} is.",
            caption=signs,
            level=0.0,
        )
    if points_x.shape[1] == 2:
        both, values = np.concatenate([points_x, points_y]), np.concatenate([at.at_x, at.at_y])
        bound = CLEARLY_DIFFERENT * np.abs(values).max()
        more_x, more_y = values > bound, values < -bound
        rest = ~(more_x | more_y)
        names = ("little difference", f"more {labels[0]}", f"more {labels[1]}")
        tones = ("plain", "first", "second")
        clouds = [
            Points(name, both[chosen, 0], both[chosen, 1], tone)  # type: ignore[arg-type]
            for name, chosen, tone in zip(names, (rest, more_x, more_y), tones, strict=True)
        ]
        return draw_points(
            clouds,
            title=title,
            x_label="first coordinate",
            y_label="second coordinate",
            alt=f"{more_x.sum()} points where {labels[0]} is clearly denser, {more_y.sum()} where {labels[1]} is, of "
            f"{len(both)}.",
            caption=f"Clearly: the witness is beyond {CLEARLY_DIFFERENT:.0%} of its largest value.",
        )
    return draw_histograms(
        [Values(labels[0], at.at_x, "first"), Values(labels[1], at.at_y, "second")],
        title=title,
        x_label="witness",
        alt=f"Witness at the points of {labels[0]}, mean {at.at_x.mean():.2g}, and of {labels[1]}, mean "
        f"{at.at_y.mean():.2g}.",
        caption=signs,
    )
