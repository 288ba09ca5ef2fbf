"""A labelled session as the recorder writes it, small enough to make in a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from acquisition.channels import Channel
from acquisition.xdf_writer import StreamHeader, XDFWriter
from app.recorder import CONSENT
from app.session_markers import MARKERS, OFFSET, onset_text

CH_NAMES = ("O1", "O2", "Oz", "Pz", "P3", "P4", "PO7", "PO8")
# Seconds: before a run's first picture and after its last, of a picture, and from one to the next.
REST_S, SHOWN_S, LEAST_S, JITTER_S = 6.0, 0.6, 1.0, 0.2
# Of the three parts of a response, after the onset, and their width.
LATENCIES_S, WIDTH_S = (0.12, 0.2, 0.3), 0.03
NOISE_UV = 8.0


def write_session(
    path: Path,
    *,
    n_classes: int = 2,
    trials_per_class: int = 20,
    n_runs: int = 2,
    ch_names: Sequence[str] = CH_NAMES,
    sfreq: float = 250.0,
    effect_uv: float = 5.0,
    seed: int = 0,
    blocked: bool = False,
    class_names: Sequence[str] = (),
) -> Path:
    """Write noise with a response of each class, and markers that say which was shown when.

    Parameters
    ----------
    trials_per_class : in all runs together.
    effect_uv : largest value of a class's response; 0: nothing can be decoded.
    seed : of noise and order; what a class's response is depends on the electrodes alone.
    blocked : all trials of a class together, instead of each class spread over each run.
    class_names : by default class0, class1 and so on.
    """
    rng = np.random.default_rng(seed)
    order = _order(rng, n_classes, trials_per_class, n_runs, blocked)
    onsets, t = [], 0.0
    for i, (run, _) in enumerate(order):
        t += REST_S if i == 0 else LEAST_S + JITTER_S * rng.random()
        t += 2 * REST_S if i and run != order[i - 1][0] else 0.0
        onsets.append(round(t * sfreq))
    n_times = onsets[-1] + round(REST_S * sfreq)
    data = _noise(rng, len(ch_names), n_times)
    responses = effect_uv * _responses(n_classes, len(ch_names), sfreq)
    for onset, (_, label) in zip(onsets, order, strict=True):
        data[:, onset : onset + responses.shape[2]] += responses[label]
    timestamps = 100 + np.arange(n_times) / sfreq

    notes = {
        "program": "Phosphene",
        "subject": path.parent.name,
        "recorded_on": "2026-11-27",
        "keep_until": "2036-11-24",
        "consent": CONSENT,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = XDFWriter(path, notes)
    markers = writer.add_stream(MARKERS)
    channels = [Channel(name, "EEG", "microvolts") for name in ch_names]
    eeg = writer.add_stream(
        StreamHeader(
            "made", "EEG", "float32", sfreq, channels, {"segment": "1", "honesty": "simulated"}
        )
    )
    for start in range(0, n_times, 1000):
        part = slice(start, start + 1000)
        writer.add_samples(eeg, timestamps[part], data[:, part].astype(np.float32))
    for trial, (onset, (run, label)) in enumerate(zip(onsets, order, strict=True)):
        name = class_names[label] if class_names else f"class{label}"
        shown = onset_text(name, label, f"{name}_0", trial, run)
        writer.add_text(markers, timestamps[onset], shown)
        writer.add_text(markers, timestamps[onset + round(SHOWN_S * sfreq)], OFFSET)
    writer.close()
    return path


def _order(
    rng: np.random.Generator, n_classes: int, trials_per_class: int, n_runs: int, blocked: bool
) -> list[tuple[int, int]]:
    """Run and class of each trial."""
    if blocked:
        labels = np.repeat(np.arange(n_classes), trials_per_class)
        return [(i * n_runs // len(labels), int(label)) for i, label in enumerate(labels)]
    order = []
    for run in range(n_runs):
        n = (trials_per_class + n_runs - 1 - run) // n_runs
        order += [(run, int(label)) for label in rng.permutation(np.tile(np.arange(n_classes), n))]
    return order


def _noise(rng: np.random.Generator, n_channels: int, n_times: int) -> np.ndarray:
    """Of a standard deviation of `NOISE_UV`, stronger at low frequencies as EEG is."""
    spectrum = np.fft.rfft(rng.standard_normal((n_channels, n_times)))
    spectrum /= np.sqrt(np.maximum(np.arange(spectrum.shape[1]), n_times / 250))
    noise = np.fft.irfft(spectrum, n_times)
    return np.asarray(NOISE_UV * noise / noise.std(axis=1, keepdims=True))


def _responses(n_classes: int, n_channels: int, sfreq: float) -> np.ndarray:
    """Of the classes, (n_classes, n_channels, n_times): orthogonal, the largest value of each 1."""
    rng = np.random.default_rng(n_channels)
    parts = rng.standard_normal((n_classes, len(LATENCIES_S), n_channels))
    parts -= parts.mean(axis=2, keepdims=True)
    weights = np.linalg.qr(parts.reshape(n_classes, -1).T)[0].T.reshape(parts.shape)
    t = np.arange(round((LATENCIES_S[-1] + 4 * WIDTH_S) * sfreq)) / sfreq
    bumps = np.exp(-0.5 * ((t - np.array(LATENCIES_S)[:, None]) / WIDTH_S) ** 2)
    responses = np.einsum("kpc,pt->kct", weights, bumps)
    return np.asarray(responses / np.abs(responses).max(axis=(1, 2), keepdims=True))
