"""How often a bundle says "not sure": where the EEG has no answer, and where it has one."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.simulated_subject import CH_NAMES
from acquisition.simulation_parameters import without_artefacts
from app.results.answers import is_sure
from app.results.bars import at_least, at_most
from app.results.part import Table, written
from app.results.stream import Epochs, Sessions, Spoil
from models.pipeline import EEGToImagePipeline
from models.training.metrics import Score

LEAST_BLIND = 0.9
MOST_CLEAN = 0.15
# White noise that an open input is taken to give; in the band half of it is left, about as much
# as EEG has, and normalisation makes every other amount the same.
OPEN_UV = 20.0
# After the end of a picture its response has died away.
RESPONSE_S = 0.3
N_THIRDS = 3

IsSure = Callable[[Epochs], np.ndarray]
"""Of the windows of a stream, in order, whether each is answered: (n,) bool."""

Say = Callable[[str], None]
Values = dict[str, Any]


@dataclass(frozen=True, slots=True)
class NotSure:
    """Share of windows that are answered with "not sure".

    Attributes
    ----------
    eeg : what the windows are of.
    score : the share.
    bar : what is asked of it.
    """

    eeg: str
    score: Score
    bar: str = "–"


def open_inputs(rows: np.ndarray, seed: int) -> Spoil:
    """Electrodes `rows` hang in the air: white noise, each its own."""
    rng = np.random.default_rng(seed)

    def spoil(data: np.ndarray) -> np.ndarray:
        out = data.copy()
        out[rows] = rng.normal(0, OPEN_UV, (len(rows), data.shape[1]))
        return out

    return spoil


def railed_inputs(rows: np.ndarray) -> Spoil:
    """The amplifier's inputs `rows` are at their limit: a constant, which no filter lets pass."""

    def spoil(data: np.ndarray) -> np.ndarray:
        out = data.copy()
        out[rows] = 0
        return out

    return spoil


def alone(pipeline: EEGToImagePipeline) -> IsSure:
    """Each window by itself."""
    return lambda epochs: is_sure(pipeline, epochs.data)


def measure_not_sure(
    sure: IsSure, spec: EpochSpec, sessions: Sessions, seen: Epochs, say: Say
) -> list[NotSure]:
    """The share for EEG without an answer, for broken EEG and for clean EEG.

    Parameters
    ----------
    sure : says of a whole stream's windows which are answered.
    seen : sliding windows of the sessions as they are.
    """
    p = sessions.parameters
    blind = replace(p, early_uv=0.0, late_uv=0.0, sustained_uv=0.0)
    everything = np.arange(len(CH_NAMES))
    out: list[NotSure] = []

    def told(stream: Epochs) -> Epochs:
        """A stream with its answers in the place of its samples."""
        return replace(stream, data=sure(stream)[:, None])

    def share(*parts: Epochs) -> Score:
        """Of one or several recordings of the same pictures."""
        known = [part.take(part.picture >= 0) for part in parts]
        # The last picture that had appeared: epochs are not independent within.
        picture = np.concatenate([part.picture for part in known])
        is_sure = np.concatenate([part.data[:, 0] for part in known])
        return Score.of(1.0 - is_sure, picture)

    def ask(eeg: str, score: Score) -> None:
        out.append(NotSure(eeg, score, at_least(score.value, LEAST_BLIND, ".0%")))

    seen = told(seen)
    say('"Not sure": a subject who sees nothing.')
    ask("a subject who sees nothing", share(told(sessions.record(spec, blind)["sliding"])))
    if len(gaps := seen.in_gaps(RESPONSE_S)):
        ask(f"between pictures, from {RESPONSE_S:g} s after one's end", share(gaps))
    say('"Not sure": electrodes off.')
    spoiled = sessions.record(spec, spoil=open_inputs(everything, 0))
    ask("all electrodes off, inputs open", share(told(spoiled["sliding"])))
    silent = spoiled["sliding"].take(np.arange(1))
    silent = replace(silent, data=np.zeros_like(silent.data), picture=np.zeros(1, int))
    name = "all electrodes off, inputs at their limit (all windows are the same one)"
    ask(name, share(told(silent)))
    # Every electrode is off once.
    thirds = np.array_split(np.random.default_rng(0).permutation(everything), N_THIRDS)
    shorter = replace(sessions, n_trials=math.ceil(sessions.n_trials / N_THIRDS))
    for how, spoils in (
        ("open", [open_inputs(rows, 1 + i) for i, rows in enumerate(thirds)]),
        ("at their limit", [railed_inputs(rows) for rows in thirds]),
    ):
        parts = [told(shorter.record(spec, spoil=spoil)["sliding"]).inside() for spoil in spoils]
        name = f"inside a viewing, a third of the electrodes off, inputs {how}"
        out.append(NotSure(name, share(*parts)))
    out.append(NotSure("inside a viewing, with artefacts", share(seen.inside())))
    say('"Not sure": clean windows.')
    clean = share(told(sessions.record(spec, without_artefacts(p))["sliding"]).inside())
    bar = at_most(clean.value, MOST_CLEAN, ".0%")
    return [*out, NotSure("inside a viewing, without artefacts", clean, bar)]


def sureness(shares: list[NotSure]) -> tuple[Table, Values]:
    """Which EEG is answered with "not sure"."""
    table = Table(
        'Windows that are answered with "not sure"',
        ["EEG", "share", "windows", "bar"],
        [[s.eeg, written(s.score), str(s.score.n), s.bar] for s in shares],
        [
            "Sliding windows. Of a subject who sees nothing, everything else is as always, "
            f"artefacts too. An open input gives white noise of {OPEN_UV:g} uV, one at its limit a "
            "constant; of the thirds, every electrode is off once. Artefacts are blinks, muscle "
            "and pops. All EEG is simulated."
        ],
    )
    return table, {"not sure": {s.eeg: asdict(s) for s in shares}}
