"""THINGS-EEG2 as its authors preprocessed it: a dictionary of arrays for each subject and part.

Gifford et al., "A large and rich EEG dataset for modeling human visual object recognition",
NeuroImage 264 (2022), doi 10.1016/j.neuroimage.2022.119754. 16,540 training images (1654
concepts of 10) were shown 4 times, 200 test images of other concepts 80 times, in rapid
succession and in random order. The arrays are sorted by image: session and time of a
repetition are no longer told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.errors import RecordingError
from acquisition.parameters import check_parameters, flag, whole_numbers
from app.epoch_shards import PreparedEpoch
from app.numpy_pickle import read_numpy_pickle
from app.skipped import Skipped
from app.stimulus_images import StimulusImages
from app.trials import Facts, TrialCutter, TrialSet

NAME = "THINGS-EEG2"
# Part, its names in the metadata and among the images, and its split.
PARTS = {"training": ("train", "training_images", 0), "test": ("test", "test_images", 2)}


@dataclass(frozen=True, slots=True)
class _Part:
    """The trials of one part; `names` are concept and file of each image."""

    eeg: np.ndarray
    names: list[tuple[str, str]]
    folder: str
    split: int


def open_things_eeg2(
    target: str,
    parameters: dict[str, str],
    spec: EpochSpec,
    pictures: StimulusImages | None,
    skipped: Skipped,
) -> TrialSet:
    """Open `things-eeg2:FOLDER?images=FOLDER&subject=1`.

    Parameters
    ----------
    target : folder of a subject with `preprocessed_eeg_training.npy` and `_test.npy`.
    parameters : `images` (with `training_images`, `test_images`), `metadata`
        (`image_metadata.npy`, by default in the folder of images), `subject` (a number for
        the column), `part` (`training` or `test` alone), `average` ("true": the mean of each
        image's repetitions as one trial).
    pictures : where the images go; None where `images` is not given.

    Raises
    ------
    SourceError, MontageError
    """
    known = ("images", "metadata", "subject", "part", "average")
    check_parameters("things-eeg2:", parameters, known)
    subject = whole_numbers({"subject": parameters.get("subject", "0")})["subject"]
    is_averaged = flag("average", parameters.get("average", "false"))
    images = Path(parameters.get("images", "")).expanduser()
    metadata = parameters.get("metadata", str(images / "image_metadata.npy"))
    wanted = [parameters["part"]] if "part" in parameters else list(PARTS)
    if not set(wanted) <= set(PARTS):
        raise RecordingError(f"part is '{wanted[0]}'; expected training or test.")
    listed = read_numpy_pickle(Path(metadata).expanduser())
    folder = Path(target).expanduser()
    parts, cutter = [], None
    for part in wanted:
        path = folder / f"preprocessed_eeg_{part}.npy"
        eeg, ch_names, times = _arrays(path)
        short, images_folder, split = PARTS[part]
        parts.append(_Part(eeg, _names(listed, short, path, len(eeg)), images_folder, split))
        sfreq = round((len(times) - 1) / float(times[-1] - times[0]), 6)
        cutter = TrialCutter(NAME, spec, ch_names, sfreq, float(times[0]), None)
    assert cutter is not None
    labels = {c: n for n, c in enumerate(sorted({c for p in parts for c, _ in p.names}))}

    def epochs() -> Iterator[tuple[PreparedEpoch, dict[str, int]]]:
        place = 0
        for part in parts:
            for number, (concept, file) in enumerate(part.names):
                image_id: int | None = place
                place += 1
                if pictures is not None:
                    path = images / part.folder / concept / file
                    caption = words(concept)
                    image_id = pictures.id_of(path, labels[concept], caption)
                if image_id is None:
                    continue
                trials = part.eeg[number]
                if is_averaged:
                    trials = trials.mean(axis=0, keepdims=True)
                for trial in trials:
                    yield (
                        PreparedEpoch(
                            eeg=cutter.cut(trial),
                            label=labels[concept],
                            image_id=image_id,
                            t_onset=float("nan"),
                            is_locked=True,
                            split=part.split,
                        ),
                        {"subject": subject, "session": -1, "run": -1},
                    )

    notes = [
        "Trials are filtered and whitened by their authors (multivariate noise normalisation), "
        f"so they have no unit; cut so: {cutter.treatment}.",
        "Training and test concepts differ; the split is the authors'.",
    ]
    if is_averaged:
        notes.append("Each trial is the mean of its image's repetitions: not what is seen live.")
    if pictures is None:
        notes.append("No images were given: image_id counts the images in the metadata's order.")
    facts = Facts(
        labels=labels,
        units=cutter.units,
        is_block_design=False,
        notes=tuple(notes),
        licence="as stated where it was fetched (osf.io/3jk45); the images, as THINGS states",
        citation="Gifford et al., NeuroImage 264, 2022, doi 10.1016/j.neuroimage.2022.119754",
    )
    return TrialSet(epochs(), facts, cutter.treatment, cutter.fidelity, skipped)


def words(concept: str) -> str:
    """A concept's name without its number.

    >>> words("00012_alligator_clip")
    'alligator clip'
    """
    return re.sub(r"^\d+_", "", concept).replace("_", " ")


def _arrays(path: Path) -> tuple[np.ndarray, tuple[str, ...], np.ndarray]:
    """EEG (images, repetitions, channels, times), names of the channels, seconds."""
    data = read_numpy_pickle(path)
    keys = ("preprocessed_eeg_data", "ch_names", "times")
    if not isinstance(data, dict) or not set(keys) <= set(data):
        raise RecordingError(f"{path.name} expects {', '.join(keys)}. Fetch the file again.")
    eeg, ch_names = data["preprocessed_eeg_data"], tuple(map(str, data["ch_names"]))
    times = np.asarray(data["times"], np.float64)
    is_right = isinstance(eeg, np.ndarray) and eeg.ndim == 4 and eeg.shape[2] == len(ch_names)
    if not is_right or len(times) < eeg.shape[3]:
        found = getattr(eeg, "shape", type(eeg).__name__)
        raise RecordingError(
            f"{path.name} expects EEG of shape (images, repetitions, {len(ch_names)} channels, "
            f"at most {len(times)} times); found {found}. Fetch the file again."
        )
    # Some preprocessing cuts the time before the onset from the EEG but not from the times.
    return eeg, ch_names, times[len(times) - eeg.shape[3] :]


def _names(listed: Any, short: str, path: Path, n_images: int) -> list[tuple[str, str]]:
    """Concept and file of each image of a part."""
    keys = (f"{short}_img_concepts", f"{short}_img_files")
    if not isinstance(listed, dict) or not set(keys) <= set(listed):
        raise RecordingError(f"image_metadata.npy expects {' and '.join(keys)}. Fetch it again.")
    names = [(str(c), str(f)) for c, f in zip(listed[keys[0]], listed[keys[1]], strict=True)]
    if len(names) != n_images:
        raise RecordingError(
            f"{path.name} holds {n_images} images, but image_metadata.npy lists {len(names)}. "
            "Take both from the same release."
        )
    return names
