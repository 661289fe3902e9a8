"""The numbers: distances of base and model to the data, and what each test asked and answered."""

from __future__ import annotations

from typing import NamedTuple

from gebm.evaluation.extractors import raw
from gebm.evaluation.report import Block, Cell, Column, Columns, Interval, Section, Table, Text, Tone, draw_intervals
from gebm.launch.report.formats import Evaluation, Test
from gebm.launch.report.wording import number, p_value, p_words


def measurements(evaluation: Evaluation, level: float) -> Section:
    """Tables of metrics and tests, and the FID ratio with its interval drawn."""
    blocks: list[Block] = []
    figure = _ratio_figure(evaluation)
    metrics = _metrics_table(evaluation)
    if metrics.rows and figure:
        blocks.append(Columns((metrics, figure), 330))
    elif metrics.rows:
        blocks.append(metrics)
    tests = _tests_table(evaluation, level)
    if tests.rows:
        blocks.append(tests)
        blocks.append(
            Text(
                f"Tests are two-sample tests on the same features, at level {level:g}: under the hypothesis that "
                f"is tested, one in {round(1 / level)} rejects by chance. MMD is the maximum mean discrepancy, "
                "here its unbiased estimate of the square.",
                "note",
            )
        )
    blocks.extend(Text(warning, "warning") for warning in evaluation.warnings)
    return Section("Measurements", tuple(blocks), _lead(evaluation))


def _lead(evaluation: Evaluation) -> str:
    extractor = evaluation.extractor
    if extractor is None:
        return ""
    size = extractor.get("input_size")
    if extractor.get("name") == raw.NAME:
        return "On the values themselves. Distances are comparable only at the same number of samples."
    return (
        f"On features of {extractor.get('name')}"
        + (f", layer {extractor['layer']}" if extractor.get("layer") else "")
        + (f", images brought to {size}×{size} pixels" if size else "")
        + ". Distances are comparable only with the same extractor and the same number of samples."
    )


def _metrics_table(evaluation: Evaluation) -> Table:
    rows = []
    for key, name, note in (
        ("fid", "FID", "Fréchet distance; lower is closer"),
        ("kid", "KID", "kernel distance; lower is closer"),
        ("precision", "Precision", "share of samples that lie among real ones"),
        ("recall", "Recall", "share of real samples that lie among generated ones"),
        ("density", "Density", "real neighbourhoods that a sample lies in, 1 for real ones"),
        ("coverage", "Coverage", "share of real neighbourhoods that samples reach"),
    ):
        base: float | None = getattr(evaluation, f"{key}_base")
        model: float | None = getattr(evaluation, f"{key}_model")
        if base is None and model is None:
            continue
        ratio = evaluation.fid_ratio if key == "fid" else None
        if key == "kid" and base and model and min(base, model) > 0:  # unbiased, so that it may be below 0
            ratio = model / base
        rows.append(
            (
                Cell(name, note),
                _cell(base, "first"),
                _cell(model, "second"),
                Cell("–" if ratio is None else f"{ratio:.2f}"),
            )
        )
    columns = (
        Column("Distance to the data"),
        Column("Generator", "right"),
        Column("Model", "right"),
        Column("Ratio", "right"),
    )
    return Table(columns, tuple(rows), narrow="cards")


def _ratio_figure(evaluation: Evaluation) -> Block | None:
    ratio, interval = evaluation.fid_ratio, evaluation.fid_ratio_interval
    if ratio is None or interval is None:
        return None
    low, high = interval
    corrected = evaluation.fid_ratio_bias_corrected
    words = "" if corrected is None else f" Corrected for the bias of FID at finite n the ratio is {corrected:.2f}."
    tone: Tone = "good" if high < 1 else "bad" if low > 1 else "plain"
    return draw_intervals(
        [Interval("", ratio, low, high, tone)],
        title="FID of the model over FID of its generator",
        x_label="left of the dashed line: the model is closer to the data",
        alt=f"The ratio {ratio:.2f} with its interval from {low:.2f} to {high:.2f}, and a line at 1.",
        caption="95% interval from a paired delete-group jackknife: real, generator’s and model’s samples are left "
        f"out group by group.{words}",
        level=1.0,
    )


class Question(NamedTuple):
    """A test as a reader meets it: `rejected` and `kept` are its two answers, each with its tone."""

    key: str
    asked: str
    kind: str
    rejected: tuple[str, Tone]
    kept: tuple[str, Tone]


_QUESTIONS = (
    Question(
        "mmd_relative",
        "Is the model closer to the data than its own generator?",
        "relative-similarity test, one-sided",
        ("yes", "good"),
        ("not shown", "plain"),
    ),
    Question(
        "mmd_model",
        "Can the model’s samples be told from real ones?",
        "MMD permutation test",
        ("told apart", "plain"),
        ("not told apart", "plain"),
    ),
    Question(
        "mmd_base",
        "Can the generator’s samples be told from real ones?",
        "MMD permutation test",
        ("told apart", "plain"),
        ("not told apart", "plain"),
    ),
    Question(
        "mmd_null",
        "Can real samples be told from other real samples?",
        "the control: two disjoint halves, expected not to reject",
        ("told apart", "bad"),
        ("not told apart", "good"),
    ),
)


def _tests_table(evaluation: Evaluation, level: float) -> Table:
    rows = []
    for question in _QUESTIONS:
        result: Test | None = getattr(evaluation, question.key)
        if result is None:
            continue
        detail = evaluation.details.get(question.key) or {}
        sizes = [number(size) for size in (result.n or detail.get("n"), result.m) if size is not None]
        kind = question.kind
        if result.permutations is not None:
            kind += f", {number(result.permutations)} permutations"
        if (exact := detail.get("sign_flip_p_value")) is not None:
            kind += f"; exact sign flips give {p_words(exact)}"
        words, tone = question.rejected if result.p_value <= level else question.kept
        rows.append(
            (
                Cell(question.asked, kind),
                Cell(" / ".join(sizes) or "–"),
                Cell(number(result.statistic)),
                Cell(p_value(result.p_value)),
                Cell(words, tone=tone),
            )
        )
    columns = (
        Column("What is asked"),
        Column("n / m", "right"),
        Column("Statistic", "right"),
        Column("p-value", "right"),
        Column("Answer"),
    )
    return Table(columns, tuple(rows), narrow="cards")


def _cell(value: float | None, tone: Tone) -> Cell:
    return Cell(number(value), tone=tone if value is not None else "plain")
