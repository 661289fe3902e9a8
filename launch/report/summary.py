"""`summary.json`: the results of a run for programs, beside the report for people."""

from __future__ import annotations

from typing import Any

from gebm.launch.report.contents import RunContents
from gebm.launch.report.formats import Evaluation

_PLAIN = ("fid_base", "fid_model", "fid_ratio", "fid_ratio_interval", "kid_base", "kid_model")
_TESTS = ("mmd_base", "mmd_model", "mmd_null")
_TEST_KEYS = ("statistic", "p_value", "n", "m", "permutations")
_DIGITS = ("modes_base", "modes_model", "modes_real", "modes_classifier", "labels_base", "labels_model", "labels_real")
_RELATIVE_KEYS = ("statistic", "p_value")


def summarise_run(contents: RunContents, versions: dict[str, str]) -> dict[str, Any]:
    """The summary: always the same keys, null where the run has no such result (yet).

    `fid_ratio_interval` is [low, high]; `seconds` are by stage.
    """
    found = (contents.evaluation or Evaluation()).model_dump(mode="json")
    return {
        **{key: found[key] for key in _PLAIN},
        **{key: _part(found[key], _TEST_KEYS) for key in _TESTS},
        "mmd_relative": _part(found["mmd_relative"], _RELATIVE_KEYS),
        **{key: found[key] for key in _DIGITS},
        "n_real": found["n_real"],
        "n_generated": found["n_generated"],
        "extractor": found["extractor"],
        "likelihood": contents.likelihood.model_dump(mode="json") if contents.likelihood else None,
        "seed": contents.recipe.seed,
        "versions": versions,
        "seconds": contents.seconds,
    }


def _part(result: dict[str, Any] | None, keys: tuple[str, ...]) -> dict[str, Any] | None:
    return None if result is None else {key: result[key] for key in keys}
