"""LDA on every specification of a real case: what the painter is measured by, and given.

All choices are nested: what is taken for a fold was told best across the other folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from app.muse import PAINTER_SPECS, SPECS, Case, windows
from app.real_trials import Recorded
from models.training.lda import decide


@dataclass(frozen=True, slots=True, eq=False)
class Peer:
    """What LDA says of every trial when its fold is held out.

    Attributes
    ----------
    said : probabilities, (n, n_classes), by kind of question and name of the specification.
    inner : balanced accuracy across inner folds, (n_folds,), by the same.
    fold : (n,) of each trial.
    """

    said: dict[tuple[str, str], np.ndarray]
    inner: dict[tuple[str, str], np.ndarray]
    fold: np.ndarray

    @property
    def kinds(self) -> list[str]:
        """Kinds of questions: "picture", and "family" where families are no pictures."""
        return list(dict.fromkeys(kind for kind, _ in self.said))

    def painter_specs(self) -> list[str]:
        """For each fold the specification with the best mean over the kinds of questions."""
        names = [name for name in PAINTER_SPECS if (self.kinds[0], name) in self.inner]
        mean = [np.mean([self.inner[kind, name] for kind in self.kinds], axis=0) for name in names]
        return [names[best] for best in np.argmax(mean, axis=0)]

    def strongest_specs(self, kind: str) -> list[str]:
        """For each fold the specification that is best at a kind of question."""
        names = [name for name in SPECS if (kind, name) in self.inner]
        best = np.argmax([self.inner[kind, name] for name in names], axis=0)
        return [names[i] for i in best]

    def answers(self, kind: str, specs: Sequence[str]) -> np.ndarray:
        """Probabilities, (n, n_classes), each fold's by its own specification."""
        by_fold = [self.said[kind, name] for name in specs]
        return np.stack([by_fold[f][i] for i, f in enumerate(self.fold)])


def keep_lda(
    out: Path, case: Case, trials: Recorded, label: np.ndarray, specs: Sequence[str] = tuple(SPECS)
) -> Peer:
    """What `lda_of` says, kept in the file `out` and not computed again."""
    if not out.is_file():
        peer = lda_of(case, trials, label, specs)
        out.parent.mkdir(parents=True, exist_ok=True)
        said = {f"said/{kind}/{name}": values for (kind, name), values in peer.said.items()}
        inner = {f"inner/{kind}/{name}": values for (kind, name), values in peer.inner.items()}
        save_file(said | inner, out)
    tables: dict[str, dict[tuple[str, str], np.ndarray]] = {"said": {}, "inner": {}}
    for key, values in load_file(out).items():
        table, kind, name = key.split("/")
        tables[table][kind, name] = values
    return Peer(tables["said"], tables["inner"], trials.fold)


def lda_of(
    case: Case,
    trials: Recorded,
    label: np.ndarray,
    specs: Sequence[str] = tuple(SPECS),
    n_windows: int | None = None,
) -> Peer:
    """LDA for each kind of question and specification, every fold held out in turn.

    Parameters
    ----------
    label : (n,), that LDA is told.
    specs : names of the specifications.
    n_windows : how many of the windows to choose from; None for all.
    """
    family = np.array(case.families)[label]
    kinds = {"picture": label, "family": family}
    if len(set(case.families)) == len(case.families):
        del kinds["family"]
    said, inner = {}, {}
    for kind, told in kinds.items():
        for name in specs:
            choice = windows(SPECS[name])[:n_windows]
            said[kind, name], chosen = decide(trials.eeg[name], told, trials.fold, choice)
            inner[kind, name] = np.array([score for _, score in chosen])
    return Peer(said, inner, trials.fold)
