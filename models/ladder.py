"""How much is painted for a frame: as much as the machine can, chosen by measured times.

Pure: no clock of its own.
"""

from __future__ import annotations

from dataclasses import dataclass

# Frames a second at best, and seconds between them.
BEST = 30.0
TICK = 1 / BEST


@dataclass(frozen=True, slots=True)
class Rung:
    """One way of making frames.

    Attributes
    ----------
    name : in words.
    calls : of the U-Net for a painted frame; 0: none but for an epoch's keyframe, with
        in-betweens of latents.
    rate : frames a second.
    is_halved : whether a frame between two painted ones is decoded from their latents' middle.
    """

    name: str
    calls: int
    rate: float = BEST
    is_halved: bool = False

    def cost(self, call: float, decode: float) -> float:
        """Seconds for a frame, of a call and a decoding that take so long."""
        return self.calls * call / (2 if self.is_halved else 1) + decode

    @property
    def period(self) -> float:
        """Seconds from one frame to the next."""
        return 1 / self.rate


RUNGS = (
    Rung("two steps", 2),
    Rung("one step", 1),
    Rung("half rate", 1, is_halved=True),
    Rung("15 a second", 1, 15.0),
    Rung("12 a second", 1, 12.0),
    Rung("10 a second", 1, 10.0),
    Rung("7.5 a second", 1, 7.5),
    Rung("keyframes", 0, 15.0),
)

# Share of a frame's time that painting may take: more, and the rung is left for a lower one; so
# much less would it take on a higher one, and that is tried.
FULL, ROOM = 1.0, 0.85
# Frames in a row that say so: few to go down, since each of them comes late; more to go up.
LATE, EARLY = 3, 8
# Weight of the newest time in the mean.
NEWEST = 0.2


class Ladder:
    """Chooses the rung; used by one thread.

    Parameters
    ----------
    rung : to begin with.
    """

    def __init__(self, rung: int = len(RUNGS) - 4) -> None:
        self._rung = rung
        self._call: float | None = None
        self._decode: float | None = None
        self._n_late = self._n_early = 0

    @property
    def rung(self) -> Rung:
        """What the next frame is made by."""
        return RUNGS[self._rung]

    def took(self, calls: int, in_calls: float, in_decoding: float) -> None:
        """Learn how long a frame took.

        Parameters
        ----------
        calls : of the U-Net; 0 tells nothing of their time.
        in_calls, in_decoding : seconds.
        """
        if calls:
            self._call = _mean(self._call, in_calls / calls)
        self._decode = _mean(self._decode, in_decoding)
        if self._call is None:
            return
        call, decode = self._call, self._decode
        is_late = self.rung.cost(call, decode) > FULL * self.rung.period
        higher = RUNGS[self._rung - 1] if self._rung else None
        is_early = higher is not None and higher.cost(call, decode) < ROOM * higher.period
        self._n_late = self._n_late + 1 if is_late else 0
        self._n_early = self._n_early + 1 if is_early else 0
        if self._n_late >= LATE and self._rung + 1 < len(RUNGS):
            self._move(1)
        elif self._n_early >= EARLY:
            self._move(-1)

    def _move(self, by: int) -> None:
        self._rung += by
        self._n_late = self._n_early = 0


def _mean(before: float | None, new: float) -> float:
    return new if before is None else before + NEWEST * (new - before)
