"""Public recordings of seen pictures as sessions: what their markers mean, what may be held out.

Runs are what a decoder is tested on whole. Where every recording has an order of its own, a
recording is a run. In muse-lsl's gratings the order of trials is the same in all three
recordings: a recording that is held out would be known from the others. There a run is a
fifth of the places in the order, in all three recordings together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from app.errors import SettingsError
from app.muse import CASES, CH_NAMES
from app.session_trials import Meaning, RunsOf, by_pauses, by_position, said

N_BLOCKS = 5
_MUSE = "BSD-3-Clause; github.com/alexandrebarachant/muse-lsl, {}, 2017"
_EXPY = "BSD-3-Clause; github.com/NeuroTechX/EEG-ExPy, visual N170, 2018"
_FACES = {"1": "house", "2": "face"}


@dataclass(frozen=True, slots=True)
class PublicSession:
    """Recordings of one person that belong together.

    Attributes
    ----------
    meaning : of their markers.
    runs_of : the trials of a recording.
    has_shared_runs : whether runs of the same number in several recordings are one run.
    ch_names : of their electrodes, in order.
    licence : and where they come from.
    """

    meaning: Meaning
    runs_of: RunsOf
    has_shared_runs: bool
    ch_names: tuple[str, ...]
    licence: str


def _gratings(*, of: Callable[[str], str]) -> PublicSession:
    """Classes of the gratings by the names of the pictures."""
    markers = CASES["gratings"].markers
    pictures = {m: name.removeprefix("onset/") for m, name in markers.items()}
    classes = {m: name if name == "offset" else of(name) for m, name in pictures.items()}
    return PublicSession(
        said(classes, pictures=pictures),
        by_position(N_BLOCKS),
        True,
        CH_NAMES,
        _MUSE.format("visual spatial frequency"),
    )


def _in_runs(classes: dict[str, str], licence: str) -> PublicSession:
    return PublicSession(said(classes), by_pauses(), False, CH_NAMES, licence)


PUBLIC: dict[str, Callable[[], PublicSession]] = {
    "gratings": lambda: _gratings(of=lambda picture: picture.split()[0]),
    "grating-images": lambda: _gratings(of=lambda picture: picture),
    "faces": lambda: _in_runs(_FACES, _MUSE.format("visual N170")),
    "faces-expy": lambda: _in_runs(_FACES, _EXPY),
    "cats-dogs": lambda: _in_runs({"1": "dog", "2": "cat"}, _MUSE.format("visual P300")),
}


def recordings_in(folder: Path) -> list[Path]:
    """The CSV files of a folder, in order of their names, which hold the time.

    Raises
    ------
    SettingsError
        There are none.
    """
    if paths := sorted(folder.glob("*.csv")):
        return paths
    raise SettingsError(
        f"{folder} holds no recordings (CSV). Give the folder that they lie in, as "
        "faces:muse-lsl/N170."
    )
