"""Score painted pictures beside LDA on the same trials, and write the report."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from app.drawn_model import paint_captions
from app.muse import Case, windows
from models.training.lda import decide
from models.training.text_to_image import grid

if TYPE_CHECKING:
    from app.real_case import Recorded

N_BOOTSTRAP = 2000
N_PERMUTATIONS = 1000
N_LDA_PERMUTATIONS = 20
N_CAPTION_PICTURES = 40
# The lower end of the difference's interval that the project asks for.
BAR = -0.05

# Scores (n, n_classes) and labels (n,) to a figure.
Figure = Callable[[np.ndarray, np.ndarray], float]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a picture.

    Attributes
    ----------
    title : a few words.
    figure : the score.
    chance : of guessing.
    lda : name of the LDA whose probabilities answer it: "family" or "picture".
    """

    title: str
    figure: Figure
    chance: float
    lda: str


def questions(case: Case) -> list[Question]:
    """What is asked of a case's pictures."""
    n = len(case.names)

    def accuracy(scores: np.ndarray, label: np.ndarray) -> float:
        return float((scores.argmax(axis=1) == label).mean())

    def balanced(scores: np.ndarray, label: np.ndarray) -> float:
        return float(balanced_accuracy_score(label, scores.argmax(axis=1)))

    if n == 2:

        def auc(scores: np.ndarray, label: np.ndarray) -> float:
            return float(roc_auc_score(label, scores[:, 1] - scores[:, 0]))

        return [
            Question(f"{case.names[0]} or {case.names[1]}, AUC", auc, 0.5, "picture"),
            Question("the same, balanced accuracy", balanced, 0.5, "picture"),
        ]
    family = np.array(case.families)

    def family_balanced(scores: np.ndarray, label: np.ndarray) -> float:
        if scores.shape[1] != len(family):
            said = scores.argmax(axis=1)
        else:
            said = family[scores.argmax(axis=1)]
        return float(balanced_accuracy_score(family[label], said))

    return [
        Question("low or high frequency, balanced accuracy", family_balanced, 0.5, "family"),
        Question(f"which of the {n}, accuracy", accuracy, 1 / n, "picture"),
    ]


def lda_answers(
    case: Case, trials: Recorded, label: np.ndarray, n_windows: int | None = None
) -> dict[str, np.ndarray]:
    """Probabilities of LDA for each kind of question, every fold held out in turn.

    Parameters
    ----------
    n_windows : how many of the windows to choose from; None for all.
    """
    family = np.array(case.families)[label]
    kinds = {"picture": label, "family": family}
    if len(set(case.families)) == len(case.families):
        del kinds["family"]
    return {
        kind: decide(trials.eeg, told, trials.fold, windows()[:n_windows])[0]
        for kind, told in kinds.items()
    }


