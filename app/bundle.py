"""Where a bundle lies and what EEG it was made for, without loading torch."""

from __future__ import annotations

import json
from pathlib import Path

from acquisition.epoch_spec import EpochSpec
from acquisition.errors import EpochSpecError
from app.settings import ROOT
from models.errors import BundleError

# Folder of the pictures that are presented with a bundle.
STIMULI = "stimuli"


def find_bundle(name: str) -> Path:
    """The folder of a bundle: as given, or else beside the program.

    Raises
    ------
    BundleError
        There is no such folder.
    """
    places = [Path(name).expanduser(), ROOT / name]
    for place in places:
        if place.is_dir():
            return place.resolve()
    raise BundleError(
        f"There is no bundle at {places[0].absolute()}. Give the folder of one with --bundle; "
        "weights/scale-model is the one that comes with the program."
    )


def find_stimuli(bundle: Path) -> Path | None:
    """The folder of the pictures that a bundle's simulated subject is shown, if it has one."""
    folder = bundle / STIMULI
    return folder if (folder / "stimuli.json").is_file() else None


def read_epoch_spec(bundle: Path) -> EpochSpec:
    """What `epoch_spec.json` of a bundle says; `read_epoch_spec_file` for the errors."""
    return read_epoch_spec_file(bundle / "epoch_spec.json")


def read_epoch_spec_file(path: Path) -> EpochSpec:
    """An epoch specification from its file.

    Raises
    ------
    BundleError
        The file is missing or does not hold an epoch specification.
    """
    try:
        return EpochSpec.from_dict(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise BundleError(
            f"{path} cannot be read ({error.strerror}). Give the folder of a whole bundle with "
            "--bundle."
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError, EpochSpecError) as error:
        raise BundleError(
            f"{path} does not hold an epoch specification ({error}). "
            "Fetch the bundle again, or give another with --bundle."
        ) from error
