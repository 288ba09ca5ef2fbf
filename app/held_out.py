"""What was found of held-out runs, on disk: a calibration that was stopped goes on from it."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from app.errors import SummaryError
from models.training.personal import HeldOut, Method


class HeldOutFiles:
    """Keeps each result in a file of its own, named by all that it depends on.

    Parameters
    ----------
    folder : for the files; what it held of other sessions stays until `clear`.
    inputs : digests of what every result depends on, as the sessions and the bundle.
    """

    def __init__(self, folder: Path, inputs: Iterable[str]) -> None:
        self._folder, self._inputs = folder, list(inputs)

    def get(
        self, methods: list[Method], options: tuple[object, ...], make: Callable[[], HeldOut]
    ) -> HeldOut:
        """The result of these methods and options; made if there is none.

        Raises
        ------
        SummaryError
            It cannot be written.
        """
        known = [*self._inputs, *map(str, methods), str(options)]
        path = self._folder / f"{hashlib.sha256(repr(known).encode()).hexdigest()[:24]}.npz"
        try:
            with path.open("rb") as file, np.load(file) as found:
                return HeldOut(found["scores"], [methods[i] for i in found["chosen"]])
        # None yet, or one that a full disk or a kill left half.
        except (OSError, EOFError, KeyError, ValueError, IndexError, zipfile.BadZipFile):
            held_out = make()
        chosen = [methods.index(method) for method in held_out.chosen]
        unfinished = path.with_suffix(".part")
        try:
            # A person's folder is the operator's alone, as what lies in it.
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with unfinished.open("wb") as to:
                np.savez(to, scores=held_out.scores, chosen=np.array(chosen, int))
            unfinished.rename(path)
        except OSError as error:
            raise SummaryError(
                f"{path} cannot be written ({error.strerror}). Make room, or name another folder "
                "with --out."
            ) from error
        return held_out

    def clear(self) -> None:
        """Delete all of it: it was needed for going on alone."""
        shutil.rmtree(self._folder, ignore_errors=True)


def digest_of(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