def interval(
    figure: Callable[[np.ndarray], float], group: np.ndarray, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of a figure of trials, by drawing whole groups again.

    Parameters
    ----------
    figure : from rows of trials to the figure.
    group : (n,), of each trial.
    """
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(group == g) for g in np.unique(group)]
    values = []
    for _ in range(N_BOOTSTRAP):
        drawn = rng.integers(len(rows_of), size=len(rows_of))
        values.append(figure(np.concatenate([rows_of[g] for g in drawn])))
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def answer(
    question: Question,
    painted: np.ndarray,
    lda: np.ndarray,
    label: np.ndarray,
    group: np.ndarray,
    shuffled: list[np.ndarray],
    lda_shuffled: list[float],
) -> dict[str, Any]:
    """Score of the pictures, of LDA, and of their difference, beside what chance gives.

    Parameters
    ----------
    painted, lda : scores, (n, n_classes).
    label, group : (n,).
    shuffled : permuted labels, each (n,).
    lda_shuffled : LDA's figure when it learnt and was scored with permuted labels.
    """
    figure = question.figure

    def difference(rows: np.ndarray) -> float:
        return figure(painted[rows], label[rows]) - figure(lda[rows], label[rows])

    chance = [figure(painted, other) for other in shuffled]
    low, high = interval(difference, group)
    return {
        "painted": figure(painted, label),
        "painted_interval": interval(lambda r: figure(painted[r], label[r]), group),
        "painted_shuffled": [float(np.mean(chance)), float(np.std(chance))],
        "lda": figure(lda, label),
        "lda_interval": interval(lambda r: figure(lda[r], label[r]), group),
        "lda_permuted": [float(np.mean(lda_shuffled)), float(np.std(lda_shuffled))],
        "difference": difference(np.arange(len(label))),
        "difference_interval": [low, high],
        "is_bar_met": low >= BAR,
        "chance": question.chance,
    }


def write_report(
    out: Path,
    case: Case,
    trials: Recorded,
    painted: np.ndarray,
    is_done: np.ndarray,
    base: Path,
    clip: Path,
) -> dict[str, Any]:
    """Write `report.md`, `scores.json` and `grid.png` to `out`.

    Parameters
    ----------
    painted : pictures of all trials, (n, pixels, pixels, 3), uint8.
    is_done : (n,), whether a trial was painted.
    """
    from app.real_case import permute_labels

    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    reading = np.stack([case.read(picture) for picture in painted])
    captions = [c for c in case.captions for _ in range(N_CAPTION_PICTURES)]
    told = np.repeat(np.arange(len(case.names)), N_CAPTION_PICTURES)
    named = [case.read(p).argmax() for p in paint_captions(base, clip, captions)]
    right_of_captions = float((np.array(named) == told).mean())

    answers = lda_answers(case, trials, trials.label)
    permuted = [permute_labels(trials, rng) for _ in range(N_LDA_PERMUTATIONS)]
    of_permuted = [lda_answers(case, trials, label, n_windows=1) for label in permuted]
    shuffled = [permute_labels(trials, rng)[is_done] for _ in range(N_PERMUTATIONS)]
    scores: dict[str, Any] = {}
    for question in questions(case):
        by_chance = [
            question.figure(found[question.lda], label)
            for found, label in zip(of_permuted, permuted, strict=True)
        ]
        scores[question.title] = answer(
            question,
            reading[is_done],
            answers[question.lda][is_done],
            trials.label[is_done],
            trials.group[is_done],
            shuffled,
            by_chance,
        )
    whole = {
        "pictures": case.about,
        "held_out": case.held_out,
        "n_trials": int(is_done.sum()),
        "n_folds": len(np.unique(trials.fold[is_done])),
        "painted_from_captions_and_read_rightly": right_of_captions,
        "scores": scores,
    }
    (out / "scores.json").write_text(json.dumps(whole, indent=2), encoding="utf-8")
    (out / "report.md").write_text(_text(whole), encoding="utf-8")
    _grid(case, trials, painted, is_done).save(out / "grid.png")
    print(_text(whole))
    return whole


def _text(whole: dict[str, Any]) -> str:
    lines = [
        f"Real EEG; {whole['n_trials']} trials in {whole['n_folds']} folds, each "
        f"{whole['held_out']} held out whole. Pictures: {whole['pictures']}. Painted from the "
        f"right caption, {whole['painted_from_captions_and_read_rightly']:.1%} are read rightly.",
        "",
        "| question | painted | pictures of other trials | LDA | LDA, permuted labels | "
        "painted less LDA | bar |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for title, s in whole["scores"].items():

        def with_interval(name: str, s: dict[str, Any] = s) -> str:
            low, high = s[f"{name}_interval"]
            return f"{s[name]:.3f} ({low:.3f} to {high:.3f})"

        others = [f"{s[n][0]:.3f} ± {s[n][1]:.3f}" for n in ("painted_shuffled", "lda_permuted")]
        lines.append(
            f"| {title} (chance {s['chance']:.3f}) | {with_interval('painted')} | {others[0]} | "
            f"{with_interval('lda')} | {others[1]} | {with_interval('difference')} | "
            f"{'met' if s['is_bar_met'] else 'not met'} |"
        )
    lines += [
        "",
        f"Intervals: 95 %, by drawing whole {whole['held_out']}s again. The bar: the difference's "
        f"interval begins at {BAR} or above. Grid: seen above painted, drawn by seed.",
    ]
    return "\n".join(lines) + "\n"


def _grid(case: Case, trials: Recorded, painted: np.ndarray, is_done: np.ndarray) -> Any:
    """Four rows of twelve pairs, drawn by seed: what was seen above what was painted."""
    done = np.flatnonzero(is_done)
    chosen = np.random.default_rng(0).permutation(done)[:48]
    chosen = chosen[: len(chosen) // 12 * 12] if len(chosen) >= 12 else chosen
    seen = np.stack([case.draw(int(i), None) for i in trials.label[chosen]])
    pairs = [
        np.concatenate(source[i : i + 12], axis=1)
        for i in range(0, len(chosen), 12)
        for source in (seen, painted[chosen])
    ]
    return grid(np.stack(pairs), 1)
