"""The answer: is the model closer to the data than its own generator? Derived from the figures, and only so far."""

from __future__ import annotations

from typing import Literal, NamedTuple

from gebm.evaluation.report import KeyFigure, Text, Tone, Verdict
from gebm.launch.report.formats import Evaluation, Test
from gebm.launch.report.wording import fixed, missing, number, p_words

Finding = Literal["closer", "further", "open"]


class Findings(NamedTuple):
    """What each of the two measures says by itself; None where it was not taken."""

    fid: Finding | None
    relative: Finding | None


def find(evaluation: Evaluation, level: float) -> Findings:
    """Read the figures.

    FID: the whole interval of the ratio below 1 is closer, above 1 further, else open. Relative-similarity
    test: one-sided, so it can show "closer" (p < level) and nothing else; further is its mirror, p > 1 - level.
    """
    interval = evaluation.fid_ratio_interval
    fid: Finding | None = None
    if interval:
        fid = "closer" if interval[1] < 1 else "further" if interval[0] > 1 else "open"
    p = _p(evaluation.mmd_relative)
    relative: Finding | None = None
    if p is not None:
        relative = "closer" if p < level else "further" if p > 1 - level else "open"
    return Findings(fid, relative)


_WORDS: dict[tuple[Finding | None, Finding | None], tuple[str, str, Tone]] = {
    ("closer", "closer"): (
        "Closer to the data",
        "The model’s samples are closer to the data than its generator’s: {fid}.",
        "good",
    ),
    ("closer", "open"): (
        "Closer by FID, not shown by the test",
        "By FID the model’s samples are closer to the data than its generator’s ({fid}), "
        "but the relative-similarity test does not confirm it.",
        "plain",
    ),
    ("closer", "further"): (
        "The measures disagree",
        "By FID the model’s samples are closer to the data than its generator’s ({fid}); "
        "by the relative-similarity test they are further away.",
        "bad",
    ),
    ("closer", None): (
        "Closer to the data by FID",
        "By FID the model’s samples are closer to the data than its generator’s: {fid}.",
        "good",
    ),
    ("further", "further"): (
        "Further from the data",
        "The model’s samples are further from the data than its generator’s: {fid}.",
        "bad",
    ),
    ("further", "open"): (
        "Further from the data by FID",
        "By FID the model’s samples are further from the data than its generator’s: {fid}.",
        "bad",
    ),
    ("further", "closer"): (
        "The measures disagree",
        "By FID the model’s samples are further from the data than its generator’s ({fid}); "
        "by the relative-similarity test they are closer.",
        "bad",
    ),
    ("further", None): (
        "Further from the data by FID",
        "By FID the model’s samples are further from the data than its generator’s: {fid}.",
        "bad",
    ),
    ("open", "closer"): (
        "Closer by the test, open by FID",
        "By the relative-similarity test the model’s samples are closer to the data than its generator’s, "
        "but the FID ratio leaves it open: {fid}.",
        "plain",
    ),
    ("open", "further"): (
        "Further by the test, open by FID",
        "By the relative-similarity test the model’s samples are further from the data than its generator’s; "
        "the FID ratio leaves it open: {fid}.",
        "bad",
    ),
    ("open", "open"): (
        "Undecided",
        "These samples do not decide whether the model is closer to the data than its generator: {fid}.",
        "plain",
    ),
    ("open", None): (
        "Undecided",
        "These samples do not decide whether the model is closer to the data than its generator: {fid}.",
        "plain",
    ),
    (None, "closer"): (
        "Closer to the data by the test",
        "By the relative-similarity test the model’s samples are closer to the data than its generator’s.",
        "good",
    ),
    (None, "further"): (
        "Further from the data by the test",
        "By the relative-similarity test the model’s samples are further from the data than its generator’s.",
        "bad",
    ),
    (None, "open"): (
        "Undecided",
        "The relative-similarity test does not decide whether the model is closer to the data than its generator.",
        "plain",
    ),
    (None, None): (
        "Not compared",
        "The model’s samples were not compared with its generator’s.",
        "plain",
    ),
}


def judge(evaluation: Evaluation | None, level: float, run: str) -> Verdict | Text:
    """The verdict, or what to run when nothing was evaluated yet."""
    if evaluation is None:
        return missing(
            "Not evaluated yet, so there is no answer to give. This compares the samples with the test set:",
            f"gebm evaluate {run}/samples/model --reference TEST --base {run}/samples/base "
            f"--out {run}/evaluation/main.json",
        )
    label, sentence, tone = _WORDS[tuple(find(evaluation, level))]  # type: ignore[index]
    return Verdict(label, sentence.format(fid=_fid_words(evaluation)), _evidence(evaluation, level), tone)


def key_figures(evaluation: Evaluation) -> tuple[KeyFigure, ...]:
    """The numbers to remember: FID of both sides, their ratio, the relative test."""
    figures = []
    generated, real = number(evaluation.n_generated), number(evaluation.n_real)
    against = f"{generated} generated against {real} real samples"
    if (base := evaluation.fid_base) is not None:
        figures.append(KeyFigure("FID, generator alone", number(base), against, "first"))
    if (model := evaluation.fid_model) is not None:
        figures.append(KeyFigure("FID, model", number(model), against, "second"))
    if (ratio := evaluation.fid_ratio) is not None:
        interval = evaluation.fid_ratio_interval
        note = f"95% interval {_interval_words(interval)}" if interval else ""
        figures.append(KeyFigure("FID ratio, model / generator", f"{ratio:.2f}", note))
    if relative := evaluation.mmd_relative:
        note = "one-sided relative-similarity test"
        figures.append(KeyFigure("Closer than its generator?", p_words(relative.p_value), note))
    return tuple(figures)


def _fid_words(evaluation: Evaluation) -> str:
    ratio, interval = evaluation.fid_ratio, evaluation.fid_ratio_interval
    if ratio is None:
        return "no FID ratio"
    words = f"FID {ratio:.2f} of the generator’s"
    return f"{words}, 95% interval {_interval_words(interval)}" if interval else words


def _interval_words(interval: tuple[float, float]) -> str:
    return f"{fixed(interval[0])} to {fixed(interval[1])}"


def _evidence(evaluation: Evaluation, level: float) -> str:
    sentences = []
    base, model = evaluation.fid_base, evaluation.fid_model
    if base is not None and model is not None:
        sentences.append(
            f"FID is {number(base)} for the generator alone and {number(model)} once the energy has its say, "
            f"{number(evaluation.n_generated)} samples of each against "
            f"{number(evaluation.n_real)} of the test set."
        )
    relative = _p(evaluation.mmd_relative)
    if relative is not None:
        sentences.append(f"The relative-similarity test gives {p_words(relative)}.")
    against = _p(evaluation.mmd_model)
    if against is not None:
        told = against <= level
        sentences.append(
            "The model is not the data, though: an MMD test still tells its samples from real ones."
            if told
            else "An MMD test does not tell the model’s samples from real ones at this sample size."
        )
    null = _p(evaluation.mmd_null)
    if null is not None and null <= level:
        sentences.append(
            f"Beware: the control, real samples against real samples, was rejected too ({p_words(null)}); "
            f"by chance that happens in {level:.0%} of runs."
        )
    return " ".join(sentences)


def _p(test: Test | None) -> float | None:
    return None if test is None else test.p_value
