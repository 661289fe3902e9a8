"""What the energy does: along the chains, and on real, generated and model images."""

from __future__ import annotations

import math

import numpy as np
import torch

from gebm.evaluation.report import (
    Block,
    Cell,
    Column,
    Columns,
    KeyFigure,
    KeyFigures,
    Line,
    Section,
    Table,
    Tone,
    Values,
    draw_histograms,
    draw_lines,
)
from gebm.evaluation.report.blocks import Figure
from gebm.launch.report.contents import RunContents, SampleSet
from gebm.launch.report.pictures import sampler_words
from gebm.launch.report.wording import missing, number
from gebm.trainer.model import GEBM, from_stored, load_model

BATCH = 250


def chains_section(contents: RunContents) -> Section:
    """Energy along the chains, histograms of energy on the three sets, diagnostics of the sampler."""
    drawings: list[Block] = []
    after: list[Block] = []
    if contents.model is not None and len(contents.model.diagnostics["recorded_steps"]) > 1:
        drawings.append(_trace_figure(contents.model))
    if contents.model_digest is not None:
        if energies := energies_of(contents):
            drawings += [_histogram_figure(energies), _energy_table(energies)]
    else:
        command = f"gebm train RECIPE --out {contents.run}"
        after.append(missing("No trained model here, so no energies. This trains one:", command))
    blocks: list[Block] = [Columns(tuple(drawings), 300)] if drawings else []
    if contents.model is not None:
        after.append(_diagnostics(contents.model))
    lead = "The energy is low where the model holds data to be likely; chains walk downhill in it, with noise."
    return Section("The energy at work", tuple(blocks + after), lead)


def energies_of(contents: RunContents) -> dict[str, np.ndarray]:
    """`E(x)` `(n,)` of the stored images by the name of their set. Real comes first."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = load_model(contents.run, device=device)
    sets: dict[str, tuple[np.ndarray, np.ndarray | None]] = {}
    if contents.real is not None:
        sets["real"] = (contents.real, contents.real_labels)
    for name, samples in (("generator", contents.base), ("model", contents.model)):
        if samples is not None:
            sets[name] = (samples.images, samples.labels)
    return {
        name: _energies(model, images, labels if model.classes is not None else None, device)
        for name, (images, labels) in sets.items()
        if images.shape[1:] == tuple(model.image_shape) and (model.classes is None or labels is not None)
    }


def _energies(model: GEBM, images: np.ndarray, labels: np.ndarray | None, device: str) -> np.ndarray:
    dtype = next(model.parameters()).dtype
    found = []
    with torch.inference_mode():
        for first in range(0, len(images), BATCH):
            batch = from_stored(torch.from_numpy(images[first : first + BATCH]).to(device), dtype)
            of_batch = None if labels is None else torch.from_numpy(labels[first : first + BATCH]).to(device)
            found.append(model.energy(batch, of_batch).cpu().double())
    return torch.cat(found).numpy()


_SETS: dict[str, tuple[str, Tone]] = {
    "real": ("real", "reference"),
    "generator": ("generator", "first"),
    "model": ("model", "second"),
}


def _trace_figure(model: SampleSet) -> Figure:
    trace = model.diagnostics
    steps = trace["recorded_steps"]
    mean, spread = (_floats(trace[key]) for key in ("energy_mean", "energy_std"))
    change = trace["energy_change"]
    words = "" if change is None else f" from {number(mean[0])} to {number(mean[-1])}"
    return draw_lines(
        [Line("mean energy", steps, mean, "second", (mean - spread, mean + spread))],
        title="Energy along the chains",
        x_label="steps",
        alt=f"Mean energy of {trace['count']} chains against the step; it goes{words or ' out of range'}.",
        caption=f"Mean over {trace['count']:,} chains that start at the prior{words and ', ' + words.strip()}; "
        "the band is one standard deviation between chains.",
    )


def _histogram_figure(energies: dict[str, np.ndarray]) -> Figure:
    values = [Values(_SETS[name][0], energies[name], _SETS[name][1]) for name in energies]
    means = ", ".join(f"{_SETS[name][0]} {number(float(np.mean(energies[name])))}" for name in energies)
    return draw_histograms(
        values,
        title="Energy of real and generated samples",
        x_label="energy",
        alt=f"Histograms of the energy; means: {means}.",
        caption="A model that matched the data would spread its energies as the data does.",
    )


def _energy_table(energies: dict[str, np.ndarray]) -> Table:
    rows = tuple(
        (
            Cell(_SETS[name][0], f"{len(values):,} samples", _SETS[name][1]),
            Cell(number(float(np.mean(values)))),
            Cell(number(float(np.std(values)))),
        )
        for name, values in energies.items()
    )
    columns = (Column("Energy of"), Column("Mean", "right"), Column("Std. dev.", "right"))
    return Table(columns, rows)


def _diagnostics(model: SampleSet) -> KeyFigures:
    found, sampler = model.diagnostics, model.settings["sampler"]
    figures = [
        KeyFigure("Sampler", str(sampler.get("name")).upper(), sampler_words(model)),
        KeyFigure("Mean acceptance", number(found["acceptance"]), "1 where every step is accepted"),
        KeyFigure(
            "Split-R̂ of the energy",
            number(found["energy_r_hat"], 4),
            "second half of the chains; near 1 when they have forgotten their start"
            if found["energy_r_hat"] is not None
            else "not defined: the second half of the chains has fewer than four records, or one that is not finite",
        ),
        KeyFigure(
            "Effective sample size of the energy",
            f"{number(_whole(found['energy_ess_bulk']))} bulk, {number(_whole(found['energy_ess_tail']))} tail",
            f"second half of the chains; bulk, {number(found['energy_ess_per_second'])} a second of one actor",
        ),
        KeyFigure("Mean energy moved by", number(found["energy_change"]), "from the prior to the samples"),
        KeyFigure("Proposals that were not finite", number(found["nonfinite"])),
        *(_finding(name, values) for name, values in found["found"].items() if name in _FOUND),
    ]
    if sampler.get("precision") == "bfloat16":
        told = "of bfloat16 against float32, in nats; acceptance is by float32"
        figures.append(KeyFigure("Largest error of the potential", number(found["potential_error"]), told))
    if (run := model.summary) is not None and run.samples:
        told = f"by {len(run.actors)} actors in {run.seconds:,.0f} s; {run.chain_share:.0%} of their time in chains"
        figures.append(KeyFigure("Samples drawn", f"{number(run.rate)} a second", told))
    return KeyFigures(tuple(figures))


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


_FOUND = {
    "step_size": ("Tuned step size", "mean over batches of chains; at each temperature, the coldest first"),
    "scale": ("Scales of the coordinates", "the smallest and the largest that warm-up measured"),
    "swap_acceptance": ("Exchanges of replicas", "acceptance between neighbouring temperatures, the coldest first"),
    "effective_share": ("Effective share of the draws", "of prior draws under their importance weights"),
    "largest_weight": ("Largest weight", "of one prior draw among all of its batch"),
}


def _finding(name: str, values: list[float]) -> KeyFigure:
    label, words = _FOUND[name]
    return KeyFigure(label, ", ".join(number(value) for value in values), words)


def _floats(values: list[float | None]) -> np.ndarray:
    return np.array([math.nan if value is None else value for value in values], dtype=np.float64)
