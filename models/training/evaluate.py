"""How good a bundle's pictures are, beside chance and beside EEG that says nothing.

DreamDiffusion's scores (Bai et al., arXiv 2306.16934) without their faults: expectations
instead of draws, the mean of several samples instead of the best, trials that training did
not see, and every score again for shuffled, noise and zero EEG.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from models.pipeline import EEGToImagePipeline
from models.training import metrics
from models.training.comparison import (
    BATCH,
    SEEN,
    Comparison,
    Metric,
    Metrics,
    Naming,
    See,
)
from models.training.metrics import Score
from models.training.prepared import APPEARANCE, PreparedSet
from models.training.scorers import Classifier, JudgeClassifier, NotMeasured, Scorers
from models.training.seen import unit_pictures
from models.training.trials import (
    SAME_CONCEPT,
    Condition,
    Options,
    Trials,
    label_names,
    others_of_a_group,
    paint_conditions,
)

# Pictures are compared pixel by pixel at this size: finer than any decoder is right in.
SIDE = 64
APPEARANCE_WORDS = {
    "value": "background lightness",
    "size": "size of the object",
    "x": "place of the object from left to right",
    "y": "place of the object from top to bottom",
}


def by_classifier(
    c: Comparison, classifier: Classifier, names: list[str], labels: np.ndarray
) -> tuple[Metrics, Naming | NotMeasured]:
    """N-way scores, with the label and with the paper's idea of the true class.

    Parameters
    ----------
    names : of the set's labels.
    labels : that the set's epochs have.
    """
    probabilities = c.look(classifier)
    of_seen = c.look_at_seen(classifier)
    classes = classifier.classes_of(names)
    if classifier.is_of_labels:
        compared = classes[labels]
        probabilities = {name: _among(values, compared) for name, values in probabilities.items()}
        of_seen = _among(of_seen, compared)
        classes = np.full(len(names), -1)
        classes[labels] = np.arange(len(labels))
    n_classes = of_seen.shape[1]
    n_way = min(c.options.n_way, n_classes)
    few = f" (not {c.options.n_way}: it has no more classes)" if n_way < c.options.n_way else ""
    label, image = c.trials.label, c.trials.image
    best = [k for k in (1, 5) if k < n_way]

    def top(k: int, truth: np.ndarray, by: str, meant: str) -> Metric:
        return c.metric(
            f"{n_way}-way top-{k}{by}",
            f"{classifier.name} finds the true class in the decoded picture, among {n_way} "
            f"classes{few}; the true class is {meant}",
            k / n_way,
            lambda painted, rows: metrics.n_way_top_k(
                probabilities[painted][rows], truth, n_way, k
            ),
        )

    out: Metrics = {}
    naming: Naming | NotMeasured
    if missing := sorted({names[n] for n in label if classes[n] < 0}):
        out["n_way_label"] = naming = NotMeasured(
            f"{classifier.name} has no class for {len(missing)} of the set's labels, as "
            f"'{missing[0]}'"
        )
    else:
        truth = classes[label]
        for k in best:
            metric = out[f"n_way_label_top_{k}"] = top(k, truth, "", "the label")
            upper = metrics.n_way_top_k(of_seen[image], truth, n_way, k)
            metric.scores[SEEN] = c.score(upper)
        out["label_probability"] = c.metric(
            "probability of the label",
            f"that {classifier.name} gives for the decoded picture",
            None,
            lambda painted, rows: probabilities[painted][rows, truth],
        )
        mine = probabilities["EEG"][c.conditions["EEG"].index[0]]
        is_known = classes >= 0
        said = np.flatnonzero(is_known)[mine[:, classes[is_known]].argmax(1)]
        naming = Naming(classifier.name, said)
    for k in best:
        truth = of_seen.argmax(1)[image]
        out[f"n_way_paper_top_{k}"] = top(
            k, truth, ", the paper's true class", "what it names in the seen picture"
        )
    return out, naming


def _among(probabilities: np.ndarray, compared: np.ndarray) -> np.ndarray:
    """Probabilities (n, n_classes) of the classes that are compared, were there no others."""
    chosen = probabilities[:, compared]
    total = np.maximum(chosen.sum(axis=1, keepdims=True), np.finfo(np.float32).tiny)
    out: np.ndarray = chosen / total
    return out


def name_by_concepts(
    pipeline: EEGToImagePipeline, concept: torch.Tensor | None, names: list[str]
) -> Naming | NotMeasured:
    """The concept nearest to each trial's EEG; the pictures take no part.

    Parameters
    ----------
    concept : (n,), that each trial's EEG is nearest to; None: of a bundle without concepts.
    names : of the set's labels.
    """
    table = pipeline.concepts
    if table is None or concept is None or list(table.config.names) != names:
        return NotMeasured("the bundle has no concepts, or others than the set's labels")
    return Naming("the concept nearest to the EEG", concept.numpy())


def by_concepts(
    c: Comparison, pipeline: EEGToImagePipeline, names: list[str], n_labels: int
) -> Metric:
    """Whether the concept nearest to the EEG is the label, one of `n_labels` in the set."""
    named = {}
    for painted, shards in c.painted.items():
        naming = name_by_concepts(pipeline, shards["concept"], names)
        assert isinstance(naming, Naming)
        named[painted] = naming.label
    return c.metric(
        "nearest concept",
        "the concept nearest to the EEG is the label; the pictures take no part",
        1 / n_labels,
        lambda painted, rows: (named[painted][rows] == c.trials.label).astype(float),
    )


def by_appearance(c: Comparison, judge: JudgeClassifier, appearance: np.ndarray) -> Metrics:
    """Whether colour, size and place are those of the seen picture, as the judge reads them.

    Parameters
    ----------
    appearance : (n_images, 6), of the seen pictures, in the order of `APPEARANCE`.
    """
    read = c.look(judge.appearance)
    seen = appearance[c.trials.image]

    def hue_error(painted: str, rows: np.ndarray) -> np.ndarray:
        angles = np.arctan2(read[painted][rows, 1], read[painted][rows, 0])
        turned = angles - np.arctan2(seen[:, 1], seen[:, 0])
        return np.asarray(np.degrees(np.abs((turned + np.pi) % (2 * np.pi) - np.pi)))

    out: Metrics = {
        "hue_error": c.metric(
            "background hue error",
            f"degrees between the background's hue as {judge.name} reads it in the decoded picture "
            "and that of the seen one; grey ones have some hue, too",
            90.0,
            hue_error,
            ".0f",
        )
    }
    for column, name in enumerate(APPEARANCE[2:], start=2):
        what = APPEARANCE_WORDS[name]

        def correlation(painted: str, rows: np.ndarray, column: int = column) -> np.ndarray:
            return metrics.correlation_parts(read[painted][rows, column], seen[:, column])

        out[f"{name}_correlation"] = c.metric(
            f"{what}, correlation",
            f"Pearson correlation of the {what}, as {judge.name} reads it in the decoded picture, "
            "with that of the seen one",
            0.0,
            correlation,
            ".3f",
        )
    return out


def by_similarity(
    c: Comparison, similarity: dict[str, np.ndarray], title: str, what: str
) -> tuple[Metric, Metric]:
    """Mean similarity of decoded and seen, and two-way identification by it.

    Parameters
    ----------
    similarity : (n_pictures, n_images) of each of the shards.
    title, what : of the similarity.
    """
    image = c.trials.image
    mean = c.metric(title, what, None, lambda painted, rows: similarity[painted][rows, image])
    identified = c.metric(
        f"two-way identification, {title}",
        f"share of the other {len(c.trials.images) - 1} seen pictures that the decoded one "
        "resembles less than its own",
        0.5,
        lambda painted, rows: metrics.two_way(similarity[painted][rows], image),
    )
    return mean, identified


def by_clip(c: Comparison, encode: See) -> Metrics:
    """Similarity, identification and retrieval in CLIP's space."""
    of_seen = metrics.unit(c.look_at_seen(encode))
    similarity = {name: metrics.unit(x) @ of_seen.T for name, x in c.look(encode).items()}
    out: Metrics = {}
    out["clip_similarity"], out["clip_two_way"] = by_similarity(
        c,
        similarity,
        "CLIP similarity",
        "cosine of CLIP's embeddings of the decoded and the seen picture",
    )
    for k in (k for k in (1, 5) if k < len(of_seen)):
        out[f"retrieval_top_{k}"] = retrieval(c, of_seen, k)
    return out


