"""EEG-ImageNet (EEGCVPR40), the data that DreamDiffusion was trained on.

Spampinato et al., "Deep Learning Human Mind for Automated Visual Classification", CVPR 2017
(arXiv 1609.00344). A `.pth` file holds the trials, another the splits; the images are
ImageNet's. The reference's own loader filters the trials before it looks its splits'
indices up, which gives other trials than were meant; here they count the whole list.
"""

from __future__ import annotations

import math
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acquisition.channels import microvolts_per
from acquisition.eeg_imagenet import REFERENCE_SPEC
from acquisition.epoch_spec import EpochSpec
from acquisition.errors import RecordingError, SourceNotFoundError, StreamInfoError
from acquisition.parameters import check_parameters, whole_numbers
from acquisition.source import SourceOptions
from acquisition.stimuli import concepts
from app.epoch_shards import PreparedEpoch
from app.skipped import Skipped
from app.stimulus_images import StimulusImages
from app.trials import Facts, TrialCutter, TrialSet

NAME = "EEG-ImageNet"
SFREQ = 1000.0
# What the authors of the data leave out, too: the trials last half a second.
SHORTEST, LONGEST = 450, 600
# The reference's window, in samples, and what it stretches it to.
FIRST, STOP, STRETCHED = 20, 460, 512
SPLITS = {"train": 0, "val": 1, "test": 2}

BLOCK_DESIGN = (
    "All 50 images of a class were shown in one block: label and time cannot be told apart, and "
    "a decoder may read the block instead of the image (Li et al., TPAMI 2020, "
    "doi 10.1109/TPAMI.2020.2973153). No score on this data shows that what was seen was decoded."
)


def is_reference(spec: EpochSpec) -> bool:
    """Whether a specification wants the reference's electrodes and window.

    512 samples in 440 ms are 1163.6 Hz; from the first sample to the last, 1164.0.
    """
    wanted = REFERENCE_SPEC
    is_same = all(getattr(spec, n) == getattr(wanted, n) for n in ("ch_names", "n_times", "tmin"))
    return is_same and math.isclose(spec.sfreq, wanted.sfreq, rel_tol=1e-3)


def stretch(trial: np.ndarray) -> np.ndarray:
    """The reference's window of a trial: samples 20 to 460, linearly stretched to 512.

    Parameters
    ----------
    trial : array of shape (n_channels, at least 460).

    Returns
    -------
    array of shape (n_channels, 512), float64.
    """
    window = np.asarray(trial[:, FIRST:STOP], np.float64)
    at = np.linspace(0, window.shape[1] - 1, STRETCHED)
    before = np.minimum(at.astype(np.int64), window.shape[1] - 2)
    part = at - before
    return np.asarray(window[:, before] * (1 - part) + window[:, before + 1] * part)


def open_eeg_imagenet(
    target: str,
    parameters: dict[str, str],
    spec: EpochSpec,
    options: SourceOptions,
    pictures: StimulusImages | None,
    skipped: Skipped,
) -> TrialSet:
    """Open `eeg-imagenet:FILE.pth?splits=FILE.pth&images=FOLDER&subject=4`.

    Parameters
    ----------
    target : of the trials.
    parameters : `splits` (without it no trial is told to which it belongs), `images`
        (ImageNet's folder, with a sub-folder for each class), `subject` (all without it).
    options : a `unit` where the file holds volts or microvolts; z-scores have none.
    pictures : where the images go; None where `images` is not given.

    Raises
    ------
    SourceError, MontageError
    """
    check_parameters("eeg-imagenet:", parameters, ("splits", "images", "subject"))
    subject = whole_numbers({k: v for k, v in parameters.items() if k == "subject"})
    data = _load(Path(target).expanduser(), ("dataset", "labels", "images"))
    trials, wnids, names = data["dataset"], list(data["labels"]), list(data["images"])
    _check_trials(target, trials, len(wnids), len(names))
    split_of = _splits(parameters, len(trials))
    microvolts = microvolts_per(options.unit) if options.unit else None
    if options.unit and microvolts is None:
        raise StreamInfoError(f"--unit is '{options.unit}'. Use one of uV, mV, V or nV.")
    ch_names = options.ch_names or REFERENCE_SPEC.ch_names
    cutter = TrialCutter(NAME, spec, ch_names, SFREQ, 0.0, microvolts)
    as_reference = is_reference(spec) and ch_names == spec.ch_names
    words = {c.wnid: c.imagenet_class for c in concepts()}
    labels = [words.get(wnid, wnid) for wnid in wnids]
    folder = Path(parameters.get("images", "")).expanduser()

    def epochs() -> Iterator[tuple[PreparedEpoch, dict[str, int]]]:
        n_found = 0
        for number, trial in enumerate(trials):
            if subject.get("subject", trial["subject"]) != trial["subject"]:
                continue
            n_found += 1
            n_times, label = int(trial["eeg"].shape[1]), int(trial["label"])
            image_id: int | None = int(trial["image"])
            if not SHORTEST <= n_times <= LONGEST or n_times < STOP:
                what = f"trial {number}: {n_times} samples"
                skipped.add(f"not {STOP} to {LONGEST} samples long", what)
                continue
            if pictures is not None:
                name = names[int(trial["image"])]
                path = folder / wnids[label] / f"{name}.JPEG"
                image_id = pictures.id_of(path, label, labels[label])
                if image_id is None:
                    continue
            eeg = trial["eeg"].numpy()
            yield (
                PreparedEpoch(
                    eeg=cutter.finish(stretch(eeg)) if as_reference else cutter.cut(eeg),
                    label=label,
                    image_id=-1 if image_id is None else image_id,
                    t_onset=float("nan"),
                    is_locked=True,
                    split=split_of.get(number, -1),
                ),
                {"subject": int(trial["subject"]), "session": -1, "run": -1},
            )
        if not n_found:
            there = sorted({int(trial["subject"]) for trial in trials})
            raise RecordingError(
                f"{Path(target).name} holds no trial of subject {subject.get('subject')}; "
                f"its subjects are {', '.join(map(str, there))}."
            )

    treatment = (
        f"samples {FIRST} to {STOP} of each trial, linearly stretched to {STRETCHED}, as the "
        "reference does" if as_reference else cutter.treatment
    )  # fmt: skip
    facts = Facts(
        labels={name: number for number, name in enumerate(labels)},
        units=cutter.units,
        band=_band(Path(target).name),
        is_block_design=True,
        notes=(BLOCK_DESIGN, *_notes(split_of, len(trials), treatment, pictures is not None)),
        licence="none stated by its authors (perceivelab/eeg_visual_classification)",
        citation="Spampinato et al., CVPR 2017, arXiv 1609.00344",
    )
    return TrialSet(epochs(), facts, treatment, cutter.fidelity, skipped)


