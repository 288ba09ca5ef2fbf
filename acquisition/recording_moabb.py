"""Data sets of MOABB, the collection of public EEG for benchmarks, as recordings.

Aristimunha et al., "Mother of all BCI Benchmarks", doi 10.5281/zenodo.10034223. moabb
downloads what is asked for and keeps it in mne's folder for data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from acquisition.errors import SourceError, SourceNotFoundError
from acquisition.recording import Recording, as_recording
from acquisition.recording_mne import raw_streams
from acquisition.source import SourceOptions


@dataclass(frozen=True, slots=True)
class MoabbRun:
    """One run of a data set; sessions and runs are counted in the data set's order."""

    subject: int
    session: int
    run: int
    recording: Recording


def find_dataset(name: str) -> Any:
    """The data set that MOABB calls `name`, such as BNCI2014_001.

    Raises
    ------
    SourceError
        moabb is not installed.
    SourceNotFoundError
        MOABB has no such data set.
    """
    try:
        import moabb.datasets
    except ImportError as error:
        raise SourceError(
            f"moabb: sources need the package moabb, which is not installed ({error}). "
            "Install it: .venv/bin/pip install -c constraints.txt moabb."
        ) from error
    from moabb.datasets.base import BaseDataset

    known = {
        n: value
        for n, value in vars(moabb.datasets).items()
        if isinstance(value, type) and issubclass(value, BaseDataset)
    }
    if name not in known:
        raise SourceNotFoundError(
            f"MOABB has no data set '{name}'. It has {', '.join(sorted(known))}."
        )
    return known[name]()


def moabb_runs(
    dataset: Any, subjects: Sequence[int] = (), options: SourceOptions | None = None
) -> Iterator[MoabbRun]:
    """The runs of a data set, one subject in memory at a time.

    Parameters
    ----------
    dataset : from `find_dataset`.
    subjects : as the data set numbers them; all by default.
    options : names and unit of the channels, over what the data set says.

    Raises
    ------
    SourceNotFoundError
        It has no such subject.
    SourceError, StreamInfoError
        A run holds no EEG, or its channels make no sense.
    """
    known = list(dataset.subject_list)
    if lacking := [s for s in subjects if s not in known]:
        raise SourceNotFoundError(
            f"{dataset.code} has no subject {', '.join(map(str, lacking))}; "
            f"its subjects are {', '.join(map(str, known))}."
        )
    for subject in subjects or known:
        sessions = dataset.get_data(subjects=[subject])[subject]
        for session, runs in enumerate(sessions.values()):
            for run, (name, raw) in enumerate(runs.items()):
                title = f"{dataset.code}, subject {subject}, run {name}"
                recording = as_recording(title, raw_streams(raw, title), options or SourceOptions())
                yield MoabbRun(subject, session, run, recording)
