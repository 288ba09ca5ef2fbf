"""What is measured: each stage of a sample's journey, beside something that is known."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.linalg import norm
from PIL import Image
from scipy import signal

from acquisition.epochs import EpochSpec, EpochStream
from acquisition.filters import design_filter
from acquisition.montage import Montage
from acquisition.simulated_subject import CH_NAMES
from acquisition.source import Chunk
from acquisition.stream_info import StreamInfo
from app.bundle import read_epoch_spec
from app.flash_guard import FlashGuard
from app.messages import pack, unpack
from benchmarks.measure import Timing, gflops, matmul, measure, summarise

N_CHANNELS, SFREQ, CHUNK = 64, 1000.0, 8
TICK = 1 / 30
# Of a critically damped spring's time constant.
HALF_OF_SPRING = 1.678


@dataclass(frozen=True, slots=True)
class Row:
    """One measured stage.

    Attributes
    ----------
    stage : what was measured, per what.
    timing : of one call.
    beside : what it was measured beside, in turns with it.
    beside_ms : the median time of that.
    note : what else helps to read it.
    """

    stage: str
    timing: Timing
    beside: str
    beside_ms: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Median time of the stage over that of its neighbour."""
        return self.timing.p50_ms / self.beside_ms


def _pair(stage: str, beside: str, pair: tuple[Callable[[], object], Callable[[], object]],
          seconds: float, note: str = "") -> Row:  # fmt: skip
    timings = measure({stage: pair[0], beside: pair[1]}, seconds)
    return Row(stage, timings[stage], beside, timings[beside].p50_ms, note)


class _Headset:
    """Noise in chunks of 8 samples, 64 channels at 1 kHz."""

    def __init__(self, ch_names: tuple[str, ...]) -> None:
        self.info = StreamInfo("noise", ch_names, SFREQ, "simulated")
        generator = np.random.default_rng(0)
        self._data = generator.normal(0, 20, (len(ch_names), 4096)).astype(np.float32)
        self._at = 0

    def next(self) -> Chunk:
        start = self._at % 4096
        times = (self._at + np.arange(CHUNK)) / SFREQ
        chunk = Chunk(self._data[:, start : start + CHUNK], times, self._at)
        self._at += CHUNK
        return chunk


def channel_names() -> tuple[str, ...]:
    """64 electrodes of the 10-20 system."""
    import mne

    return tuple(mne.channels.make_standard_montage("biosemi64").ch_names)[:N_CHANNELS]


def _acquisition(spec: EpochSpec, ch_names: tuple[str, ...], what: str, seconds: float) -> Row:
    headset = _Headset(ch_names)
    stream = EpochStream(headset.info, spec, Montage.from_channels(ch_names, spec), ("sliding",))
    sos = design_filter(SFREQ, spec.l_freq, spec.h_freq, spec.notch_freqs)
    state = {"zi": np.repeat(signal.sosfilt_zi(sos)[:, np.newaxis, :], len(ch_names), axis=1)}
    other = _Headset(ch_names)

    def sosfilt() -> None:
        data = other.next().data.astype(np.float64)
        _, state["zi"] = signal.sosfilt(sos, data, zi=state["zi"])

    for _ in range(int(8 * SFREQ / CHUNK)):  # past the filters' settling
        stream.push(headset.next())
    return _pair(
        f"{what}, per chunk of {CHUNK} samples, {len(ch_names)} channels, {SFREQ:g} Hz",
        "scipy's sosfilt alone, same filter",
        (lambda: stream.push(headset.next()), sosfilt),
        seconds,
        f"{CHUNK / SFREQ * 1e3:g} ms of EEG per chunk",
    )


def acquisition_rows(seconds: float) -> list[Row]:
    """Filters, ring and epochs at the headset's own rate, then for the shipped bundle."""
    ch_names = channel_names()
    same = EpochSpec(ch_names=ch_names, sfreq=SFREQ, n_times=1024, hop=256)
    default = EpochSpec(ch_names=CH_NAMES)
    return [
        _acquisition(same, ch_names, "filters, ring, epochs", seconds),
        _acquisition(default, ch_names, "the same, to 32 electrodes at 250 Hz", seconds),
    ]


