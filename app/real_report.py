"""Score painted pictures beside LDA on the same trials, and write the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from app.muse import SPECS, Case
from app.real_lda import Peer, lda_of
from app.real_trials import Recorded, permute_labels
from models.training.text_to_image import grid

N_BOOTSTRAP = 2000
N_PERMUTATIONS = 1000
N_LDA_PERMUTATIONS = 20
# The lower end of the difference's interval that the project asks for.
BAR = -0.05

# Scores (n, n_classes) and labels (n,) to a figure.
Figure = Callable[[np.ndarray, np.ndarray], float]
# A figure with its 95 % interval.
Measured = tuple[float, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a picture.

    Attributes
    ----------
    title : a few words.
    figure : the score.
    chance : of guessing.
    lda : kind of LDA whose probabilities answer it: "family" or "picture".
    """

    title: str
    figure: Figure
    chance: float
    lda: str


def questions(case: Case) -> list[Question]:
    """What is asked of a case's pictures."""
    n = len(case.names)

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
        Question(f"which of the {n}, balanced accuracy", balanced, 1 / n, "picture"),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Painted:
    """What was painted with one seed, and what was read from it.

    Attributes
    ----------
    images : of all trials, (n, pixels, pixels, 3), uint8.
    label : (n,), that training was told.
    read : scores by what the pictures were painted from, "trials", "noise" and "zeros", each
        (n, n_classes).
    meant : labels of the trials in whose place they stand, by the same, each (n,).
    """

    images: np.ndarray
    label: np.ndarray
    read: dict[str, np.ndarray]
    meant: dict[str, np.ndarray]

    @classmethod
    def of(
        cls, case: Case, label: np.ndarray, fold: np.ndarray, parts: Sequence[dict[str, np.ndarray]]
    ) -> Painted:
        """Put the folds' pictures together: `parts` in the order of folds."""
        images = np.zeros((len(label), *parts[0]["trials"].shape[1:]), np.uint8)
        read: dict[str, list[np.ndarray]] = {"noise": [], "zeros": []}
        meant: dict[str, list[np.ndarray]] = {"noise": [], "zeros": []}
        for number, part in enumerate(parts):
            rows = np.flatnonzero(fold == number)
            images[rows] = part["trials"]
            noise = np.stack([case.read(picture) for picture in part["noise"]])
            spread = np.linspace(0, len(rows) - 1, len(noise)).round().astype(int)
            read["noise"].append(noise)
            meant["noise"].append(label[rows[spread]])
            # One picture stands for all trials of the fold.
            read["zeros"].append(np.tile(case.read(part["zeros"][0]), (len(rows), 1)))
            meant["zeros"].append(label[rows])
        whole = {"trials": np.stack([case.read(picture) for picture in images])}
        return cls(
            images,
            label,
            whole | {name: np.concatenate(found) for name, found in read.items()},
            {"trials": label} | {name: np.concatenate(found) for name, found in meant.items()},
        )


def measure(
    figure: Callable[[np.ndarray, int], float], group: np.ndarray, n_seeds: int = 1, seed: int = 0
) -> Measured:
    """A figure's mean over seeds, with its 95 % interval by drawing groups and seeds again.

    Parameters
    ----------
    figure : from rows of trials and the number of a seed to the figure.
    group : (n,), of each trial; groups are drawn whole.
    """
    rng = np.random.default_rng(seed)
    rows_of = [np.flatnonzero(group == g) for g in np.unique(group)]
    values = []
    for _ in range(N_BOOTSTRAP):
        rows = np.concatenate([rows_of[g] for g in rng.integers(len(rows_of), size=len(rows_of))])
        drawn = Counter(rng.integers(n_seeds, size=n_seeds).tolist())
        values.append(sum(n * figure(rows, s) for s, n in drawn.items()) / n_seeds)
    low, high = np.nanpercentile(values, [2.5, 97.5])
    whole = np.arange(len(group))
    mean = float(np.mean([figure(whole, s) for s in range(n_seeds)]))
    return mean, (float(low), float(high))


