"""The real-time painter: frames that follow the newest epoch smoothly.

Latents go in a circle. Those of the last frame are drawn a little to what the newest epoch looks
like by itself, its anchor, and mixed with noise that stays the same; a consistency step under the
conditioning of this moment cleans them. How much noise depends on how fast the conditioning turns,
so that a new concept is painted anew and a known one is kept.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import LCMScheduler

from models.errors import BundleError
from models.follower import Conditioning, Follower
from models.frames import Decoded, Frame, Listener, Painter, Painters
from models.keyframes import KeyframePainter, OneByOne
from models.ladder import Ladder, Rung
from models.latents import pulled, recoloured, slerp, statistics
from models.networks import Networks, open_networks
from models.noise_schedule import ConsistencyFunction, NoiseLevel
from models.pipeline import EEGToImagePipeline, first_line, fixed_noise

# Timesteps of the loop of 1,000, and the speeds of the conditioning, in radians a second, from
# which the noisier ones are taken.
LEVELS = (250, 500, 750)
SPEEDS = (0.5, 2.0)
# Seconds in which the loop comes nearer to its anchor by two thirds.
ANCHORING = 0.1
# Seconds in which keyframes follow each other where nothing better is affordable.
KEYFRAME_FADE = 1 / 3
State = Literal["painted", "interpolated", "held"]


@dataclass(frozen=True, slots=True)
class Call:
    """What the U-Net is asked for one picture.

    Attributes
    ----------
    latents, t, context, time_embedding : see `models.networks.Networks.predict`, of one row.
    """

    latents: torch.Tensor
    t: torch.Tensor
    context: torch.Tensor
    time_embedding: torch.Tensor


# Asks for calls one after the other, is sent what each predicts, and ends with latents, or with
# how many calls it made.
Asking = Generator[Call, torch.Tensor, torch.Tensor]
Moving = Generator[Call, torch.Tensor, int]

# The loop stands still when latents change by less than this share of their length in the time
# of `ANCHORING`: about so much is then left of the way.
STILL = 0.1


class StreamPainter:
    """Paints a distilled bundle in real time.

    Rendered again with the same epochs between the same steps, of the same `dt` and rungs, the
    frames are the same.

    Parameters
    ----------
    pipeline : the bundle, with diffusers' `LCMScheduler`.
    networks : that compute, `n_rows` a call.
    seed : of the noise.
    ladder : chooses how much is painted.
    """

    def __init__(
        self,
        pipeline: EEGToImagePipeline,
        networks: Networks,
        seed: int = 0,
        ladder: Ladder | None = None,
        n_rows: int = 1,
    ) -> None:
        self._networks, self._n_rows = networks, n_rows
        self._pulled, self._recoloured = networks.fused(pulled), networks.fused(recoloured)
        self._ladder = ladder or Ladder()
        consistency = ConsistencyFunction(pipeline.scheduler).to(pipeline.unet.device)
        self._noise = fixed_noise(pipeline, seed)[0].to(pipeline.unet.device)
        learnt = consistency.timesteps
        nearest = [(learnt - level).abs().argmin() for level in LEVELS]
        self._levels = [consistency.level(learnt[i][None]) for i in nearest]
        self._noisiest = consistency.level(learnt[-1:])
        self._listener = Listener(pipeline, networks)
        self.restart()

    def restart(self) -> None:
        """Forget every epoch and frame; see `models.frames.Painter`."""
        self._listener.restart()
        self._follower: Follower | None = None
        # What the newest epoch says, and the same while no anchor was painted of it yet.
        self._aimed: Conditioning | None = None
        self._target: Conditioning | None = None
        self._is_new = False
        # Latents of the last frame, of the newest epoch, and where a fade of keyframes began.
        self._latents = self._anchor = self._origin = torch.zeros_like(self._noise)
        self._has_anchor = False
        # Mean and spread of the channels, on their way to those of the anchor.
        self._colours = statistics(self._noise)
        self._faded = 1.0
        self._queue: deque[tuple[torch.Tensor, State]] = deque()
        self._dt = 0.0
        self._is_still = True

    @property
    def period(self) -> float:
        """Seconds from one frame to the next; see `models.frames.Painter`."""
        return self._ladder.rung.period

    @property
    def rung(self) -> str:
        """How much is painted now; see `models.frames.Painter`."""
        return self._ladder.rung.name

    @property
    def is_moving(self) -> bool:
        """Whether the next frame will differ; see `models.frames.Painter`."""
        return bool(self._queue) or not self._is_still

    @torch.inference_mode()
    def aim(
        self, eeg: np.ndarray, is_locked: bool = True, first_sample: int | None = None
    ) -> Decoded:
        """Follow an epoch from now on; see `models.frames.Painter`."""
        target, decoded = self._listener.read(eeg, is_locked, first_sample)
        if self._aimed is not None and self._aimed.is_same(target):
            # The way goes on as it was; at its end one frame tells that the epoch was read.
            if not self.is_moving:
                self._queue.append((self._latents, "held"))
            return decoded
        self._aimed = self._target = target
        self._is_new = True
        if self._follower is None:
            self._follower = Follower(target, self._networks.fused)
        self._follower.aim(target)
        if not self.is_moving:
            # The time of a rest is no movement.
            self._dt = 0.0
        self._is_still = False
        return decoded

    @torch.inference_mode()
    def step(self, dt: float) -> Frame | None:
        """The next frame; see `models.frames.Painter`."""
        if not self.is_moving:
            return None
        return PainterGroup([self], self._networks, self._n_rows).step([dt])[0]

    def ask(self, dt: float) -> Moving:
        """Ask for what the next frame takes, `dt` seconds after the one before."""
        self._dt += dt
        if self._queue:
            return 0
        dt, self._dt = self._dt, 0.0
        return (yield from self._move(self._ladder.rung, dt))

    def finish(self) -> tuple[torch.Tensor, State]:
        """Latents (1, 4, h, w) of the frame whose calls were answered, and how it was made."""
        return self._queue.popleft()

    def took(self, n_calls: int, in_calls: float, in_decoding: float) -> None:
        """Learn how long the frame took, and those of others that were painted with it.

        Parameters
        ----------
        n_calls : of the U-Net for this frame.
        in_calls, in_decoding : seconds for all of them.
        """
        self._ladder.took(n_calls, in_calls, in_decoding)

    def _move(self, rung: Rung, dt: float) -> Moving:
        """Queue the next frame, or two; how often the U-Net was called."""
        assert self._follower is not None
        speed = self._follower.step(dt)
        n_calls = 0
        # The first frame of an epoch does without its anchor, and so is there sooner.
        is_due = not (self._is_new and rung.calls and self._has_anchor)
        self._is_new = False
        if self._target is not None and is_due:
            # The loop goes on from it; a keyframe must do as it is.
            more = [] if rung.calls else self._levels[1:2]
            n_calls += yield from self._set_anchor(self._target, more)
            self._target = None
        before = self._latents
        if rung.calls:
            level = sum(speed >= least for least in SPEEDS)
            # The noisiest first; where little moves there is but one.
            levels = self._levels[max(0, level + 1 - rung.calls) : level + 1][::-1]
            change = yield from self._loop(levels, dt)
            n_calls += len(levels)
            if rung.is_halved:
                self._queue.append((slerp(before, self._latents, 0.5), "interpolated"))
            self._queue.append((self._latents, "painted"))
            is_there = self._target is None and self._follower.is_at_rest
            # A GPU is waited for only where it matters.
            self._is_still = is_there and float(change) < STILL * dt / ANCHORING
        else:
            self._faded = min(1.0, self._faded + dt / KEYFRAME_FADE)
            self._latents = slerp(self._origin, self._anchor, self._faded)
            self._colours = statistics(self._latents)
            self._is_still = self._faded == 1
            self._queue.append((self._latents, "painted" if self._is_still else "interpolated"))
        return n_calls

    def _set_anchor(self, target: Conditioning, more: list[NoiseLevel]) -> Moving:
        """Paint the newest epoch from nothing but noise, in one step and `more`."""
        levels = [self._noisiest, *more]
        self._anchor = yield from self._clean(self._noise, levels, target)
        if not self._has_anchor:
            # Not the same tensor, for which the loop would be compiled otherwise.
            self._latents, self._colours = self._anchor.clone(), statistics(self._anchor)
        self._has_anchor = True
        self._origin, self._faded = self._latents, 0.0
        return len(levels)

    def _loop(self, levels: list[NoiseLevel], dt: float) -> Asking:
        """Once around: towards the anchor, noisy, and clean under the conditioning of now.

        Returns
        -------
        by what share the latents changed, ().
        """
        assert self._follower is not None
        share = torch.full((), 1 - math.exp(-dt / ANCHORING), device=self._noise.device)
        before = self._latents
        latents, self._colours = self._pulled(before, self._anchor, self._colours, share)
        noisy = levels[0].noisy(latents, self._noise)
        latents = yield from self._clean(noisy, levels, self._follower.conditioning())
        self._latents, change = self._recoloured(latents, self._colours, before)
        return change

    def _clean(self, noisy: torch.Tensor, levels: list[NoiseLevel], told: Conditioning) -> Asking:
        """Clean what has the noise of the first level, in a step for each."""
        latents = noisy
        for k, level in enumerate(levels):
            if k:
                noisy = level.noisy(latents, self._noise)
            predicted = yield Call(noisy, level.t, told.context, told.time_embedding)
            latents = level.clean(noisy, predicted.float())
        return latents


def answer(
    asking: Sequence[Moving], predict: Callable[..., torch.Tensor], n_rows: int
) -> list[int]:
    """Answer all at once, call by call, until none asks any more.

    Parameters
    ----------
    predict : the networks', of `n_rows` rows; those that nobody asks for are computed in vain.

    Returns
    -------
    how many calls each made.
    """
    counts = [0] * len(asking)
    waiting: dict[int, Call] = {}
    sent: dict[int, torch.Tensor | None] = dict.fromkeys(range(len(asking)))
    while sent:
        waiting.clear()
        for i, predicted in sent.items():
            try:
                # A generator begins with None.
                waiting[i] = asking[i].send(predicted)  # type: ignore[arg-type]
            except StopIteration as end:
                counts[i] = end.value
        sent = {}
        ids = list(waiting)
        for first in range(0, len(ids), n_rows):
            some = ids[first : first + n_rows]
            calls = [waiting[i] for i in some]
            calls += calls[:1] * (n_rows - len(calls))
            out = predict(
                torch.cat([c.latents for c in calls]),
                torch.cat([c.t for c in calls]),
                torch.cat([c.context for c in calls]),
                torch.cat([c.time_embedding for c in calls]),
            )
            sent |= {i: out[row : row + 1] for row, i in enumerate(some)}
    return counts


class PainterGroup:
    """`Painters` that share the calls of one U-Net.

    At every tick those that are due are painted together, and nobody waits for another: who has
    nothing to paint then takes part in the next.

    Parameters
    ----------
    painters : one for each session, of the same networks.
    networks : that compute `n_rows` a call.
    """

    def __init__(
        self, painters: Sequence[StreamPainter], networks: Networks, n_rows: int = 1
    ) -> None:
        self.painters, self._networks, self._n_rows = painters, networks, n_rows

    @torch.inference_mode()
    def step(self, dts: Sequence[float | None]) -> list[Frame | None]:
        """The next frame of each session; see `Painters`."""
        due = [
            (i, dt)
            for i, (painter, dt) in enumerate(zip(self.painters, dts, strict=True))
            if dt is not None and painter.is_moving
        ]
        begun = time.perf_counter()
        asking = [self.painters[i].ask(dt) for i, dt in due]
        counts = answer(asking, self._networks.predict, self._n_rows)
        # The ladder asks what a call takes, and what decoding.
        self._networks.wait()
        called = time.perf_counter()
        finished = [self.painters[i].finish() for i, _ in due]
        pictures = self._decoded([latents for latents, _ in finished])
        in_calls, in_decoding = called - begun, time.perf_counter() - called
        frames: list[Frame | None] = [None] * len(self.painters)
        for (i, _), n_calls, rgb, (_, state) in zip(due, counts, pictures, finished, strict=True):
            self.painters[i].took(n_calls, in_calls, in_decoding)
            frames[i] = Frame(rgb, state, 1e3 * (in_calls + in_decoding))
        return frames

    def _decoded(self, latents: Sequence[torch.Tensor]) -> list[np.ndarray]:
        """Pictures (H, W, 3) uint8 of latents (1, 4, h, w), as many at once as there are rows."""
        pictures: list[np.ndarray] = []
        for first in range(0, len(latents), self._n_rows):
            some = torch.cat(list(latents[first : first + self._n_rows]))
            pictures += list(self._networks.decode(some))
        return pictures


def open_painter(
    folder: Path | str,
    seed: int = 0,
    threads: int = 1,
    device: str = "auto",
    ladder: Ladder | None = None,
) -> Painter:
    """Load a bundle for the live painting of one session; see `open_painters`."""
    return open_painters(folder, 1, seed, threads, device, ladder).painters[0]


def open_painters(
    folder: Path | str,
    n: int,
    seed: int = 0,
    threads: int = 1,
    device: str = "auto",
    ladder: Ladder | None = None,
) -> Painters:
    """Load a bundle for live painting, and paint once, so that the first frame is fast.

    Parameters
    ----------
    n : sessions that are painted for.
    folder, seed, threads, device : see `KeyframePainter.from_bundle`.
    ladder : chooses how much is painted, if it is not to be measured.

    Returns
    -------
    a `StreamPainter` for each, of a distilled bundle, else a `KeyframePainter`.

    Raises
    ------
    BundleError
        In one sentence, with the remedy.
    """
    keyframes = KeyframePainter.from_bundle(folder, seed, threads, device)
    pipeline = keyframes.pipeline
    steps, guidance = keyframes.num_inference_steps, keyframes.guidance_scale
    try:
        if isinstance(pipeline.scheduler, LCMScheduler):
            # On a CPU rows that nobody asks for would cost as much as others.
            n_rows = 1 if pipeline.device.type == "cpu" else n
            networks = open_networks(pipeline, n_rows, threads)
            streams = [
                StreamPainter(pipeline, networks, seed, chooses, n_rows)
                for chooses in [None, *[ladder] * n]
            ]
            warm: Painter = streams[0]
            painters: Painters = PainterGroup(streams[1:], networks, n_rows)
        else:
            networks = open_networks(pipeline, 1 if guidance <= 1 else 2, threads)
            warm, *others = [
                KeyframePainter(pipeline, seed, steps, guidance, networks) for _ in range(1 + n)
            ]
            painters = OneByOne(others)
        # One more than there are sessions, so that theirs have seen nothing.
        config = pipeline.eeg_encoder.config
        warm.aim(np.zeros((config.in_channels, config.n_times), np.float32))
        warm.step(0.0)
    # torch, diffusers and OpenVINO raise whatever their inner libraries do.
    except Exception as error:
        raise BundleError(
            f"The bundle loads but cannot paint ({first_line(error)}). Its parts do not fit "
            "each other or this device; give another with --bundle."
        ) from error
    return painters
