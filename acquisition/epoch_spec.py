"""What a bundle wants its epochs to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

from acquisition.errors import EpochSpecError

Reference = Literal["average", "none"]
Normalisation = Literal["channel", "none"]

# A specification comes with a bundle, perhaps from a stranger: it may not ask for more
# memory than any EEG model needs.
MAX_CHANNELS = 512
MAX_SFREQ = 5000.0
MAX_DURATION_S = 30.0


@dataclass(frozen=True, slots=True)
class EpochSpec:
    """How EEG must be cut and prepared for the model of a bundle (`epoch_spec.json`).

    Attributes
    ----------
    ch_names : electrodes of the model, in the order of an epoch's rows.
    sfreq : rate of an epoch in Hz.
    n_times : samples of an epoch.
    hop : samples from one sliding epoch to the next.
    l_freq, h_freq : edges of the causal band-pass in Hz.
    notch_freqs : mains frequencies that are notched out, in Hz.
    reference : "average" takes the mean of all electrodes off each sample.
    normalisation : "channel" takes each channel's mean off the epoch and divides by its
        standard deviation (at least 1 uV); "none" leaves microvolts.
    tmin : where a marker-locked epoch begins, in seconds from its marker.
    montage : name of the mne montage that gives the electrodes' positions.

    Raises
    ------
    EpochSpecError
        A value that makes no sense, in one sentence.
    """

    ch_names: tuple[str, ...]
    sfreq: float = 250.0
    n_times: int = 256
    hop: int = 64
    l_freq: float = 0.5
    h_freq: float = 40.0
    notch_freqs: tuple[float, ...] = (50.0,)
    reference: Reference = "average"
    normalisation: Normalisation = "channel"
    tmin: float = -0.1
    montage: str = "standard_1005"

    def __post_init__(self) -> None:
        names = self.ch_names
        _expect(1 <= len(names) <= MAX_CHANNELS, "ch_names", f"1 to {MAX_CHANNELS} names", names)
        twice = [n for i, n in enumerate(names) if n.lower() in [m.lower() for m in names[:i]]]
        _expect(not twice, "ch_names", "each name once", twice)
        _expect(0 < self.sfreq <= MAX_SFREQ, "sfreq", f"0 to {MAX_SFREQ:g} Hz", self.sfreq)
        longest = int(MAX_DURATION_S * self.sfreq)
        _expect(2 <= self.n_times <= longest, "n_times", f"2 to {longest}", self.n_times)
        _expect(1 <= self.hop <= longest, "hop", f"1 to {longest}", self.hop)
        edges = (self.l_freq, self.h_freq)
        _expect(
            0.01 <= self.l_freq < self.h_freq < self.sfreq / 2,
            "l_freq and h_freq",
            f"0.01 <= l_freq < h_freq < {self.sfreq / 2:g} Hz, half of sfreq",
            edges,
        )
        is_positive = all(f > 0 for f in self.notch_freqs)
        _expect(is_positive, "notch_freqs", "positive frequencies in Hz", self.notch_freqs)
        _expect(
            self.reference in ("average", "none"), "reference", "average or none", self.reference
        )
        _expect(
            self.normalisation in ("channel", "none"),
            "normalisation",
            "channel or none",
            self.normalisation,
        )
        _expect(abs(self.tmin) <= 10, "tmin", "-10 to 10 s", self.tmin)
        _expect(bool(self.montage), "montage", "the name of one of mne's montages", self.montage)

    @property
    def n_channels(self) -> int:
        return len(self.ch_names)

    @property
    def duration(self) -> float:
        """Seconds that an epoch covers."""
        return self.n_times / self.sfreq

    def to_dict(self) -> dict[str, Any]:
        """JSON values only; `from_dict` is its inverse."""
        values = asdict(self)
        return {**values, "ch_names": list(self.ch_names), "notch_freqs": list(self.notch_freqs)}

    @classmethod
    def from_dict(cls, values: object) -> EpochSpec:
        """Read what `to_dict` wrote, or another program.

        Raises
        ------
        EpochSpecError
            A field is unknown, missing, of the wrong type or makes no sense.
        """
        if not isinstance(values, Mapping):
            raise EpochSpecError(
                f"An epoch specification is a JSON object; found {_shown(values)}. "
                "Take epoch_spec.json from the bundle's maker."
            )
        known = {f.name: f for f in fields(cls)}
        unknown = sorted(str(name) for name in values if name not in known)
        if unknown:
            raise EpochSpecError(
                f"The epoch specification has {_shown(', '.join(unknown))}, which this program "
                f"does not know. It knows {', '.join(known)}. Use a newer version of the program."
            )
        missing = [n for n, f in known.items() if f.default is MISSING and n not in values]
        if missing:
            raise EpochSpecError(
                f"The epoch specification lacks {', '.join(missing)}. "
                "Add the names of the model's electrodes, in order."
            )
        return cls(**{name: _typed(name, value) for name, value in values.items()})


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _expect(is_right: bool, name: str, expected: str, found: object) -> None:
    if not is_right:
        raise EpochSpecError(
            f"The epoch specification's {name} must be {expected}; found {_shown(found)}. "
            "Correct epoch_spec.json of the bundle."
        )


def _number(name: str, value: Any) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    _expect(is_number and abs(value) < 1e12, name, "a number", value)  # nor nan, nor inf
    return float(value)


def _typed(name: str, value: Any) -> Any:
    """The value as the dataclass holds it; JSON knows neither tuples nor whole numbers."""
    if name in ("ch_names", "notch_freqs"):
        is_list = isinstance(value, Sequence) and not isinstance(value, str | bytes)
        _expect(is_list, name, "a list", value)
        if name == "notch_freqs":
            return tuple(_number(name, item) for item in value)
        _expect(all(isinstance(n, str) and n for n in value), name, "a list of names", value)
        return tuple(value)
    if name in ("n_times", "hop"):
        number = _number(name, value)
        _expect(number == int(number), name, "a whole number", value)
        return int(number)
    if name in ("reference", "normalisation", "montage"):
        _expect(isinstance(value, str), name, "a word", value)
        return value
    return _number(name, value)
