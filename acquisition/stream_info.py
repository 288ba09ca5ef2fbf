"""What a stream of EEG says of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from acquisition.errors import StreamInfoError

Honesty = Literal["simulated", "replay", "live"]


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """The EEG channels of a source; other channels never leave it.

    Attributes
    ----------
    name : of the stream, board or file, for people.
    ch_names : EEG channels in the order of the rows of each chunk.
    sfreq : nominal sampling rate in Hz.
    honesty : whether the samples are simulated, replayed from a recording or live.

    Raises
    ------
    StreamInfoError
        No channel, a name twice, or a rate that is not positive.

    Notes
    -----
    Data are microvolts: a source converts where data enter.
    """

    name: str
    ch_names: tuple[str, ...]
    sfreq: float
    honesty: Honesty

    def __post_init__(self) -> None:
        if not self.ch_names:
            raise StreamInfoError(f"{self.name} has no EEG channel. Name some with --ch-names.")
        twice = sorted({n for n in self.ch_names if self.ch_names.count(n) > 1})
        if twice:
            raise StreamInfoError(
                f"{self.name} names {', '.join(twice)} more than once. "
                "Give every electrode its own name with --ch-names."
            )
        if not self.sfreq > 0:
            raise StreamInfoError(
                f"{self.name} states a rate of {self.sfreq} Hz; EEG needs a regular, positive rate."
            )

    @property
    def n_channels(self) -> int:
        return len(self.ch_names)
