"""Two experiments that muse-lsl recorded, as prepared sets: gratings, and faces and houses.

Recordings: github.com/alexandrebarachant/muse-lsl (BSD-3), a Muse of 2016 at 256 Hz whose
auxiliary electrode sat at POz. A `Case` says what the markers mean, which pictures stand
for what was seen, and what must be held out together:

- *gratings* (`spatial_freq/`): three runs with the same order of trials, so a trial's
  *position* in the run is held out in all runs at once;
- *faces* (`N170/`): six runs with orders of their own, so runs are held out.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from acquisition.epoch_spec import EpochSpec, Normalisation
from acquisition.source import SourceOptions
from app import face_house, gratings
from app.errors import SettingsError
from app.face_house_reader import SHOWN, read_sketch
from app.grating_reader import read_grating
from app.prepare import Wanted, prepare_sources
from models.training.lda import Windows, candidates

CH_NAMES = ("TP9", "AF7", "AF8", "TP10", "POz")
PIXELS = 64
# From 0.1 s before the onset to 0.4 s behind it.
BEFORE_S, DURATION_S = 0.1, 0.5


def _spec(sfreq: float, h_freq: float, normalisation: Normalisation) -> EpochSpec:
    n_times = round(DURATION_S * sfreq)
    return EpochSpec(
        CH_NAMES,
        sfreq=sfreq,
        n_times=n_times,
        hop=n_times // 2,
        l_freq=0.5,
        h_freq=h_freq,
        notch_freqs=(60.0,),
        reference="average",
        normalisation=normalisation,
        tmin=-BEFORE_S,
    )


def _both(sfreq: float, h_freq: float) -> dict[str, EpochSpec]:
    kinds: tuple[Normalisation, ...] = ("channel", "none")
    return {f"{sfreq:g} Hz, {kind}": _spec(sfreq, h_freq, kind) for kind in kinds}


# What the painter's epochs are chosen from, by name: rate and normalisation. Microvolts as
# they are ("none") have standard deviations of 4 to 9, which the encoder takes.
PAINTER_SPECS = _both(64.0, 28.0) | _both(128.0, 40.0)
# LDA may also have what a network of 234 trials should not be given.
SPECS = PAINTER_SPECS | _both(256.0, 40.0)
SPEC = SPECS["64 Hz, channel"]


@dataclass(frozen=True, slots=True)
class Case:
    """An experiment.

    Attributes
    ----------
    folder : of its recordings, below that of muse-lsl's data.
    markers : what markers of the recordings are called here.
    names : of the pictures; a picture's id and label is its place.
    draw : a picture by its place, varied where a generator is given; array of shape
        (pixels, pixels, 3), uint8.
    captions : of the pictures, for the image model.
    families : of the pictures; what is easier to tell than the picture itself.
    read : a picture to a score for each of `names`, from the picture alone.
    shown_from : least score of a picture that shows what is read, and not just more of it
        than of the others.
    held_out : column of the prepared set whose values are held out together.
    about : what the pictures are, for the reports.
    """

    folder: str
    markers: dict[str, str]
    names: tuple[str, ...]
    draw: Callable[[int, np.random.Generator | None], np.ndarray]
    captions: tuple[str, ...]
    families: tuple[int, ...]
    read: Callable[[np.ndarray], np.ndarray]
    shown_from: float
    held_out: str
    about: str

    def write_stimuli(self, folder: Path) -> tuple[Path, Path]:
        """Write the pictures as files, and the names of markers.

        Returns
        -------
        the folder of pictures, and the JSON file of markers.
        """
        pictures, markers = folder / "stimuli", folder / "markers.json"
        pictures.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(self.names):
            Image.fromarray(self.draw(number, None)).save(pictures / f"{name}.png")
        text = json.dumps(self.markers, ensure_ascii=False, indent=2)
        markers.write_text(text + "\n", encoding="utf-8")
        return pictures, markers

    def prepare(
        self, data: Path, out: Path, spec: EpochSpec, say: Callable[[str], None] = print
    ) -> Path:
        """Cut the marker-locked epochs of all recordings into a set below `out`, once.

        Raises
        ------
        SettingsError
            `data` is not muse-lsl's folder of data.
        """
        recordings = recordings_of(data, self.folder)
        pictures, markers = self.write_stimuli(out)
        folder = out / f"set-{spec.sfreq:g}-{spec.normalisation}"
        if not (folder / "spec.json").is_file():
            wanted = Wanted(
                spec,
                labels={f"onset/{name}": number for number, name in enumerate(self.names)},
                options=SourceOptions(ch_names=CH_NAMES),
                stimuli=pictures,
                pixels=PIXELS,
            )
            sources = [f"file:{path}?markers={markers}" for path in recordings]
            prepare_sources(folder, sources, wanted, say)
        return folder


def recordings_of(data: Path, folder: str) -> list[Path]:
    """muse-lsl's CSV files of an experiment, in order of time.

    Raises
    ------
    SettingsError
        There are none.
    """
    paths = sorted((data / folder).glob("*.csv"))
    if not paths:
        raise SettingsError(
            f"{data / folder} holds no recordings. Give the folder of muse-lsl's data, with "
            "spatial_freq/ and N170/ in it."
        )
    return paths


def prepare_unlabelled(data: Path, folders: tuple[str, ...], spec: EpochSpec, out: Path) -> Path:
    """Cut sliding windows of all recordings in `folders` into `out`, once, for pre-training."""
    if not (out / "spec.json").is_file():
        wanted = Wanted(spec, ("sliding",), options=SourceOptions(ch_names=CH_NAMES))
        paths = [path for folder in folders for path in recordings_of(data, folder)]
        prepare_sources(out, [f"file:{path}" for path in paths], wanted)
    return out


def windows(spec: EpochSpec) -> list[Windows]:
    """What LDA chooses from."""
    return candidates(spec.n_times, round(BEFORE_S * spec.sfreq), spec.sfreq)


def _draw_grating(number: int, rng: np.random.Generator | None) -> np.ndarray:
    grating = gratings.GRATINGS[number]
    return gratings.draw_grating(gratings.vary(grating, rng) if rng else grating, PIXELS)


def _draw_sketch(number: int, rng: np.random.Generator | None) -> np.ndarray:
    sketch = face_house.SKETCHES[number]
    return face_house.draw_sketch(face_house.vary(sketch, rng) if rng else sketch, PIXELS)


def _read_grating(picture: np.ndarray) -> np.ndarray:
    scores: np.ndarray = np.eye(len(gratings.GRATINGS))[read_grating(picture).label]
    return scores


_CODES = {
    name: (band, orientation)
    for name, (band, orientation) in zip(
        gratings.NAMES,
        ((band, o) for band in (1, 2) for o in gratings.ORIENTATIONS),
        strict=True,
    )
}

CASES = {
    "gratings": Case(
        folder="spatial_freq",
        # Frequency (and 2 more at the offset), contrast, orientation.
        markers={f"{band}/1/{o}": f"onset/{name}" for name, (band, o) in _CODES.items()}
        | {f"{band + 2}/1/{o}": "offset" for band, o in _CODES.values()},
        names=gratings.NAMES,
        draw=_draw_grating,
        captions=gratings.CAPTIONS,
        families=(0, 0, 0, 0, 1, 1, 1, 1),
        read=_read_grating,
        # Whatever has light and shade is a grating of some frequency.
        shown_from=0.0,
        held_out="position",
        about="the middle 3 x 3 degrees of the gratings that were shown, drawn again",
    ),
    "faces": Case(
        folder="N170",
        markers={"1": "onset/house", "2": "onset/face"},
        names=face_house.NAMES,
        draw=_draw_sketch,
        captions=face_house.CAPTIONS,
        families=(0, 1),
        read=read_sketch,
        shown_from=SHOWN,
        held_out="run",
        about="drawn stand-ins for a face and a house; which photographs were shown is not known",
    ),
}
