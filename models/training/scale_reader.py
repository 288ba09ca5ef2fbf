"""The scale model's own reader and population: templates from many sessions.

A reader of marker-locked epochs is LDA of window means; one of sliding windows compares them with
mean windows at every lag. Both come of averages over sessions, in minutes and without a GPU.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from models.errors import TrainingError
from models.pipeline import EEGToImagePipeline, load_bundle
from models.template_reader import TemplateReader
from models.training.bundle import Sampler, save_variant, unseen
from models.training.population import Population, fit_population
from models.training.prepared import PreparedSet
from models.training.seen import SeenEpochs
from models.training.templates import (
    Slots,
    Weighed,
    discriminant,
    features_of,
    means_of,
    ridged,
    set_farthest,
    set_lags,
    set_weights,
    set_words,
    slots_of,
)
from models.training.viewed import ViewedSet

PART = 2048
# Of a window, and of the population's, in samples.
WIDTH, POPULATION_WIDTH = 8, 16
# From the appearance of a picture to that of the next, at least: the simulated subject's last 2 s,
# with 0.5 s of nothing between.
APART_S = 2.5
# Seconds of a response that a window holds, at least.
LEAST_S = 0.3
# Blank windows that the threshold is found with.
N_BLANK = 2000


def _long_set(folder: Path, n_times: int) -> tuple[PreparedSet, int]:
    """A set of long epochs, and the sample at which a marker-locked epoch begins in them."""
    data = PreparedSet(folder)
    spec = data.spec["epoch_spec"]
    longer = spec["n_times"] - n_times
    if spec["normalisation"] != "none" or longer < n_times:
        raise TrainingError(
            f"{folder} does not hold long epochs in microvolts. Prepare it by an epoch "
            f'specification with "normalisation": "none" and at least {2 * n_times} samples.'
        )
    return data, longer


def population_of(folder: Path, spec: dict[str, float]) -> Population:
    """The responses of the subjects of a prepared set of long epochs.

    Parameters
    ----------
    folder : of the set.
    spec : of marker-locked epochs, as a bundle's `epoch_spec.json` holds it.

    Raises
    ------
    PreparedSetError, TrainingError
        It does not hold long epochs of several subjects.
    """
    n_times = int(spec["n_times"])
    data, _ = _long_set(folder, n_times)
    own = data.spec["epoch_spec"]
    start = round((spec["tmin"] - own["tmin"]) * own["sfreq"])
    epochs = data.epochs()
    subject, label = epochs["subject"].numpy(), epochs["label"].numpy()
    numbers = np.unique(subject)
    if len(numbers) < 3:
        raise TrainingError(
            f"{folder} has epochs of {len(numbers)} subject(s). How subjects differ can be told of "
            "a dozen or more."
        )
    found = []
    for number in numbers:
        rows = np.flatnonzero(subject == number)
        eeg = epochs.rows("eeg", torch.from_numpy(rows)).float().numpy()
        found.append((means_of(_levelled(eeg, start, n_times), POPULATION_WIDTH), label[rows]))
    n_concepts = 1 + int(label.max())
    return fit_population(found, n_concepts, n_times // POPULATION_WIDTH, POPULATION_WIDTH)


def _levelled(eeg: np.ndarray, start: int, n_times: int) -> np.ndarray:
    """Long epochs from `start` on, each as loud in its marker-locked part as they usually are.

    Blinks would else say more about the noise than all other epochs together.
    """
    locked = eeg[:, :, start : start + n_times]
    deviation = np.maximum(locked.std(axis=2, keepdims=True), 1.0)
    level = locked.mean(axis=2, keepdims=True)
    usual = np.median(deviation, axis=0)
    return np.asarray((eeg[:, :, start:] - level) / deviation * usual)


def train_reader(
    bundle: Path,
    out: Path,
    locked: Path,
    long: Path,
    held_out: Path,
    clip: Path,
    population: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Give a bundle a reader, and the population that a person's is made by.

    Parameters
    ----------
    bundle : whose encoder is weighed in.
    out : folder of the bundle with the reader.
    locked : prepared set of marker-locked epochs with captions, that LDA and looks learn from.
    long : set of long epochs in microvolts, of the same subject.
    held_out : set of both kinds of epochs, that reader and encoder are weighed on.
    clip : folder of the frozen CLIP and its words.
    population : set of long epochs of many subjects.

    Raises
    ------
    PreparedSetError, TrainingError, BundleError
    """
    pipeline = load_bundle(bundle)
    if pipeline.concepts is None:
        raise TrainingError(f"{bundle} has no concepts, so nothing is there to be read.")
    spec = PreparedSet(locked).spec["epoch_spec"]
    encoder, unet = pipeline.eeg_encoder.config, pipeline.unet.config
    n_concepts = len(pipeline.concepts.config.names)
    data, longer = _long_set(long, encoder.n_times)
    own = data.spec["epoch_spec"]
    # Windows with less of a response say nothing.
    last_start = round((LEAST_S - own["tmin"]) * own["sfreq"]) - encoder.n_times
    lags = range(max(0, last_start), longer + 1, WIDTH)
    pictures = PreparedSet(locked)
    slots = slots_of(pictures.captions(), pictures.pictures()["label"].numpy())
    reader: TemplateReader = TemplateReader(
        encoder.in_channels,
        encoder.n_times,
        WIDTH,
        WIDTH,
        n_concepts,
        len(lags),
        n_context=pipeline.conditioner.config.n_context,
        cross_attention_dim=unet.cross_attention_dim,
        slots=slots.sizes,
        stream_apart=round(APART_S * own["sfreq"] / WIDTH),
    )
    _learn_locked(reader, locked, slots, clip)
    say("Marker-locked epochs can be read.")
    _learn_lags(reader, data, lags)
    say(f"Sliding windows can be read at {len(lags)} lags.")
    _weigh(reader, pipeline, held_out)
    pipeline.reader = None
    pipeline.register_modules(reader=reader)
    painter = json.loads((bundle / "painter.json").read_text(encoding="utf-8"))
    sampler = Sampler(painter["num_inference_steps"], painter["guidance_scale"])
    save_variant(out, pipeline, bundle, sampler)
    population_of(population, spec).save(out / "population.safetensors")
    say(f"{out} holds the bundle with its reader.")
    if (bundle / "README.md").is_file():
        shutil.copy(bundle / "README.md", out)


