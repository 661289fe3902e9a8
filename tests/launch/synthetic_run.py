"""A run directory as the stages leave it, made in a second: real file formats, invented contents."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from gebm.cluster import storage
from gebm.cluster.index import make_index, write_index
from gebm.cluster.manifest import Manifest, write_manifest
from gebm.cluster.shards import write_shard
from gebm.launch.config import Recipe, dump_recipe, load_recipe
from gebm.sampler.diagnostics import describe_chains
from gebm.sampler.work import stored_samples
from gebm.trainer.model import build_model, save_model

Labels = Callable[[int], np.ndarray]
"""From the number of images of a set to their labels `(n,)`."""
COUNTS = (160, 80)
"""Training and test images, unless other images are given."""


def write_run(
    run: str,
    draw_image: Callable[[np.random.Generator], np.ndarray],
    *,
    counts: tuple[int, int] = COUNTS,
    samples: int = 80,
    overrides: tuple[str, ...] = (),
    labels: Labels | None = None,
) -> Recipe:
    """Write a complete run; `draw_image(random)` gives uint8 `(1, 32, 32)`. Returns its recipe.

    Sets of images have the labels `labels(count)`, of ten classes, or none; samples only of a conditional model.
    """
    random = np.random.default_rng(0)
    recipe = load_recipe("mnist", overrides)
    storage.write_bytes_atomic(f"{run}/config.toml", dump_recipe(recipe).encode())
    train, test = (np.stack([draw_image(random) for _ in range(count)]) for count in counts)
    write_set(f"{run}/data/train", train, labels=labels)
    write_set(f"{run}/data/test", test, labels=labels)
    of_samples = labels if recipe.model.conditional else None
    model = build_model(recipe.model, (1, 32, 32), 10 if recipe.model.conditional else None, seed=0)
    digest = save_model(model, recipe.model, f"{run}/model")
    source = np.stack([draw_image(random) for _ in range(samples)])
    write_samples(f"{run}/samples/base", _spoil(source, 1.3, 40, random), digest, of_samples, name="base", steps=0)
    write_samples(f"{run}/samples/model", _spoil(source, 0.7, 12, random), digest, of_samples, name="ula", steps=100)
    write_metrics(run, random)
    storage.write_json_atomic(f"{run}/tune.json", tuning())
    storage.write_json_atomic(f"{run}/evaluation/main.json", evaluation())
    stages = ("data", "train", "tune", "sample base", "sample model", "evaluate")
    seconds = dict(zip(stages, (2.31, 171.4, 64.02, 5.8, 38.3, 66.7), strict=True))
    storage.write_json_atomic(f"{run}/timings.json", seconds)
    return recipe


def write_set(url: str, images: np.ndarray, attempt: str = "", labels: Labels | None = None) -> list[dict[str, Any]]:
    """Write images `(n, channels, height, width)` as an indexed shard set of two shards."""
    records = []
    first = 0
    all_labels = None if labels is None else labels(len(images)).tolist()
    for number, part in enumerate(np.array_split(images, 2)):
        name = f"shard-{number:06d}{attempt}.tar"
        records.append(write_shard(f"{url}/{name}", stored_samples(part, all_labels and all_labels[first:], first)))
        first += len(part)
    shape = (images.shape[1], images.shape[2], images.shape[3])
    write_index(url, make_index(records, shape, classes=10 if labels else None))
    return [record.model_dump(mode="json") for record in records]


def write_samples(url: str, images: np.ndarray, digest: str, labels: Labels | None, *, name: str, steps: int) -> None:
    """Write generated images with the manifest of the sampling farm."""
    random = np.random.default_rng(1)
    recorded = list(range(0, steps + 1, 10))
    fall = 4 * np.exp(-np.array(recorded) / 25)[:, None]
    items = {}
    for record in write_set(url, images, "-try0123456789", labels):
        energies = fall - 3 + random.normal(size=(len(recorded), record["count"]))
        items[record["name"][:12]] = {
            **record,
            "image_shape": [1, 32, 32],
            "diagnostics": describe_chains(recorded, energies, 1.0, 0),
            "chain_seconds": 9.5,
            "seconds": 10.0,
        }
    sampler = load_recipe("mnist").sampler.model_copy(update={"name": name, "steps": max(steps, 1)})
    settings = {
        "kind": "samples",
        "model": digest,
        "sampler": sampler.model_dump(mode="json"),
        "count": len(images),
        "seed": 0,
        "device": "cpu",
    }
    write_manifest(
        url,
        Manifest(settings_digest="0" * 64, settings=settings, total=len(items), complete=True, items=items),
    )


def write_metrics(run: str, random: np.random.Generator) -> None:
    """Write metrics of both phases, a segment each."""
    for first, phase, steps, scale in ((0, "joint", 1200, 1.0), (1200, "energy", 800, 0.4)):
        lines = []
        for step in range(10, steps + 1, 10):
            real, noise = -2 + 2 * np.exp(-step / 200), random.normal(size=4) * 0.15
            gap = (0.6 + 2.5 * np.exp(-step / 300)) * scale + noise[0]
            c = -real - gap * 0.5 + 0.05 * noise[1]
            lines.append(
                {
                    "phase": phase,
                    "round": first + step,
                    "critic_loss": -0.6 * gap + 0.2 * noise[2],
                    **({"base_loss": -c} if phase == "joint" else {}),
                    "energy_real": real,
                    "energy_fake": real + gap,
                    "penalty": 0.1 * gap**2,
                    "log_partition": c,
                    "log_mean_exp": c + 0.3 * noise[3],
                }
            )
        text = "".join(json.dumps(line) + "\n" for line in lines)
        storage.write_bytes_atomic(f"{run}/metrics/values-{first:08d}.jsonl", text.encode())


def evaluation() -> dict[str, Any]:
    """The result of `gebm.evaluation.evaluate` for a run that went well."""

    def test(statistic: float, p_value: float, n: int) -> dict[str, Any]:
        return {"statistic": statistic, "p_value": p_value, "n": n, "m": n, "permutations": 999}

    return {
        "fid_base": 325.41,
        "fid_model": 214.77,
        "fid_ratio": 0.66,
        "fid_ratio_interval": [0.605, 0.715],
        "fid_ratio_bias_corrected": 0.654,
        "kid_base": 0.0612,
        "kid_model": 0.0341,
        "mmd_base": test(0.0317, 0.001, 1000),
        "mmd_model": test(0.0188, 0.001, 1000),
        "mmd_null": test(-0.00021, 0.613, 500),
        "mmd_relative": {"statistic": 0.0129, "p_value": 3.1e-19},
        "n_real": 1000,
        "n_generated": 1000,
        "extractor": {
            "name": "efficientnet-lite0",
            "layer": "320",
            "input_size": 128,
            "weights": "ab" * 32,
            "dimension": 320,
        },
        "warnings": [],
        "details": {"mmd_relative": {"n": 1000, "z": 8.9, "sign_flip_p_value": 0.001}},
    }


def tuning() -> dict[str, Any]:
    """The result of `gebm.launch.tune` for a run where it found something."""
    layout = load_recipe("mnist").sampler.model_dump(mode="json")
    tried = []
    for name, step_size in (("ula", 0.01), ("kla", 0.06)):
        for beta in (1.0, 2.0, 3.0):
            for steps in (50, 100, 200):
                fid = 300 / (1 + 0.2 * beta) + 2000 / steps
                chain = {"name": name, "inverse_temperature": beta, "step_size": step_size, "steps": steps}
                tried.append(
                    {
                        "sampler": {**layout, **chain},
                        "fid": fid,
                        "fid_ratio": fid / 331,
                        "fid_ratio_interval": [fid / 331 - 0.04, fid / 331 + 0.04],
                        "improves": fid / 331 + 0.04 < 1,
                        "energy_gap": 1 / beta - 0.4,
                    }
                )
    best = min(tried, key=lambda row: row["fid"])
    return {
        "format_version": 1,
        "chosen": best["sampler"],
        "improves": True,
        "criterion": "fid",
        "tried": tried,
        "fid_base": 331.0,
        "n_generated": 250,
        "n_validation": 500,
    }


def _spoil(images: np.ndarray, blur: float, noise: float, random: np.random.Generator) -> np.ndarray:
    blurred = gaussian_filter(images.astype(float), (0, 0, blur, blur))
    return np.clip(blurred + noise * random.normal(size=images.shape), 0, 255).astype(np.uint8)


def evaluated_energy(run: str, images: np.ndarray) -> float:
    """Mean energy of images under the run's model."""
    from gebm.trainer.model import from_uint8, load_model

    return load_model(run).energy(from_uint8(torch.from_numpy(images))).mean().item()
