"""The house stands: folders import upwards only, the package list is complete, files do one thing."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ORDER = ("cluster", "evaluation", "trainer", "sampler", "launch")
GRAB_BAGS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "tools"}

# Folders whose own packages may not be known to some below them, beyond the order.
FORBIDDEN = {
    "cluster": {"torch", "accelerate", "torch_fidelity"},
    "trainer/model": {"ray", "accelerate"},
}


def python_files(folder: str) -> list[Path]:
    return sorted(path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def imported_modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "." * node.level + (node.module or "")
            elif node.module == "gebm":
                yield from (f"gebm.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def wrong_imports(folder: str, path: Path) -> list[str]:
    allowed = {f"gebm.{name}" for name in ORDER[: ORDER.index(folder) + 1]}
    forbidden = set()
    for place, modules in FORBIDDEN.items():
        if path.is_relative_to(ROOT / place):
            forbidden |= modules
    wrong = []
    for module in imported_modules(path):
        parts = module.split(".")
        below = parts[0] == "gebm" and ".".join(parts[:2]) not in allowed
        if below or parts[0] in forbidden or parts[0] in (*ORDER, "tests") or module.startswith("."):
            wrong.append(module)
    return wrong


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_those_above_it_and_by_their_full_names(folder):
    wrong = {
        str(path.relative_to(ROOT)): modules
        for path in python_files(folder)
        if (modules := wrong_imports(folder, path))
    }
    assert not wrong, f"{folder}/ may import gebm.{{{','.join(ORDER[: ORDER.index(folder) + 1])}}}: {wrong}"


def test_the_import_check_catches_each_kind_of_wrong_import(tmp_path):
    file = tmp_path / "room.py"
    file.write_text(
        "import trainer\nfrom gebm import launch\nfrom .x import y\ndef f():\n    import gebm.sampler.ula\n"
    )
    assert wrong_imports("cluster", file) == ["trainer", "gebm.launch", ".x", "gebm.sampler.ula"]
    file.write_text("import torch\nfrom gebm.cluster import storage\nfrom gebm.evaluation.frechet import x\n")
    assert wrong_imports("evaluation", file) == []
    assert "torch" in FORBIDDEN["cluster"]


def test_the_package_list_of_setuptools_is_complete():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {
        "gebm." + ".".join(path.parent.relative_to(ROOT).parts) for folder in ORDER for path in python_files(folder)
    }
    assert set(settings["packages"]) == found
    assert settings["package-dir"] == {f"gebm.{folder}": folder for folder in ORDER}


def test_every_folder_with_python_files_is_a_package():
    missing = {
        str(path.parent.relative_to(ROOT))
        for folder in (*ORDER, "tests")
        for path in python_files(folder)
        if not (path.parent / "__init__.py").exists()
    }
    assert not missing


def test_what_is_not_python_but_needed_at_run_time_is_package_data():
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    covered = {
        path
        for package, patterns in data.items()
        for pattern in patterns
        for path in (ROOT / Path(*package.split(".")[1:])).glob(pattern)
    }
    other = {
        path
        for folder in ORDER
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md")
    }
    assert other == covered


def test_no_file_is_a_grab_bag():
    bags = [
        str(path.relative_to(ROOT))
        for folder in (*ORDER, "tests")
        for path in python_files(folder)
        if path.stem in GRAB_BAGS
    ]
    assert not bags


@pytest.mark.parametrize(("folders", "most"), [(ORDER, 400), (("tests",), 500)])
def test_files_stay_small_enough_to_be_read_in_one_sitting(folders, most):
    long = {
        str(path.relative_to(ROOT)): lines
        for folder in folders
        for path in python_files(folder)
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > most
    }
    assert not long