def _learn_locked(reader: TemplateReader, folder: Path, slots: Slots, clip: Path) -> None:
    seen = SeenEpochs(PreparedSet(folder), "marker-locked")
    viewed = ViewedSet(folder, clip)
    n_concepts = reader.config.n_concepts
    reader.contexts.data = viewed.context_prototypes(n_concepts).float()
    features = np.concatenate([features_of(means_of(e, WIDTH)) for e in _parts(seen)])
    label = seen.label.numpy()
    centres = np.array([features[label == k].mean(axis=0, dtype=float) for k in range(n_concepts)])
    rest = np.zeros((features.shape[1], features.shape[1]))
    for first in range(0, len(features), PART):
        part = slice(first, first + PART)
        left = features[part] - centres[label[part]]
        rest += left.T @ left
    weights, constants = discriminant(centres, ridged(rest / len(features)))
    reader.locked.weight.data = torch.from_numpy(weights).float()
    reader.locked.bias.data = torch.from_numpy(constants).float()
    if slots.sizes:
        said = Slots(slots.words[seen.image_id.numpy()], slots.sizes)
        set_words(reader, features, label, said, viewed.context[seen.image_id].float().numpy())


def _parts(seen: SeenEpochs) -> Iterator[np.ndarray]:
    return (seen.eeg(places).numpy() for places in torch.arange(len(seen)).split(PART))


def _learn_lags(reader: TemplateReader, data: PreparedSet, lags: range) -> None:
    epochs = data.epochs()
    label = epochs["label"].numpy()
    n_concepts, n_times = reader.config.n_concepts, reader.config.n_times
    n_features = reader.projection.in_features
    total = np.zeros((len(lags), n_concepts, n_features))
    count = np.bincount(label, minlength=n_concepts)
    product = np.zeros((n_features, n_features))
    for places in torch.arange(len(epochs)).split(PART):
        eeg = epochs.rows("eeg", places).float().numpy()
        is_of = np.eye(n_concepts, dtype=np.float32)[label[places.numpy()]]
        for k, lag in enumerate(lags):
            features = _features(eeg[:, :, lag : lag + n_times])
            total[k] += is_of.T @ features
            # Of every eighth lag, which is enough to say how windows vary.
            if k % 8 == 0:
                product += features.T @ features
    centres = total / np.maximum(count, 1)[:, None]
    used = centres[::8]
    weight = count / count.sum()
    between = np.einsum("k,lkf,lkg->fg", weight, used, used, optimize=True) / len(used)
    covariance = product / len(epochs) / len(used) - between
    set_lags(reader, centres, ridged(covariance))


def _features(eeg: np.ndarray) -> np.ndarray:
    centred = eeg - eeg.mean(axis=2, keepdims=True)
    normal = centred / np.maximum(centred.std(axis=2, keepdims=True), 1.0)
    return features_of(means_of(normal, WIDTH))


def _weigh(reader: TemplateReader, pipeline: EEGToImagePipeline, held_out: Path) -> None:
    """Weigh reader and encoder, on epochs of either kind."""
    data = PreparedSet(held_out)
    viewed = ViewedSet(held_out, None)
    generator = torch.Generator().manual_seed(0)
    nothing = unseen(SeenEpochs(data), generator, N_BLANK)
    seen = viewed.epochs.rows("eeg", torch.cat([viewed.locked, viewed.sliding])).float()
    set_farthest(reader, torch.cat([seen, nothing]))
    for row, index in enumerate((viewed.locked, viewed.sliding)):
        is_locked = row == 0
        scores, said, odds = _said(reader, pipeline, viewed.epochs.rows("eeg", index), is_locked)
        blank, _, blank_odds = _said(reader, pipeline, nothing, is_locked)
        label = viewed.label[index]
        set_weights(reader, row, Weighed(scores, said, label, odds, blank, blank_odds))


@torch.no_grad()
def _said(
    reader: TemplateReader, pipeline: EEGToImagePipeline, eeg: torch.Tensor, is_locked: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Scores of the reader; probabilities and log odds of something seen of the encoder."""
    table, scores, embeds = pipeline.concepts, [], []
    for part in eeg.float().split(128):
        scores.append(reader.scores(part, is_locked))
        embeds.append(pipeline.encode(part, is_locked).clip_embeds.float())
    found = torch.cat(embeds)
    return torch.cat(scores), table(found), table.log_odds(found)
