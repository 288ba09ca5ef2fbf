"""Which channels of a stream are EEG, what they are called and in which unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from acquisition.errors import StreamInfoError
from acquisition.source import SourceOptions

EEG_TYPES = ("eeg", "exg")

# Microvolts in one unit. The bare powers of ten are how MNE-LSL writes units of volts.
_MICROVOLTS = {
    "nv": 1e-3, "nanovolt": 1e-3, "nanovolts": 1e-3, "-9": 1e-3,
    "uv": 1.0, "µv": 1.0, "μv": 1.0, "microvolt": 1.0, "microvolts": 1.0, "-6": 1.0,
    "mv": 1e3, "millivolt": 1e3, "millivolts": 1e3, "-3": 1e3,
    "v": 1e6, "volt": 1e6, "volts": 1e6, "0": 1e6,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Channel:
    """What a stream's metadata say of one channel; empty where they are silent."""

    label: str = ""
    type: str = ""
    unit: str = ""


@dataclass(frozen=True, slots=True)
class EEGChannels:
    """The EEG among the channels of a stream.

    Attributes
    ----------
    rows : their places in the stream.
    ch_names : their names, in the same order.
    scale : array of shape (n_channels, 1), float64; samples times scale are microvolts.
    """

    rows: tuple[int, ...]
    ch_names: tuple[str, ...]
    scale: np.ndarray

    def microvolts(self, samples: np.ndarray) -> np.ndarray:
        """Pick and convert samples of shape (n_times, all channels).

        Returns
        -------
        array of shape (n_channels, n_times), float32, microvolts.
        """
        # Rows rise, so as many as there are channels are all of them.
        picked = samples if len(self.rows) == samples.shape[1] else samples[:, self.rows]
        data = picked.T * self.scale
        return np.ascontiguousarray(data, dtype=np.float32)


def microvolts_per(unit: str) -> float | None:
    """Microvolts in one `unit`, or None if it is no unit of voltage that is known.

    >>> microvolts_per("millivolts")
    1000.0
    """
    return _MICROVOLTS.get(unit.strip().lower())


def select_eeg(
    stream: str,
    channels: Sequence[Channel],
    options: SourceOptions,
    samples: np.ndarray | None = None,
) -> EEGChannels:
    """Decide which channels are EEG; ask where names or units are missing.

    Parameters
    ----------
    stream : its name, for the sentences.
    channels : all of the stream's channels, in order.
    options : what the operator says overrides the metadata. A name of "-" drops the
        channel.
    samples : array of shape (n_times, all channels), for a hint about the unit.

    Raises
    ------
    StreamInfoError
        A name or unit is missing, or the names do not fit.
    """
    rows = [i for i, c in enumerate(channels) if c.type.strip().lower() in EEG_TYPES]
    if not rows:
        # Types are all missing: everything may be EEG. Other types are then not EEG.
        rows = [i for i, c in enumerate(channels) if not c.type.strip()]
    if not rows:
        types = ", ".join(sorted({c.type for c in channels}))
        raise StreamInfoError(
            f"'{stream}' has no channel of type EEG; its {len(channels)} channels are {types}. "
            "Choose another stream."
        )
    names = _names(stream, [channels[i] for i in rows], options)
    rows = [i for i, name in zip(rows, names, strict=True) if name != "-"]
    names = [name for name in names if name != "-"]
    units = [options.unit or channels[i].unit for i in rows]
    shown = None if samples is None or not len(samples) else samples[:, rows]
    scale = [_scale(stream, unit, options, shown) for unit in units]
    return EEGChannels(tuple(rows), tuple(names), np.array(scale).reshape(-1, 1))


def _names(stream: str, channels: list[Channel], options: SourceOptions) -> list[str]:
    if options.ch_names:
        if len(options.ch_names) != len(channels):
            raise StreamInfoError(
                f"'{stream}' has {len(channels)} EEG channels, but --ch-names gives "
                f"{len(options.ch_names)}. Give one name for each, '-' for one to leave out."
            )
        return list(options.ch_names)
    names = [c.label.strip() for c in channels]
    if not all(names) or _are_numbers(names):
        found = "only numbers them" if all(names) else "does not name them"
        raise StreamInfoError(
            f"'{stream}' has {len(channels)} EEG channels and {found}. Say where they are on the "
            "head, in order: --ch-names Fp1,Fp2,..."
        )
    return names


def _are_numbers(names: list[str]) -> bool:
    """Whether the labels only count: "ch1", "EXG Channel 0", "7"."""
    words = ("channel", "exg", "eeg", "chan", "ch", "_", "-", ":")
    for name in names:
        rest = name.lower()
        for word in words:
            rest = rest.replace(word, "")
        if not rest.strip().isdigit():
            return False
    return True


def _scale(stream: str, unit: str, options: SourceOptions, samples: np.ndarray | None) -> float:
    scale = microvolts_per(unit)
    if scale is not None:
        return scale
    if options.unit:
        raise StreamInfoError(f"--unit is '{options.unit}'. Use one of uV, mV, V or nV.")
    states = f"states the unit '{unit}'" if unit.strip() else "states no unit"
    raise StreamInfoError(
        f"'{stream}' {states}. {_hint(samples)}Say which it is: --unit uV or --unit V."
    )


def _hint(samples: np.ndarray | None) -> str:
    """What the size of the values suggests; never more than a hint to the operator."""
    if samples is None or len(samples) < 2:
        return ""
    # Differences of neighbours take out the offset of the electrodes, which may be 1e4 uV.
    size = float(np.nanmedian(np.std(np.diff(samples.astype(np.float64), axis=0), axis=0)))
    likely = "V" if size < 1e-3 else "uV"
    return f"Neighbouring samples differ by about {size:.2g}, as they would in {likely}. "
