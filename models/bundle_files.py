"""A bundle's files: whether they are whole, and which; without torch, so in milliseconds."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

from models.errors import BundleError

NEEDED = ("model_index.json", "epoch_spec.json")


def check_bundle(folder: Path) -> None:
    """Refuse a folder that holds no bundle, or one that was not copied whole.

    Every JSON file must hold an object, every safetensors file as long as its header says, and
    every component that the index names must be there. Whether the parts fit each other
    shows only when they are loaded.

    Raises
    ------
    BundleError
        Says which file, and what is wrong with it.
    """
    for name in NEEDED:
        if not (folder / name).is_file():
            raise BundleError(
                f"{folder} is not a bundle: it has no {name}. "
                "The embedded one is weights/scale-model; give another with --bundle."
            )
    for path in sorted(folder.rglob("*.json")):
        _read(path)
    for path in sorted(folder.rglob("*.safetensors")):
        _check_weights(path)
    for name, value in _read(folder / "model_index.json").items():
        is_component = isinstance(value, list) and None not in value
        if is_component and not name.startswith("_"):
            _check_component(folder / name)


def folder_digest(folder: Path) -> str:
    """SHA-256 of everything in a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}). Check its rights.") from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}). Copy the bundle again.") from error
    if not isinstance(content, dict):
        raise BundleError(f"{path} does not hold a JSON object. Copy the bundle again.")
    return content


def _check_component(folder: Path) -> None:
    if not folder.is_dir():
        missing = "it is named in model_index.json"
    # Schedulers have no weights, and call their file otherwise.
    elif (folder / "config.json").is_file() and not any(folder.glob("*.safetensors")):
        missing = "it has no weights (*.safetensors)"
    else:
        return
    raise BundleError(
        f"The bundle {folder.parent} lacks its {folder.name}: {missing}. Copy it again."
    )


def _check_weights(path: Path) -> None:
    """Compare a safetensors file's length with what its header says of the tensors."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (n_header,) = struct.unpack("<Q", file.read(8))
            # A length that makes no sense must not become a read of so many bytes.
            header = json.loads(file.read(min(n_header, size)))
        ends = [t["data_offsets"][1] for name, t in header.items() if name != "__metadata__"]
        expected = 8 + n_header + max(ends, default=0)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}). Check its rights.") from error
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise BundleError(
            f"{path} does not hold weights: its header is damaged. Copy the bundle again."
        ) from error
    if size != expected:
        raise BundleError(
            f"{path} has {size} bytes, but its header promises {expected}. Copy the bundle again."
        )