def painting_rows(bundle: Path, threads: int, seconds: float) -> list[Row]:
    """The parts of a frame beside the matrix products they hold, and a frame beside diffusers.

    A frame of a distilled bundle is one U-Net call and a decoding, as while the picture moves;
    that of another is its whole picture. Diffusers paints the bundle's whole picture.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from models.frames import Listener
    from models.keyframes import KeyframePainter
    from models.networks import EagerNetworks, open_networks

    painter = KeyframePainter.from_bundle(bundle, threads=threads, device="cpu")
    pipeline = painter.pipeline
    n = 2 if painter.guidance_scale > 1 else 1
    networks, eager = open_networks(pipeline, n, threads), EagerNetworks(pipeline)
    config = pipeline.eeg_encoder.config
    shape = (config.in_channels, config.n_times)
    eeg = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    listener, by_torch = Listener(pipeline, networks), Listener(pipeline, eager)
    told, _ = listener.read(eeg)
    latents = torch.randn(pipeline.latent_shape(1))
    inputs = (
        latents.repeat(n, 1, 1, 1),
        torch.tensor([500]),
        told.context.repeat(n, 1, 1),
        told.time_embedding.repeat(n, 1),
    )
    steps = painter.num_inference_steps
    is_distilled = pipeline.scheduler.__class__.__name__ == "LCMScheduler"

    def frame() -> None:
        for _ in range(1 if is_distilled else steps):
            networks.predict(*inputs)
        networks.decode(latents)

    def gflop(call: Callable[[], object]) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return float(counter.get_total_flops()) / 1e9

    parts: dict[str, tuple[Callable[[], object], float]] = {
        "EEG to conditioning": (
            lambda: listener.read(eeg),
            gflop(lambda: by_torch.read(eeg)),
        ),
        f"U-Net call, {n} row(s)": (
            lambda: networks.predict(*inputs),
            gflop(lambda: eager.predict(*inputs)),
        ),
        "latents to pixels": (
            lambda: networks.decode(latents),
            gflop(lambda: eager.decode(latents)),
        ),
    }
    calls = {name: call for name, (call, _) in parts.items()}
    whole = f"frame, {'one call' if is_distilled else f'{steps} calls'} and decoding"
    plain = f"diffusers' plain pipeline on the same bundle, {steps} step(s)"
    calls |= {
        whole: frame,
        plain: lambda: pipeline(eeg[None], steps, painter.guidance_scale, output_type="pt"),
        "matmul": matmul(),
    }
    timings = measure(calls, 3 * seconds)
    rate = gflops(timings["matmul"])
    kind = type(networks).__name__.removesuffix("Networks")
    note = f"{threads} thread(s), {kind}; matmul {rate:g} GFLOP/s"
    rows = [
        Row(name, timings[name], f"its {size:.2f} GFLOP at that rate", 1e3 * size / rate, note)
        for name, (_, size) in parts.items()
    ]
    return [*rows, Row(whole, timings[whole], plain, timings[plain].p50_ms, note)]


def response_rows(bundle: Path, threads: int, seconds: float) -> list[Row]:
    """How long after an epoch's first frame the picture is half way to where it comes to rest.

    In real time, as the worker steps the painter; epochs are noise and differ wholly. Of a
    bundle that is not distilled, whose pictures have no way between them, nothing.
    """
    from models.follower import TAU
    from models.painter import StreamPainter, open_painter

    painter = open_painter(bundle, threads=threads, device="cpu")
    if not isinstance(painter, StreamPainter):
        return []
    spec = read_epoch_spec(bundle)
    rng = np.random.default_rng(0)
    responses: list[float] = []
    ends, before = time.perf_counter() + 4 * seconds, None
    while time.perf_counter() < ends or len(responses) < 3:
        painter.aim(rng.normal(size=(spec.n_channels, spec.n_times)).astype(np.float32))
        frames, due = [], time.perf_counter()
        begun = due
        while painter.is_moving and due < begun + 1.5:
            time.sleep(max(0.0, due - time.perf_counter()))
            frame = painter.step(painter.period)
            if frame is not None:
                frames.append((time.perf_counter(), frame.rgb.astype(np.float32)))
            due = max(due + painter.period, time.perf_counter())
        end = frames[-1][1]
        if before is not None:
            there = [t for t, rgb in frames if norm(rgb - before) >= norm(rgb - end)]
            responses.append(there[0] - frames[0][0])
        before = end
    what = "half of the way to a new epoch's picture, from its first frame on"
    spring = "half of the way of the conditioning, by its spring"
    beside = round(1e3 * HALF_OF_SPRING * TAU, 1)
    return [Row(what, summarise(responses), spring, beside, f"{threads} thread(s)")]


def _picture(seed: int, side: int) -> np.ndarray:
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC))


def guard_row(side: int, seconds: float) -> Row:
    """The flash guard, per frame shown at 30 Hz while a new picture comes four times a second."""
    guard = FlashGuard()
    pictures = [_picture(seed, side) for seed in range(7)]
    tick = 0

    def show() -> None:
        nonlocal tick
        if tick % 8 == 0:
            guard.show(pictures[(tick // 8) % 7], tick * TICK)
        guard.tick(tick * TICK)
        tick += 1

    def jpeg() -> None:
        Image.fromarray(pictures[tick % 7]).save(io.BytesIO(), "JPEG", quality=85)

    return _pair(
        f"flash guard, per frame of {side}x{side}", "its JPEG (Pillow)", (show, jpeg), seconds
    )


def wire_row(seconds: float) -> Row:
    """Packing and unpacking an epoch for the bus, beside copying its bytes once."""
    payload = np.zeros((32, 256), np.float32).tobytes()
    header = {"number": 1, "kind": "sliding", "first_sample": 0, "t_first": 1.5, "t_last": 2.5,
              "t_published": 2.6, "n_channels": 32, "n_times": 256, "honesty": "simulated",
              "fidelity": 1.0}  # fmt: skip
    return _pair(
        "pack and unpack an epoch of 32x256",
        "one copy of its bytes",
        (lambda: unpack(pack("epoch", header, payload)), lambda: bytearray(payload)),
        seconds,
    )


def all_rows(bundle: Path, threads: int, seconds: float) -> list[Row]:
    """Every stage, in the order in which a sample meets them; `seconds` for each."""
    return [
        *acquisition_rows(seconds),
        wire_row(seconds),
        *painting_rows(bundle, threads, seconds),
        *response_rows(bundle, threads, seconds),
        *(guard_row(side, seconds) for side in (128, 512)),
    ]
