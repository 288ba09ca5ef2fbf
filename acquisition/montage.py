"""From a headset's electrodes to the model's."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from acquisition.epoch_spec import EpochSpec
from acquisition.errors import MontageError

FEWEST_ELECTRODES = 3
# Length in metres over which the potential on the scalp changes: 0.10 is the median over all
# pairs of eight occipital electrodes (3 to 11 cm apart) in 223 s of SSVEP, 0.5 to 40 Hz.
# Neighbours of a 32-electrode cap (5 cm) then share a third of their variance.
CORRELATION_LENGTH = 0.10
# How much the splines are smoothed. mne's own 1e-5 suits whole caps; beyond the edge of a few
# occipital electrodes it multiplies noise by 33.
SMOOTHING = (1e-5, 1e-4, 1e-3, 1e-2)

# Names of 1958 that are still on many headsets, and their names of today.
ALIASES = {"t3": "t7", "t4": "t8", "t5": "p7", "t6": "p8"}
# What devices and file formats put before and behind a name: "EEG Fp1-REF", "Fc5.".
_BEFORE = re.compile(r"^(eeg|ch)[\s_:-]+")
_BEHIND = re.compile(r"[\s_:-]+(ref|le|cle|avg|av|ar|org|a1|a2|a1a2|m1|m2|m1m2)$")


def electrode_key(name: str) -> str:
    """What two names of the same electrode have in common.

    >>> electrode_key("EEG T3-REF"), electrode_key("Fc5."), electrode_key("FP1")
    ('t7', 'fc5', 'fp1')
    """
    key = name.strip().lower().strip(".")
    key = _BEHIND.sub("", _BEFORE.sub("", key)).strip()
    return ALIASES.get(key, key)


@cache
def electrode_positions(montage: str) -> Mapping[str, tuple[float, float, float]]:
    """Positions on the head by `electrode_key`, from one of mne's montages.

    Returns
    -------
    metres from the centre of the head: x to the right, y to the front, z up.

    Raises
    ------
    MontageError
        mne knows no such montage.
    """
    import mne  # takes up to a second, so only when needed

    known = mne.channels.get_builtin_montages()
    # mne 1.13 renamed standard_1005 to colin27_1005; the positions are the same.
    name = montage if montage in known else montage.replace("standard_", "colin27_", 1)
    if name not in known:
        raise MontageError(
            f"The bundle's electrodes are placed by a montage called '{montage}', which mne does "
            f"not have. It has {', '.join(known)}. Correct montage in the bundle's epoch_spec.json."
        )
    ch_pos = mne.channels.make_standard_montage(name).get_positions()["ch_pos"]
    names, points = list(ch_pos), np.array(list(ch_pos.values()), np.float64)
    points = points - _sphere_centre(points)
    return {
        electrode_key(n): (float(x), float(y), float(z))
        for n, (x, y, z) in zip(names, points, strict=True)
    }


def _sphere_centre(points: np.ndarray) -> np.ndarray:
    """Centre of the sphere that fits points of shape (n, 3) best (least squares)."""
    # |p|^2 = 2 p.c + (r^2 - |c|^2) is linear in c and in the bracket.
    equations = np.column_stack([2 * points, np.ones(len(points))])
    solution, *_ = np.linalg.lstsq(equations, (points**2).sum(axis=1), rcond=None)
    return np.asarray(solution[:3])


@dataclass(frozen=True, slots=True, eq=False)
class Montage:
    """How the model's electrodes are made from a headset's.

    Attributes
    ----------
    matrix : array of shape (n_model, n_headset), float64; the model's electrodes are
        `matrix @ data`. An electrode that is present is taken as it is; the others are
        estimated from all that are known, by spherical splines (Perrin et al. 1989,
        doi:10.1016/0013-4694(89)90180-6).
    fidelity : 0 to 1, see `fidelity`.
    sentence : what people should know about it.
    """

    matrix: np.ndarray
    fidelity: float
    sentence: str

    @classmethod
    def from_channels(cls, ch_names: Sequence[str], spec: EpochSpec) -> Montage:
        """The montage of a headset with the electrodes `ch_names` for a bundle.

        Raises
        ------
        MontageError
            Fewer than three electrodes of the headset are known, or the bundle names
            electrodes that its own montage does not place.
        """
        places = electrode_positions(spec.montage)
        wanted = [electrode_key(name) for name in spec.ch_names]
        unplaced = [n for n, key in zip(spec.ch_names, wanted, strict=True) if key not in places]
        if unplaced:
            raise MontageError(
                f"The montage {spec.montage} does not place the bundle's {_listed(unplaced)}. "
                "Correct ch_names or montage in the bundle's epoch_spec.json."
            )
        columns: dict[str, int] = {}  # known electrodes; of two with the same place the first
        unknown: list[str] = []
        for column, name in enumerate(ch_names):
            key = electrode_key(name)
            if key in places:
                columns.setdefault(key, column)
            else:
                unknown.append(name)
        if len(columns) < FEWEST_ELECTRODES:
            raise MontageError(
                "At least three electrodes with 10-20 names are needed; the headset has "
                f"{_listed(ch_names)}, of which "
                f"{('none is', 'one is', 'two are')[len(columns)]} known. "
                "Give the names in the order of the channels: --ch-names Fp1,Fp2,C3,..."
            )
        have = np.array([places[key] for key in columns])
        want = np.array([places[key] for key in wanted])
        matrix = np.zeros((len(wanted), len(ch_names)))
        matrix[:, list(columns.values())] = _splines(have, want)
        n_present = 0
        for row, key in enumerate(wanted):
            if key in columns:
                matrix[row] = 0
                matrix[row, columns[key]] = 1
                n_present += 1
        figure = fidelity(have, want)
        return cls(matrix, figure, _sentence(n_present, len(wanted), figure, unknown))


def _splines(have: np.ndarray, want: np.ndarray) -> np.ndarray:
    """Spherical splines, as smooth as explains most of the field; (n_want, n_have)."""
    from mne.channels.interpolation import _make_interpolation_matrix

    among, across = _covariance(have, have), _covariance(want, have)

    def unexplained(matrix: np.ndarray) -> float:
        return float(((matrix @ among - 2 * across) * matrix).sum())

    return min((_make_interpolation_matrix(have, want, a) for a in SMOOTHING), key=unexplained)


def fidelity(have: np.ndarray, want: np.ndarray) -> float:
    """Share of the wanted electrodes' variance that the ones at hand can tell, 0 to 1.

    The potential on the scalp is taken as a random field whose correlation falls with
    the distance d as exp(-d / 10 cm). Each wanted electrode is predicted from those at
    hand by the best linear estimate (kriging); the figure is the share of variance so
    explained, averaged over the wanted electrodes: 1 where all are present. Another
    electrode can only raise it. It is an upper bound for this field, since splines do
    not know the field's covariance, and says nothing about the contact's quality.

    Parameters
    ----------
    have, want : arrays of shape (n, 3), metres.
    """
    among, across = _covariance(have, have), _covariance(want, have)
    explained = (across * np.linalg.solve(among, across.T).T).sum(axis=1)
    return float(np.clip(explained, 0, 1).mean())


def _covariance(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    distance = np.linalg.norm(a[:, np.newaxis] - b[np.newaxis], axis=2)
    return np.asarray(np.exp(-distance / CORRELATION_LENGTH))


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def _sentence(n_present: int, n_model: int, figure: float, unknown: Sequence[str]) -> str:
    if n_present == n_model:
        text = f"All {n_model} electrodes of the model are present: fidelity {figure:.2f}."
    else:
        are = "is" if n_present == 1 else "are"
        missing = n_model - n_present
        others = "one is" if missing == 1 else f"{missing} are"
        text = (
            f"{n_present or 'None'} of the model's {n_model} electrodes {are} present; "
            f"the other {others} estimated: fidelity {figure:.2f}."
        )
    if unknown:
        verb = "is" if len(unknown) == 1 else "are"
        text += f" {_listed(unknown)} {verb} not used: no such electrode is known."
    return text