def answer(
    question: Question,
    painted: Sequence[np.ndarray],
    ldas: dict[str, np.ndarray],
    label: np.ndarray,
    group: np.ndarray,
) -> dict[str, Any]:
    """Score of the pictures, of each LDA, and of the paired differences.

    Parameters
    ----------
    painted : scores of each seed, (n, n_classes).
    ldas : scores by name, (n, n_classes).
    label, group : (n,).
    """
    figure, n_seeds = question.figure, len(painted)
    scores: dict[str, Any] = {
        "chance": question.chance,
        "painted": measure(lambda r, s: figure(painted[s][r], label[r]), group, n_seeds),
        "each_seed": [figure(one, label) for one in painted],
    }
    for name, lda in ldas.items():

        def peer(rows: np.ndarray, _seed: int, lda: np.ndarray = lda) -> float:
            return figure(lda[rows], label[rows])

        def difference(rows: np.ndarray, s: int, lda: np.ndarray = lda) -> float:
            return figure(painted[s][rows], label[rows]) - figure(lda[rows], label[rows])

        scores[name] = measure(peer, group)
        scores[f"less {name}"] = measure(difference, group, n_seeds)
        scores[f"bar {name}"] = scores[f"less {name}"][1][0] >= BAR
    return scores


def _told(question: Question, one: Painted, group: np.ndarray) -> Measured:
    """How often the pictures show what training was told of their trials."""
    return measure(lambda r, _: question.figure(one.read["trials"][r], one.label[r]), group)


def is_shown(case: Case, one: Painted) -> np.ndarray:
    """Whether each picture shows what is read in it, (n,)."""
    return np.asarray(one.read["trials"].max(axis=1) >= case.shown_from)


def _spread(values: Sequence[float]) -> tuple[float, float]:
    return float(np.mean(values)), float(np.std(values))


def write_report(
    out: Path,
    case: Case,
    trials: Recorded,
    peer: Peer,
    painted: Sequence[Painted],
    permuted: Sequence[Painted],
    mixtures: dict[str, dict[str, float]],
    guidance: float,
) -> dict[str, Any]:
    """Write `report.md`, `scores.json` and `grid.png` to `out`.

    Parameters
    ----------
    painted : of each seed.
    permuted : learnt and painted with permuted labels.
    mixtures : how many pictures of mixed captions showed the weightier, by guidance and case.
    """
    out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    specs = peer.painter_specs()
    labels = [permute_labels(trials, rng) for _ in range(N_LDA_PERMUTATIONS)]
    of_permuted = [lda_of(case, trials, label, (next(iter(SPECS)),), 1) for label in labels]
    others = [permute_labels(trials, rng) for _ in range(N_PERMUTATIONS)]
    scores: dict[str, Any] = {}
    for question in questions(case):
        kind, figure = question.lda, question.figure
        ldas = {
            "LDA on the same epochs": peer.answers(kind, specs),
            "strongest LDA": peer.answers(kind, peer.strongest_specs(kind)),
        }
        reading = [one.read["trials"] for one in painted]
        found = answer(question, reading, ldas, trials.label, trials.group)
        found["permuted"] = [_told(question, one, trials.group) for one in permuted]
        for name in ("noise", "zeros"):
            found[name] = _spread([figure(p.read[name], p.meant[name]) for p in painted])
        found["other_trials"] = _spread([figure(reading[0], label) for label in others])
        found["lda_permuted"] = _spread(
            [
                figure(said.answers(kind, [next(iter(SPECS))] * len(specs)), label)
                for said, label in zip(of_permuted, labels, strict=True)
            ]
        )
        found["strongest_specs"] = peer.strongest_specs(kind)
        scores[question.title] = found
    whole = {
        "pictures": case.about,
        "held_out": case.held_out,
        "n_trials": len(trials.label),
        "n_seeds": len(painted),
        "specs": specs,
        "guidance": guidance,
        "shown": float(np.mean([is_shown(case, p).mean() for p in painted])),
        "mixtures_read_rightly": mixtures,
        "scores": scores,
    }
    (out / "scores.json").write_text(json.dumps(whole, indent=2), encoding="utf-8")
    (out / "report.md").write_text(_text(whole), encoding="utf-8")
    _grid(case, trials, painted[0].images).save(out / "grid.png")
    print(_text(whole))
    return whole


