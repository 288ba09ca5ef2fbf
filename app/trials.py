"""Trials that a data set's authors have cut and filtered, made into epochs of a specification.

They last about a second, so the filters of live use, which need four to settle, cannot be
run over them: their band stays what the authors left. Electrodes, rate, window, reference
and normalisation become the specification's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.epochs import FLOOR_UV, normalise
from acquisition.errors import RecordingError
from acquisition.montage import Montage
from acquisition.resample import Resampler
from app.epoch_shards import PreparedEpoch
from app.skipped import Skipped

# What a channel is divided by at least where the data have no unit.
LEAST = 1e-30


@dataclass(frozen=True, slots=True)
class Facts:
    """What `spec.json` says of a data set beside its epochs.

    Attributes
    ----------
    labels : number by name.
    units : of the values in `eeg`.
    band : edges in Hz of what was left of the EEG; None where nobody tells.
    is_block_design : whether all trials of a label stood together in time; None where
        nobody tells.
    notes : sentences that whoever uses the set should read.
    licence, citation : of the data.
    """

    labels: Mapping[str, int] = field(default_factory=dict)
    units: str = ""
    band: tuple[float, float] | None = None
    is_block_design: bool | None = None
    notes: tuple[str, ...] = ()
    licence: str = ""
    citation: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "labels": dict(self.labels),
            "units": self.units,
            "band": list(self.band) if self.band else None,
            "is_block_design": self.is_block_design,
            "notes": list(self.notes),
            "licence": self.licence,
            "citation": self.citation,
        }


@dataclass(frozen=True, slots=True)
class TrialSet:
    """A data set of trials, ready to be written.

    Attributes
    ----------
    epochs : with `subject`, `session` and `run` (-1 where it is not told), read one by one.
    facts : of the set.
    treatment : how a trial becomes an epoch, in words.
    fidelity : of the montage.
    skipped : what is left out; complete once `epochs` has ended.
    """

    epochs: Iterator[tuple[PreparedEpoch, dict[str, int]]]
    facts: Facts
    treatment: str
    fidelity: float
    skipped: Skipped


def units(spec: EpochSpec, own: str) -> str:
    """Units of epochs whose samples had the units `own` before they were normalised."""
    normalised = "standard deviations of each channel in its epoch"
    return normalised if spec.normalisation == "channel" else own


class TrialCutter:
    """Makes trials of one data set into epochs.

    Parameters
    ----------
    name : of the data set, for the sentences.
    spec : of the bundle.
    ch_names : of the trials' rows.
    sfreq : of the trials, Hz.
    tmin : seconds from the marker to a trial's first sample.
    microvolts : what 1 in the data is, in microvolts; None where the data have no unit
        (z-scored, whitened).

    Raises
    ------
    MontageError
        The electrodes cannot be mapped.
    """

    def __init__(
        self,
        name: str,
        spec: EpochSpec,
        ch_names: tuple[str, ...],
        sfreq: float,
        tmin: float,
        microvolts: float | None,
    ) -> None:
        self._name, self._spec, self._sfreq, self._microvolts = name, spec, sfreq, microvolts
        self._tmin = tmin
        self._matrix: np.ndarray | None = None
        self.fidelity = 1.0
        if ch_names != spec.ch_names:
            montage = Montage.from_channels(ch_names, spec)
            self._matrix, self.fidelity = montage.matrix, montage.fidelity
        self._resampler = (
            None
            if math.isclose(sfreq, spec.sfreq, rel_tol=1e-6)
            else Resampler(spec.n_channels, sfreq, spec.sfreq, spec.h_freq)
        )

    @property
    def units(self) -> str:
        """Of the epochs."""
        as_scaled = "none: as the data set's authors scaled them"
        return units(self._spec, as_scaled if self._microvolts is None else "uV")

    @property
    def treatment(self) -> str:
        """How a trial becomes an epoch, in words."""
        how = "as it is" if self._resampler is None else "by windowed-sinc interpolation"
        return (
            f"samples from {self._spec.tmin:g} s after the marker, {self._sfreq:g} to "
            f"{self._spec.sfreq:g} Hz {how}"
        )

    def cut(self, trial: np.ndarray) -> np.ndarray:
        """The epoch of a trial.

        Parameters
        ----------
        trial : array of shape (n_channels, n_times).

        Returns
        -------
        array of the specification's shape, float32.

        Raises
        ------
        RecordingError
            The trial does not cover the specification's window.
        """
        data = np.asarray(trial, np.float64)
        if self._matrix is not None:
            data = self._matrix @ data
        first = round(self._tmin * self._sfreq)
        if self._resampler is not None:
            self._resampler.restart(first)
            first = self._resampler.next_output
            # Moments are of no interest here, as the grid has them.
            data, _ = self._resampler.push(data, np.arange(data.shape[1]) / self._sfreq)
        start = round(self._spec.tmin * self._spec.sfreq) - first
        if start < 0 or start + self._spec.n_times > data.shape[1]:
            window = (self._spec.tmin, self._spec.tmin + self._spec.duration)
            held = (first / self._spec.sfreq, (first + data.shape[1]) / self._spec.sfreq)
            raise RecordingError(
                f"A trial of {self._name} reaches from {held[0]:.3f} to {held[1]:.3f} s around "
                f"its marker at {self._spec.sfreq:g} Hz; the specification wants {window[0]:.3f} "
                f"to {window[1]:.3f} s. Give another with --spec: its tmin, n_times and sfreq."
            )
        return self.finish(data[:, start : start + self._spec.n_times])

    def finish(self, data: np.ndarray) -> np.ndarray:
        """Unit, reference and normalisation of what is cut already, (n_channels, n_times)."""
        data = data * (self._microvolts or 1.0)
        if self._spec.reference == "average":
            data = data - data.mean(axis=0)
        if self._spec.normalisation == "channel":
            data = normalise(data, FLOOR_UV if self._microvolts else LEAST)
        return np.asarray(data, np.float32)