def _band(name: str) -> tuple[float, float] | None:
    """The band that the file's name tells."""
    bands = {"5_95": (5.0, 95.0), "14_70": (14.0, 70.0), "55_95": (55.0, 95.0)}
    return next((band for part, band in bands.items() if part in name), None)


def _check_trials(target: str, trials: Sequence[Any], n_labels: int, n_images: int) -> None:
    keys = {"eeg", "label", "image", "subject"}
    for number, trial in enumerate(trials):
        if not isinstance(trial, dict) or not keys <= trial.keys() or trial["eeg"].ndim != 2:
            raise RecordingError(
                f"Trial {number} of {Path(target).name} is no dictionary of eeg (channels, times), "
                "label, image and subject. Fetch the file again."
            )
        if not (0 <= int(trial["label"]) < n_labels and 0 <= int(trial["image"]) < n_images):
            raise RecordingError(
                f"Trial {number} of {Path(target).name} has label {int(trial['label'])} of "
                f"{n_labels} and image {int(trial['image'])} of {n_images}. Fetch the file again."
            )


def _notes(
    split_of: Mapping[int, int], n_trials: int, treatment: str, has_pictures: bool
) -> Iterator[str]:
    yield f"Trials are filtered as their file has them and cut so: {treatment}."
    if not has_pictures:
        yield "No images were given: image_id counts the file's list of images."
    if not split_of:
        yield "No splits were given: which trials train and which test is not told."
    elif len(split_of) < n_trials:
        yield (
            f"The splits name {len(split_of)} of the {n_trials} trials, indices {min(split_of)} to "
            f"{max(split_of)} of the whole list; of the others (split -1) it is not told."
        )


def _splits(parameters: Mapping[str, str], n_trials: int) -> dict[int, int]:
    """Number of the split by place in the whole list of trials."""
    if "splits" not in parameters:
        return {}
    path = Path(parameters["splits"]).expanduser()
    splits = _load(path, ("splits",))["splits"][0]
    found: dict[int, int] = {}
    for name, number in SPLITS.items():
        for index in map(int, splits[name]):
            if found.setdefault(index, number) != number:
                raise RecordingError(f"{path.name} puts trial {index} into two splits. Mend it.")
    beyond = sorted(index for index in found if not 0 <= index < n_trials)
    if beyond:
        raise RecordingError(
            f"{path.name} names trial {beyond[0]}, but there are only {n_trials} (counted from 0). "
            "Take the splits that belong to this file of trials."
        )
    return found


def _load(path: Path, keys: tuple[str, ...]) -> dict[str, Any]:
    """A `.pth` file's dictionary, nothing in it run; its tensors are mapped where they can be."""
    import torch  # takes a second, and only this data needs it

    if not path.is_file():
        raise SourceNotFoundError(f"There is no file {path}. Check the path.")
    # torch's format before version 1.6 cannot be mapped: it is read whole, some 3 GB.
    is_mapped = zipfile.is_zipfile(path)
    try:
        data = torch.load(path, map_location="cpu", weights_only=True, mmap=is_mapped)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RecordingError(
            f"{path.name} is damaged, or holds more than tensors, numbers and texts, which is not "
            f"opened, as it could run any program ({reason}). Fetch it again from its makers."
        ) from error
    missing = [k for k in keys if not isinstance(data, dict) or k not in data]
    if missing:
        raise RecordingError(
            f"{path.name} lacks {', '.join(missing)}. Expected {NAME}'s trials with dataset, "
            "labels and images, and its splits with splits."
        )
    return dict(data)
