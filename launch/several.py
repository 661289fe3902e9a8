"""Several models, or several samplers of one, against the same data and the same base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gebm.cluster import storage
from gebm.cluster.errors import InputError
from gebm.cluster.manifest import load_manifest
from gebm.evaluation.evaluate import evaluate_several
from gebm.evaluation.holm import holm
from gebm.evaluation.settings import EvaluationSettings
from gebm.launch.farms import plan_actors
from gebm.launch.progress import Report
from gebm.launch.stages import finished_evaluation, request_of
from gebm.sampler.diagnostics import summarise
from gebm.sampler.evaluations import energy_evaluations
from gebm.sampler.settings import SamplerSettings


def evaluate_models(
    samples: Sequence[str],
    reference: str,
    base: str | None,
    settings: EvaluationSettings,
    report: Report,
    *,
    digits: str | None = None,
    seed: int,
    out: str | None,
    cache: str | None,
    actors: int | None,
) -> dict[str, Any]:
    """Compare every set of `samples` with the reference images and the base's; write the result to `out`.

    `models` has for each what an evaluation of it alone says, and beside that `samples` (its URL), `drawn` (see
    `drawn_by`) and, with a base, `p_value_holm` in `mmd_relative`: its p-value corrected for the number of models. A
    result at `out` that came from the same images, settings and seed is returned as it is.
    Raises `InputError` for a set that is named twice, and as `evaluate`.
    """
    if twice := next((url for number, url in enumerate(samples) if url in samples[:number]), None):
        raise InputError(f"{twice}: given twice; name each set of samples once")
    request = {"models": [request_of(each, reference, base, digits, settings, seed) for each in samples]}
    if out is not None and (found := finished_evaluation(out, request)) is not None:
        return found
    staff = plan_actors(actors)
    models = evaluate_several(
        samples=samples,
        reference=reference,
        base=base,
        digits=digits,
        settings=settings,
        seed=seed,
        cache=cache,
        actors=staff.count,
        gpus_per_actor=staff.gpus,
        progress=report,
    )
    correct_for_their_number(models)
    for url, model in zip(samples, models, strict=True):
        model |= {"samples": url, "drawn": drawn_by(url)}
    shared = ("n_real", "n_generated", "extractor", "fid_base", "kid_base", "modes_base", "modes_real")
    warnings = list(dict.fromkeys(warning for model in models for warning in model["warnings"]))
    result = {
        "models": models,
        **{key: models[0][key] for key in shared},
        "warnings": warnings,
        "request": request,
    }
    if out is not None:
        storage.write_json_atomic(out, result)
    return result


def correct_for_their_number(models: Sequence[dict[str, Any]]) -> None:
    """Add `p_value_holm` to the relative test of each model that has one."""
    tests = [model["mmd_relative"] for model in models if model["mmd_relative"] is not None]
    for test, corrected in zip(tests, holm([test["p_value"] for test in tests]), strict=True):
        test["p_value_holm"] = corrected


def drawn_by(url: str) -> dict[str, Any] | None:
    """How samples were drawn, from the manifest of `gebm sample`; None for a set that comes from elsewhere.

    sampler: its settings. evaluations: of the energy, a sample, with `gradients` and as `values` alone. acceptance,
    nonfinite, energy_mean (at the start and at the end) and actor_seconds: of the whole run.
    Raises `InputError` for the manifest of another version.
    """
    manifest = load_manifest(url)
    if manifest is None or manifest.settings.get("kind") != "samples":
        return None
    try:
        sampler = SamplerSettings.model_validate(manifest.settings["sampler"])
        told = summarise(manifest.items.values())
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise InputError(
            f"{url}: not the manifest of `gebm sample` ({error!r}); remove the folder and sample again"
        ) from error
    return {
        "sampler": sampler.model_dump(mode="json"),
        "model": manifest.settings["model"],
        "evaluations": energy_evaluations(sampler)._asdict(),
        "acceptance": told["acceptance"],
        "nonfinite": told["nonfinite"],
        "energy_mean": [told["energy_mean"][0], told["energy_mean"][-1]],
        "actor_seconds": told["actor_seconds"],
    }
