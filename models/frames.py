"""What comes of an epoch: what it says, and frames."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import torch

from models.follower import Conditioning
from models.networks import Networks
from models.pipeline import EEGToImagePipeline
from models.window_filter import WindowFilter


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the EEG of an epoch says.

    Attributes
    ----------
    concepts : (name, confidence), the likeliest first; empty for a bundle without concepts.
    is_sure : whether the EEG is that of someone who sees something, so that there is an answer.
    encode_ms : time for EEG to conditioning.
    drift : how far the EEG has moved since calibration, and how far it did then; None for a bundle
        that is nobody's own.
    """

    concepts: list[tuple[str, float]]
    is_sure: bool
    encode_ms: float
    drift: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """A picture of what the newest epoch says, or on the way to it.

    Attributes
    ----------
    rgb : (H, W, 3) uint8.
    state : "painted" by the U-Net, "interpolated" between latents that were, or "held": the same
        again, as the newest epoch says the same.
    paint_ms : time for conditioning to pixels.
    """

    rgb: np.ndarray
    state: Literal["painted", "interpolated", "held"]
    paint_ms: float


class Painter(Protocol):
    """From epochs to frames; used by one thread."""

    @property
    def period(self) -> float:
        """Seconds from one frame to the next, while there is something to paint."""

    @property
    def rung(self) -> str:
        """How much is painted now, by the ladder's name; "" without a ladder."""

    @property
    def is_moving(self) -> bool:
        """Whether there is something to paint; if not, the last frame is held."""

    def restart(self) -> None:
        """Forget every epoch and frame: what is painted next is as if by a new painter."""

    def aim(
        self, eeg: np.ndarray, is_locked: bool = True, first_sample: int | None = None
    ) -> Decoded:
        """Take the newest epoch (n_channels, n_times), float32; see `Listener.read`.

        Raises
        ------
        EpochShapeError
            The epoch is not what the bundle was made for.
        """

    def step(self, dt: float) -> Frame | None:
        """The next frame, `dt` seconds after the one before; None while the last is held."""


class Painters(Protocol):
    """Painters of several sessions, of one bundle; used by one thread."""

    @property
    def painters(self) -> Sequence[Painter]:
        """One for each session."""

    def step(self, dts: Sequence[float | None]) -> list[Frame | None]:
        """The next frame of each session.

        Parameters
        ----------
        dts : seconds since each one's frame before; None for one that is not due.

        Returns
        -------
        a frame for each; None where none was due or the last is held.
        """


class Listener:
    """Reads the epochs of a stream, one after the other; used by one thread.

    A bundle of a person's own follows their drift, and sliding windows are read with those before.

    Parameters
    ----------
    pipeline : the bundle.
    networks : that compute.
    """

    def __init__(self, pipeline: EEGToImagePipeline, networks: Networks) -> None:
        self._pipeline, self._networks = pipeline, networks
        # Asked once: diffusers looks through all parts of all networks for it.
        self._device = pipeline.device
        reader = pipeline.reader
        # Each stream's own: several may be read of one bundle.
        self._drift = copy.deepcopy(pipeline.drift)
        has_lags = reader is not None and reader.config.n_lags > 1
        self._filter = WindowFilter(reader) if has_lags and reader is not None else None
        self.restart()

    def restart(self) -> None:
        """Forget every epoch."""
        if self._drift is not None:
            self._drift.restart()
        if self._filter:
            self._filter.restart()

    @torch.inference_mode()
    def read(
        self, eeg: np.ndarray, is_locked: bool = True, first_sample: int | None = None
    ) -> tuple[Conditioning, Decoded]:
        """Read an epoch (n_channels, n_times), float32.

        Parameters
        ----------
        is_locked : to the onset of what was seen, or a sliding window.
        first_sample : of the epoch, on the grid of the stream; of a window without one it is not
            known what came before.

        Returns
        -------
        what the U-Net is told, and what people are.

        Raises
        ------
        EpochShapeError
            The epoch is not what the bundle was made for.
        """
        begun = time.perf_counter()
        pipeline = self._pipeline
        follower, drift = self._drift, None
        if follower is not None:
            eeg = follower.follow(eeg, is_locked)
            drift = follower.amount, float(follower.config.usual)
        epoch, reading = torch.from_numpy(eeg)[None].to(self._device), None
        pipeline.eeg_encoder.check(epoch)
        if self._filter and not is_locked and first_sample is not None:
            reading = self._filter.read(epoch, first_sample)
        encoded = pipeline.encode(epoch, is_locked, reading, self._networks.encode)
        concepts: list[tuple[str, float]] = []
        if encoded.probabilities is not None:
            best = encoded.probabilities[0].sort(descending=True)
            names = pipeline.concepts.config.names
            concepts = [
                (names[i], p)
                for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        encode_ms = 1e3 * (time.perf_counter() - begun)
        conditioning = Conditioning(encoded.context, encoded.time_embedding)
        return conditioning, Decoded(concepts, bool(encoded.is_sure[0]), encode_ms, drift)