def retrieval(c: Comparison, of_seen: np.ndarray, k: int) -> Metric | NotMeasured:
    """Whether the seen picture is among the `k` nearest to the EEG's CLIP embedding.

    Parameters
    ----------
    of_seen : (n_images, clip_dim), embeddings of the seen pictures, of unit length.
    """
    n_images, dim = of_seen.shape
    embeds = {name: shards["clip_embeds"].numpy() for name, shards in c.painted.items()}
    found = embeds["EEG"].shape[1]
    if found != dim:
        return NotMeasured(
            f"the bundle puts EEG into a space of {found} dimensions, CLIP puts pictures into one "
            f"of {dim}; give the CLIP that the bundle was aligned with"
        )
    nearness = {name: metrics.unit(x) @ of_seen.T for name, x in embeds.items()}
    return c.metric(
        f"retrieval top-{k}",
        f"by the EEG's CLIP embedding, the seen picture is among the top {k} of {n_images}; the "
        "decoded pictures take no part",
        k / n_images,
        lambda painted, rows: metrics.retrieval_top_k(nearness[painted][rows], c.trials.image, k),
    )


def by_pixels(c: Comparison) -> Metrics:
    """Correlation, identification and structural similarity of pixels."""

    def small(pictures: torch.Tensor) -> torch.Tensor:
        return F.interpolate(pictures, (SIDE, SIDE), mode="bilinear", antialias=True).flatten(1)

    of_seen = metrics.standardised(c.look_at_seen(small))

    def correlate(pictures: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(metrics.standardised(small(pictures).numpy()) @ of_seen.T)

    out: Metrics = {}
    out["pixcorr"], out["pixel_two_way"] = by_similarity(
        c,
        c.look(correlate),
        "PixCorr",
        f"Pearson correlation of the decoded and the seen picture's pixels, at {SIDE} x {SIDE}",
    )
    ids = c.trials.images[torch.from_numpy(c.trials.image)]

    @torch.inference_mode()
    def structure(painted: str, rows: np.ndarray) -> np.ndarray:
        parts = []
        for part in torch.arange(len(rows)).split(BATCH):
            decoded = unit_pictures(c.painted[painted], torch.from_numpy(rows.copy())[part])
            seen = unit_pictures(c.seen, ids[part])
            if seen.shape != decoded.shape:
                size = decoded.shape[-2:]
                seen = F.interpolate(seen, size, mode="bilinear", antialias=True)
            parts.append(metrics.ssim(decoded, seen).numpy())
        return np.concatenate(parts)

    out["ssim"] = c.metric(
        "SSIM", "structural similarity of the decoded and the seen picture", None, structure
    )
    return out


@torch.inference_mode()
def by_inception(c: Comparison, inception: torch.nn.Module) -> Metric:
    """FID of all decoded and all seen pictures."""
    n_images = len(c.trials.images)
    scores = {}
    for name, condition in c.conditions.items():
        shards, rows = c.painted[condition.painted], torch.from_numpy(condition.index.reshape(-1))
        value = metrics.frechet_distance(
            inception,
            (unit_pictures(c.seen, part) for part in c.trials.images.split(BATCH)),
            (unit_pictures(shards, part) for part in rows.split(BATCH)),
        )
        scores[name] = Score(value, None, None, len(rows), n_images, "none: a distance of sets")
    what = (
        f"of {scores['EEG'].n} decoded and {n_images} seen pictures; lower is better. It is "
        "biased upwards for so few pictures (2,048 features want tens of thousands): compare it "
        "within this table only. It looks at no pairs, so shuffling changes nothing"
    )
    return Metric("FID", what, None, scores)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """What was found.

    Attributes
    ----------
    metrics : by name.
    comparison : the pictures.
    names : of the labels.
    naming : what each first sample was taken for, by the classifier or else from the EEG.
    nearest : the concept nearest to each trial's EEG.
    honesty : "simulated" or "replay", what kind of EEG it was.
    warnings : what a reader must know.
    """

    metrics: Metrics
    comparison: Comparison
    names: list[str]
    naming: Naming | NotMeasured
    nearest: Naming | NotMeasured
    honesty: str
    warnings: list[str]


def evaluate(
    pipeline: EEGToImagePipeline, data: PreparedSet, out: Path, options: Options, scorers: Scorers
) -> Evaluation:
    """Paint the trials of a prepared set into `out / "decoded"` and score them.

    Parameters
    ----------
    pipeline : the bundle.
    data : the prepared set, with pictures.
    out : folder; `decoded` in it must not exist.
    options : how.
    scorers : what to look with.

    Raises
    ------
    PreparedSetError, EpochShapeError, ScorerError
        The set, the bundle or the classifier do not go together; says why.
    """
    trials = Trials.choose(data, options)
    names = label_names(data.spec, int(trials.label.max()))
    label = data.epochs()["label"].numpy()
    labels = np.unique(label[label >= 0])
    if not isinstance(scorers.classifier, NotMeasured):
        # Now rather than after the painting, which may take hours.
        scorers.classifier.classes_of(names)
    painted, conditions = paint_conditions(pipeline, data, trials, out / "decoded", options)
    first = conditions["EEG"].index[0]
    has_concepts = "concept" in painted["EEG"].columns
    concept = painted["EEG"]["concept"][first] if has_concepts else None
    nearest = name_by_concepts(pipeline, concept, names)
    if isinstance(nearest, Naming):
        rng = np.random.default_rng(options.seed)
        others = conditions["EEG"].index[:, others_of_a_group(nearest.label, rng)]
        conditions[SAME_CONCEPT] = Condition("EEG", others)
    c = Comparison(trials, options, data.pictures(), painted, conditions)
    if isinstance(scorers.classifier, NotMeasured):
        found: Metrics = {"n_way": scorers.classifier}
        naming: Naming | NotMeasured = nearest
    else:
        found, naming = by_classifier(c, scorers.classifier, names, labels)
    if isinstance(nearest, Naming):
        found["nearest_concept"] = by_concepts(c, pipeline, names, len(labels))
    else:
        found["nearest_concept"] = nearest
    if isinstance(scorers.classifier, JudgeClassifier):
        if data.says_appearance:
            appearance = data.appearance()[trials.images].numpy()
            found |= by_appearance(c, scorers.classifier, appearance)
        else:
            found["appearance"] = NotMeasured("the set does not say what its pictures look like")
    if isinstance(scorers.encoder, NotMeasured):
        found["clip"] = scorers.encoder
    else:
        found |= by_clip(c, scorers.encoder)
    found |= by_pixels(c)
    if isinstance(scorers.inception, NotMeasured):
        found["fid"] = scorers.inception
    else:
        found["fid"] = by_inception(c, scorers.inception)
    confounded = data.spec.get("confounding", {}).get("warning", "").removeprefix("WARNING: ")
    warnings = [text[0].upper() + text[1:] for text in (confounded, *trials.warnings) if text]
    honesty = data.spec.get("honesty", "unlabelled")
    return Evaluation(found, c, names, naming, nearest, honesty, warnings)