def _text(whole: dict[str, Any]) -> str:
    scores, rows = whole["scores"], []

    def add(title: str, cell: Callable[[dict[str, Any]], str]) -> None:
        rows.append(f"| {title} | " + " | ".join(cell(s) for s in scores.values()) + " |")

    def interval(measured: Measured) -> str:
        value, (low, high) = measured
        return f"{value:.3f} ({low:.3f} to {high:.3f})"

    def spread(both: tuple[float, float]) -> str:
        return f"{both[0]:.3f} ± {both[1]:.3f}"

    def verdict(s: dict[str, Any], name: str) -> str:
        return f"{interval(s[f'less {name}'])}, {'met' if s[f'bar {name}'] else 'not met'}"

    add("chance", lambda s: f"{s['chance']:.3f}")
    add("**painted**", lambda s: f"**{interval(s['painted'])}**")
    add("each seed", lambda s: ", ".join(f"{value:.3f}" for value in s["each_seed"]))

    def add_peer(name: str) -> None:
        add(name, lambda s: interval(s[name]))
        add(f"painted less {name}; bar", lambda s: verdict(s, name))

    def add_permuted(i: int) -> None:
        add("learnt and painted with permuted labels", lambda s: interval(s["permuted"][i]))

    for name in ("LDA on the same epochs", "strongest LDA"):
        add_peer(name)
    n_permuted = len(next(iter(scores.values()))["permuted"])
    for i in range(n_permuted):
        add_permuted(i)
    add("painted from noise", lambda s: spread(s["noise"]))
    add("painted from zeros", lambda s: spread(s["zeros"]))
    add("pictures of other trials", lambda s: spread(s["other_trials"]))
    add("LDA, permuted labels", lambda s: spread(s["lda_permuted"]))
    mixtures = "; ".join(
        f"{g}: " + ", ".join(f"{name} {value:.1%}" for name, value in right.items())
        for g, right in whole["mixtures_read_rightly"].items()
    )
    lines = [
        f"Real EEG; {whole['n_trials']} trials in {len(whole['specs'])} folds, each "
        f"{whole['held_out']} held out whole; {whole['n_seeds']} seeds. Pictures: "
        f"{whole['pictures']}.",
        "",
        "| | " + " | ".join(scores) + " |",
        "| --- |" + " --- |" * len(scores),
        *rows,
        "",
        f"Intervals: 95 %, by drawing whole {whole['held_out']}s and seeds again; ±: standard "
        f"deviation. The bar: the difference's interval begins at {BAR} or above.",
        "",
        "Epochs of the folds: " + "; ".join(whole["specs"]) + ". Strongest LDA: "
        + ". ".join(f"{t}: " + "; ".join(s["strongest_specs"]) for t, s in scores.items()) + ".",
        "",
        f"Mixtures of two captions read as the weightier, by guidance: {mixtures}. Chosen: "
        f"{whole['guidance']:g}. "
        f"{whole['shown']:.1%} of the pictures show what is read in them, and not just a trace.",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _grid(case: Case, trials: Recorded, images: np.ndarray) -> Any:
    """Four rows of twelve pairs, drawn by seed: what was seen above what was painted."""
    chosen = np.random.default_rng(0).permutation(len(images))[:48]
    chosen = chosen[: len(chosen) // 12 * 12] if len(chosen) >= 12 else chosen
    seen = np.stack([case.draw(int(i), None) for i in trials.label[chosen]])
    pairs = [
        np.concatenate(source[i : i + 12], axis=1)
        for i in range(0, len(chosen), 12)
        for source in (seen, images[chosen])
    ]
    return grid(np.stack(pairs), 1)
