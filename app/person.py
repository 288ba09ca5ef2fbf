"""A person's epochs, and the reader that is made of them with what a bundle knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.held_out import HeldOutFiles
from app.session_epochs import NOTHING, SessionEpochs
from app.verdict import accuracy
from models.drift import Drift
from models.pipeline import EEGToImagePipeline
from models.template_reader import TemplateReader
from models.training.personal import (
    Epochs,
    HeldOut,
    Method,
    baselines,
    choose,
    fit,
    folds,
    hold_out,
    methods,
    scaled,
)
from models.training.personal_reader import NEVER, held_out_readers, make_reader
from models.training.population import Population
from models.training.templates import (
    Weighed,
    fit_stream,
    set_farthest,
    set_stream,
    set_weights,
    stream_losses,
)

POPULATION = "population.safetensors"
CURVE = (0.25, 0.5, 0.75)
PART = 64


class Person:
    """A person's epochs, and what of the bundle can be used for them."""

    def __init__(
        self,
        found: SessionEpochs,
        pipeline: EEGToImagePipeline,
        bundle: Path,
        onset: int,
        sfreq: float,
        files: HeldOutFiles,
    ) -> None:
        self._found, self._pipeline, self._files = found, pipeline, files
        self.epochs = Epochs(found.locked, found.label, found.run)
        self.n_classes = len(found.classes)
        self.fold = folds(found.run)
        table = pipeline.concepts
        self._is_known = table is not None and found.classes == list(table.config.names)
        self._population = None
        if self._is_known and (bundle / POPULATION).is_file():
            population = Population.load(bundle / POPULATION)
            self._population = scaled(population, found.matrix, found.deviation)
        n_times = found.locked.shape[2]
        self._apart = round(found.apart * sfreq)
        self.candidates = methods(n_times, onset, sfreq, self._population)
        self.baselines = baselines(n_times, onset, sfreq)

    @property
    def cannot_be_painted(self) -> str:
        """Why there will be no bundle, or ""."""
        if not self._is_known:
            return (
                "The painter has no pictures of these classes, so there is a report and no bundle. "
                "Present the bundle's own pictures to get one, or make a painter of yours: "
                "`phosphene make-painter`."
            )
        if self._pipeline.reader is None:
            return (
                "This bundle has no reader that says how concepts are painted, so there is a "
                "report and no bundle. Calibrate with weights/scale-model."
            )
        return ""

    def hold_out(
        self,
        candidates: list[Method] | None = None,
        share: float = 1.0,
        is_forward: bool = False,
        tell: Callable[[float], None] = lambda _: None,
    ) -> HeldOut:
        """Every fold, read by what the others teach."""
        tell(0.0)
        tried = self.candidates if candidates is None else candidates
        known = self.n_classes, tried, self._population
        return self._files.get(
            tried,
            (share, is_forward),
            lambda: hold_out(self.epochs, *known, self.fold, share, is_forward, tell),
        )

    def curve(
        self, held_out: HeldOut, seed: int, tell: Callable[[float], None]
    ) -> list[dict[str, Any]]:
        """Accuracy by minutes, with the method that was chosen most often."""
        usual = max(set(held_out.chosen), key=held_out.chosen.count)
        label, minutes, n = self.epochs.label, self._found.minutes, len(self.epochs)
        points = []
        for k, share in enumerate(CURVE):
            tell(k / len(CURVE))
            # With fewer epochs than LDA needs there is no point.
            if usual.share is None and share * n < 3 * len(np.unique(label)):
                continue
            said = self.hold_out([usual], share).said
            points.append((share, said))
        points.append((1.0, held_out.said))
        return [
            {
                "minutes": round(share * minutes, 2),
                "n_trials": round(share * n),
                "accuracy": accuracy(said == label, label, seed).to_dict(),
            }
            for share, said in points
        ]

    def reader(self, held_out: HeldOut) -> TemplateReader:
        """What learnt from all runs, weighed with the encoder by what was held out."""
        method = choose(self.epochs, self.n_classes, self.candidates, self._population, self.fold)
        model = fit(method, self.epochs, self.n_classes, self._population)
        base, shown = self._pipeline.reader, np.unique(self.epochs.label)
        reader = make_reader(model, self.epochs, base, shown)
        self._say_apart(reader)
        windows = self._found.windows
        set_farthest(reader, torch.from_numpy(np.concatenate([self.epochs.eeg, windows.eeg])))
        is_nothing = windows.trial == NOTHING
        of_blank = torch.from_numpy(windows.eeg[is_nothing])
        unseen = self._encode(windows.eeg[is_nothing], False)[1]
        said, odds = self._encode(self.epochs.eeg, True)
        label = torch.from_numpy(self.epochs.label)
        scores = torch.from_numpy(held_out.scores).float().clamp_min(NEVER)
        of_nothing = reader.scores(of_blank, True)
        set_weights(reader, 0, Weighed(scores, said, label, odds, of_nothing, unseen))
        scores, of_window, losses = self._hold_out_windows(method)
        if (known := of_window >= 0).any():
            said, odds = self._encode(windows.eeg[known], False)
            label = torch.from_numpy(of_window[known])
            of_nothing = reader.scores(of_blank, False)
            set_weights(reader, 1, Weighed(scores[known], said, label, odds, of_nothing, unseen))
            fit_stream(reader, losses)
        else:
            reader.weights.data[1], reader.seen.data[1] = reader.weights[0], reader.seen[0]
        set_stream(reader, torch.from_numpy(windows.eeg), windows.first, is_nothing)
        return reader

    def _hold_out_windows(self, method: Method) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
        """Sliding windows, read by what other parts teach.

        Returns
        -------
        scores (n, n_classes); label (n,), -1 where it is not known; and `stream_losses`.
        """
        windows = self._found.windows
        of_trial = {int(trial): i for i, trial in enumerate(self._found.trial)}
        place = np.array([of_trial.get(int(trial), -1) for trial in windows.trial], int)
        label = np.where(place >= 0, self.epochs.label[place], -1)
        # A part has the windows behind its trials, also those that answer to none.
        last = np.searchsorted(self._found.trial, windows.after, "right") - 1
        fold = self.fold[np.maximum(last, 0)]
        scores = torch.zeros(len(windows), self.n_classes)
        losses = np.zeros(())
        known = self.epochs, self._pipeline.reader, self._population, self.fold
        for number, other in held_out_readers(method, *known) if (label >= 0).any() else ():
            own = fold == number
            self._say_apart(other)
            eeg = torch.from_numpy(windows.eeg[own])
            scores[own] = other.scores(eeg, False)
            losses = losses + stream_losses(other, eeg, windows.first[own], label[own])
        return scores, label, losses

    def _say_apart(self, reader: TemplateReader) -> None:
        """How soon a picture may follow another."""
        reader.register_to_config(stream_apart=self._apart // reader.config.width)

    def drift(self, hop: int) -> Drift:
        """What live epochs are compared with."""
        drift: Drift = Drift.of(self.epochs.eeg, hop)
        return drift

    def _encode(self, eeg: np.ndarray, is_locked: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the encoder alone: probabilities, and log odds that anything was seen."""
        table, reader = self._pipeline.concepts, self._pipeline.reader
        self._pipeline.reader = None
        try:
            embeds = [
                self._pipeline.encode(part, is_locked).clip_embeds.float()
                for part in torch.from_numpy(eeg).split(PART)
                # Of no epochs there is one part, an empty one.
                if len(part)
            ]
        finally:
            self._pipeline.reader = reader
        found = torch.cat(embeds) if embeds else torch.zeros(0, table.prototypes.shape[1])
        return table(found), table.log_odds(found)
