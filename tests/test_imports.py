"""Who may import whom, read from the source without running it."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("acquisition", "models", "app")
# Drivers and file formats are slow to load, or may abort: each has one door.
DOORS = {
    "brainflow": {"acquisition/brainflow.py", "acquisition/brainflow_boards.py"},
    "pylsl": {"acquisition/lsl.py"},
    "mne_lsl": {"acquisition/lsl.py"},
    "pyxdf": {"acquisition/recording_xdf.py"},
    "moabb": {"acquisition/recording_moabb.py"},
    "mne": {
        "acquisition/montage.py",
        "acquisition/recording_mne.py",
        "acquisition/make_leadfield.py",  # a script; what it makes is stored
    },
}


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Top-level packages that a file imports anywhere in it, and on which line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            inside = path.relative_to(ROOT).parts[0]
            yield (inside if node.level else (node.module or "").split(".")[0]), node.lineno


def offences(package: str, forbidden: set[str]) -> list[str]:
    return [
        f"{path.relative_to(ROOT)}:{line} imports {name}"
        for path in sources(package)
        for name, line in imports(path)
        if name in forbidden
    ]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_package_is_read(package: str) -> None:
    assert len(sources(package)) > 3


def test_acquisition_knows_neither_models_nor_app_nor_torch() -> None:
    forbidden = {"models", "app", "torch", "diffusers", "transformers"}
    assert offences("acquisition", forbidden) == []


def test_models_know_neither_acquisition_nor_app() -> None:
    assert offences("models", {"acquisition", "app"}) == []


@pytest.mark.parametrize("name", DOORS)
def test_a_driver_is_imported_only_by_its_own_module(name: str) -> None:
    found = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in sources(package)
        if name in {imported for imported, _ in imports(path)}
    }
    assert found <= DOORS[name]


def test_a_forbidden_import_would_be_found() -> None:
    found = {name for name, _ in imports(ROOT / "acquisition" / "montage.py")}
    assert {"mne", "numpy", "acquisition"} <= found
