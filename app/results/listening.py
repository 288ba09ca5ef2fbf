"""The part "Listening" of the results page: sliding windows, read with those before them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from acquisition.epoch_spec import EpochSpec
from acquisition.stimuli import concepts
from app.results.answers import Answers, concept_table
from app.results.controls import nothing_like
from app.results.live import accuracy, confidence, controlled, ideal_answers, waiting
from app.results.part import Part, Table
from app.results.stream import Epochs, Sessions
from app.results.unsure import Say, Values, measure_not_sure, sureness
from models.pipeline import EEGToImagePipeline, fixed_noise
from models.template_reader import Reading
from models.training.scorers import JudgeClassifier
from models.training.templates import heard
from models.training.trials import Options

TITLE = "Live, sliding windows read with those before"


def measure(
    pipeline: EEGToImagePipeline,
    spec: EpochSpec,
    judge: JudgeClassifier,
    sessions: Sessions,
    options: Options,
    say: Say,
) -> Part:
    """Measure what the live stream says of sliding windows; parameters as `app.results.live`.

    Raises
    ------
    BundleError
        The bundle does not name the simulated subject's concepts.
    ScorerError
        The judge knows others.
    """
    concept_table(pipeline)
    reader = pipeline.reader
    if reader is None or reader.config.n_lags == 1:
        alone = "This bundle has no templates at several lags: it reads each window alone."
        return Part(TITLE, [Table("Windows", ["windows"], [[alone]], [])], {})
    judge.classes_of([c.name for c in concepts()])
    stream = sessions.record(spec)["sliding"]
    say(f"Listening: {len(stream)} sliding windows, one after the other.")
    painted = named_pictures(pipeline, judge, options)
    sfreq = spec.sfreq

    def answers(epochs: Epochs) -> tuple[Answers, np.ndarray]:
        said, is_sure = listen(pipeline, epochs, sfreq)
        best = said.argmax(axis=1)
        return Answers(best, said.max(axis=1), painted[best]), is_sure

    every, _ = answers(stream)
    is_seen = (stream.picture >= 0) & (stream.last < stream.offset[stream.picture])
    is_inside = is_seen & (stream.first >= stream.onset[stream.picture])
    frames, of_frames = stream.take(is_seen), every.take(is_seen)
    inside, of_inside = stream.take(is_inside), every.take(is_inside)
    noise, zero = nothing_like(stream.data, options.seed)
    of_noise, _ = answers(replace(stream, data=noise))
    of_zero, _ = answers(replace(stream, data=np.broadcast_to(zero, noise.shape).copy()))
    silent = of_noise.take(is_inside), of_zero.take(is_inside)
    say("The ideal observer looks at the sessions without artefacts, and remembers.")
    ideal = ideal_answers(spec, sessions, n_remembered(spec, sessions))
    table, values = accuracy(inside, of_inside, *silent, ideal)
    told = (
        "Ours knows the windows before, and so does the ideal observer, which sees all of the EEG "
        "since the picture appeared, but is not told when that was. The picture of a concept is "
        "the same in all windows."
    )
    table = replace(table, notes=[*table.notes, told])
    parts = [
        (table, values),
        waiting(
            frames,
            controlled("painted", frames, of_frames, of_noise.take(is_seen), of_zero.take(is_seen)),
            spec,
        ),
        confidence(
            "windows fully inside a viewing, read with those before", inside, of_inside, *silent
        ),
        sureness(measure_not_sure(lambda e: answers(e)[1], spec, sessions, stream, say)),
    ]
    known: Values = {"subject": sessions.subject, "sessions": list(sessions.numbers)}
    for _, own in parts:
        known |= own
    return Part(TITLE, [t for t, _ in parts], known)


def n_remembered(spec: EpochSpec, sessions: Sessions) -> int:
    """Samples before a window within a viewing that hold the picture's appearance, in hops."""
    viewing = round(sessions.parameters.viewing * spec.sfreq)
    return max(0, -(-(viewing - spec.n_times) // spec.hop) * spec.hop)


def listen(
    pipeline: EEGToImagePipeline, epochs: Epochs, sfreq: float
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, n_concepts), and whether anything is seen (n,), of windows in order."""
    assert pipeline.reader is not None
    windows = torch.from_numpy(epochs.data).to(pipeline.device)
    found = heard(pipeline.reader, windows, np.round(epochs.first * sfreq).astype(int))
    return found.probabilities, found.is_seen


@torch.inference_mode()
def named_pictures(
    pipeline: EEGToImagePipeline, judge: JudgeClassifier, options: Options
) -> np.ndarray:
    """What the judge sees in the picture of each concept, (n_concepts,): of sliding windows, whose
    looks are not read, it is the same for all.
    """
    n = len(concepts())
    eeg = torch.zeros(n, pipeline.reader.config.n_channels, pipeline.reader.config.n_times)
    reading = Reading(F.one_hot(torch.arange(n), n).float(), torch.ones(n, dtype=torch.bool))
    encoded = pipeline.encode(eeg, False, reading)
    noise, generator = fixed_noise(pipeline, options.seed)
    latents = pipeline.denoise(
        encoded.context,
        encoded.time_embedding,
        noise.expand(n, -1, -1, -1),
        options.steps,
        options.guidance,
        [generator.clone_state() for _ in range(n)],
    )
    # The page gets bytes.
    pictures = (pipeline.decode(latents) * 255).round() / 255
    return np.asarray(judge(pictures).argmax(1).cpu())
