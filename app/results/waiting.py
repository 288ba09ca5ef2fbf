"""How long a viewer waits for the right picture."""

from __future__ import annotations

import numpy as np

IN_A_ROW = 3


def time_to_right(
    right: np.ndarray, last: np.ndarray, picture: np.ndarray, onset: np.ndarray
) -> np.ndarray:
    """Seconds from each picture's onset to the first of three right frames in a row.

    Parameters
    ----------
    right : (n,) bool, of the frames in the order in which they come.
    last : (n,), seconds; a frame counts from the last sample that it was painted from.
    picture : (n,), the picture that was seen at that moment.
    onset : (n_pictures,), seconds.

    Returns
    -------
    array of shape (n_pictures,); infinite where no three came while the picture was seen.

    >>> right = np.array([True, False, True, True, True])
    >>> last = np.array([0.2, 0.4, 0.6, 0.8, 1.0])
    >>> time_to_right(right, last, np.zeros(5, int), np.zeros(1)).tolist()
    [0.6]
    """
    out = np.full(len(onset), np.inf)
    for number in range(len(onset)):
        frames = np.flatnonzero(picture == number)
        for at in range(len(frames) - IN_A_ROW + 1):
            if right[frames[at : at + IN_A_ROW]].all():
                out[number] = last[frames[at]] - onset[number]
                break
    return out
