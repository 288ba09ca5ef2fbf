"""Stable Diffusion 1.5's shape on a GPU: `python -m benchmarks.gpu --help`.

Random weights, half precision: speed is the same, pictures are noise. In one run, in turns: one
and four steps with TAESD as this program paints them, beside the same with PyTorch's own kernels,
beside diffusers' loop and beside a stream batch (StreamDiffusion, Kodaira 2023, arXiv 2312.12491:
the four steps of four consecutive pictures are one call), and the painter with several sessions in
one group. Compiling takes minutes for each size, the first time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny, LCMScheduler, UNet2DConditionModel

from benchmarks.measure import measure
from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.graph_networks import GraphNetworks
from models.ladder import RUNGS, TICK, Ladder, Rung
from models.networks import Networks, compiled_networks
from models.painter import PainterGroup, StreamPainter
from models.pipeline import EEGToImagePipeline

ROOT = Path(__file__).resolve().parent.parent
SIZES = (512, 256)
SESSIONS = (1, 2, 4)
STEPS = (1, 4)
OURS = "{} step(s) + TAESD"
N_CHANNELS, N_TIMES = 32, 256
MATMUL_SIDE = 8192


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds of one call, percentiles over `n`."""

    what: str
    p50_ms: float
    p95_ms: float
    n: int
    note: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """Widths of the networks.

    Attributes
    ----------
    unet, vae : of their blocks.
    cross_attention_dim, n_context : of the context.
    """

    unet: tuple[int, ...] = (320, 640, 1280, 1280)
    vae: tuple[int, ...] = (64, 64, 64, 64)
    cross_attention_dim: int = 768
    n_context: int = 77


SMALL = Shape((32, 32, 64, 64), (16, 16, 16, 16), 32, 8)


def build(shape: Shape, pixels: int, device: torch.device) -> EEGToImagePipeline:
    """A bundle with random weights, distilled by name only."""
    torch.manual_seed(0)
    time_dim = 4 * shape.unet[0]
    unet = UNet2DConditionModel(
        sample_size=pixels // 8,
        block_out_channels=shape.unet,
        cross_attention_dim=shape.cross_attention_dim,
        attention_head_dim=8,
        class_embed_type="identity",
    )
    n_blocks = len(shape.vae)
    vae = AutoencoderTiny(
        encoder_block_out_channels=shape.vae,
        decoder_block_out_channels=shape.vae,
        num_encoder_blocks=(1, 3, 3, 3)[:n_blocks],
        num_decoder_blocks=(3, 3, 3, 1)[:n_blocks],
    )
    encoder = EEGEncoder(N_CHANNELS, N_TIMES, 4, 256, 4, 8, 1.0)
    conditioner = EEGConditioner(
        encoder.n_tokens, 256, shape.n_context, shape.cross_attention_dim, time_dim, 64
    )
    scheduler = LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
    pipeline = EEGToImagePipeline(vae, unet, scheduler, encoder, conditioner)
    half = torch.float16 if device.type == "cuda" else torch.float32
    unet.to(half)
    vae.to(half)
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)
    return pipeline


class OneRung(Ladder):
    """The painter's default, whatever it takes."""

    @property
    def rung(self) -> Rung:
        return RUNGS[0]


def waiting(call: Callable[[], object]) -> Callable[[], object]:
    """A call that ends when the GPU has done what it was asked for."""

    def waited() -> None:
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    return waited


def timed(calls: Mapping[str, Callable[[], object]], seconds: float) -> list[Timed]:
    """Time calls in turns, `seconds` for each; see `benchmarks.measure.measure`."""
    timings = measure({what: waiting(call) for what, call in calls.items()}, seconds * len(calls))
    return [Timed(what, t.p50_ms, t.p95_ms, t.n) for what, t in timings.items()]


def peak_tflops(device: torch.device, seconds: float, side: int) -> float:
    """The rate of a matrix product in the precision that is painted in."""
    half = torch.float16 if device.type == "cuda" else torch.float32
    a = torch.randn(side, side, dtype=half, device=device)
    (row,) = timed({"matmul": lambda: a @ a}, seconds)
    return 2 * side**3 / row.p50_ms / 1e9


class Frames:
    """Pictures of `n_steps` steps, as the painter's networks make them."""

    def __init__(self, pipeline: EEGToImagePipeline, networks: Networks, n_steps: int) -> None:
        device, dtype = pipeline.unet.device, pipeline.unet.dtype
        eeg = torch.zeros(1, N_CHANNELS, N_TIMES)
        context, time_embedding = pipeline.encode(eeg)[:2]
        self._told = context.to(dtype), time_embedding.to(dtype)
        self._noise = torch.randn(pipeline.latent_shape(1), device=device, dtype=dtype)
        self._networks = networks
        stride = len(pipeline.scheduler) // n_steps
        self._timesteps = [
            torch.tensor([stride * (n_steps - k) - 1], device=device) for k in range(n_steps)
        ]

    @torch.inference_mode()
    def __call__(self) -> np.ndarray:
        latents = self._noise
        for t in self._timesteps:
            # The mixing between calls is a thousandth of one.
            latents = self._networks.predict(latents, t, *self._told)
        return self._networks.decode(latents)


class StreamBatch:
    """StreamDiffusion's way: four pictures under way, each a step further at every call."""

    def __init__(self, pipeline: EEGToImagePipeline, networks: Networks, n_steps: int) -> None:
        self._networks = networks
        eeg = torch.zeros(1, N_CHANNELS, N_TIMES)
        context, time_embedding = pipeline.encode(eeg)[:2]
        dtype, device = pipeline.unet.dtype, pipeline.unet.device
        self._told = (
            context.to(dtype).expand(n_steps, -1, -1),
            time_embedding.to(dtype).expand(n_steps, -1),
        )
        self._latents = torch.randn(pipeline.latent_shape(n_steps), device=device, dtype=dtype)
        stride = len(pipeline.scheduler) // n_steps
        self._t = torch.arange(n_steps, 0, -1, device=device) * stride - 1

    @torch.inference_mode()
    def __call__(self) -> np.ndarray:
        predicted = self._networks.predict(self._latents, self._t, *self._told)
        self._latents = torch.cat([self._latents[:1], predicted[:-1]])
        return self._networks.decode(predicted[-1:])


def painter_frames(
    pipeline: EEGToImagePipeline, networks: Networks, n_sessions: int
) -> Callable[[], object]:
    """One tick of a group in which all sessions move."""
    painters = [
        StreamPainter(pipeline, networks, 0, OneRung(), n_sessions) for _ in range(n_sessions)
    ]
    group = PainterGroup(painters, networks, n_sessions)
    rng = np.random.default_rng(0)
    epochs = rng.normal(size=(2, N_CHANNELS, N_TIMES)).astype(np.float32)
    ticks = 0

    def tick() -> None:
        nonlocal ticks
        if ticks % 8 == 0:
            for painter in painters:
                painter.aim(epochs[ticks // 8 % 2])
        ticks += 1
        group.step([TICK] * n_sessions)

    return tick


def measure_size(
    device: torch.device, shape: Shape, pixels: int, seconds: float, peak: float
) -> list[Timed]:
    """All rows of pictures of `pixels` a side.

    Parameters
    ----------
    peak : TFLOP/s of a matrix product.
    """
    from torch.utils.flop_counter import FlopCounterMode

    is_cuda = device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    pipeline = build(shape, pixels, device)
    eeg = torch.zeros(1, N_CHANNELS, N_TIMES)

    def plain(n_steps: int) -> Callable[[], object]:
        return lambda: pipeline(eeg, n_steps, output_type="pt")

    tflop = {}
    for n_steps in STEPS:
        with FlopCounterMode(display=False) as counter:
            plain(n_steps)()
        tflop[OURS.format(n_steps)] = counter.get_total_flops() / 1e12
    # It lays the weights out anew, and so diffusers' loop below has them as fast.
    own = GraphNetworks(pipeline, 1)
    # On a CPU compiling takes long, and would say nothing of a GPU.
    backend = "inductor" if is_cuda else "eager"
    begun = time.perf_counter()
    fused = {n: compiled_networks(pipeline, n, backend) for n in SESSIONS}
    compiling = time.perf_counter() - begun
    calls: dict[str, Callable[[], object]] = {}
    for n_steps in STEPS:
        calls[OURS.format(n_steps)] = Frames(pipeline, fused[1], n_steps)
        calls[f"{n_steps} step(s), PyTorch's own kernels"] = Frames(pipeline, own, n_steps)
        calls[f"diffusers' loop, {n_steps} step(s)"] = plain(n_steps)
    calls["stream batch of 4 steps"] = StreamBatch(pipeline, fused[4], 4)
    painting = {f"painter, two steps, {n} session(s)": n for n in SESSIONS}
    for what, n in painting.items():
        calls[what] = painter_frames(pipeline, fused[n], n)
    rows = []
    for row in timed(calls, seconds):
        note = ""
        if row.what in tflop:
            note = f"{1e3 * tflop[row.what] / row.p50_ms / peak:.0%} of the matmul rate"
        elif row.what in painting:
            note = f"{1e3 / row.p50_ms:.0f} new frames a second each"
        rows.append(replace(row, note=note))
    rows.append(Timed("compiling three numbers of sessions", 1e3 * compiling, 1e3 * compiling, 1))
    if is_cuda:
        memory = f"{torch.cuda.max_memory_reserved() / 1e9:.1f} GB of memory at most"
        rows[-1] = replace(rows[-1], note=memory)
    return rows


def measure_all(
    device: torch.device, shape: Shape, sizes: Sequence[int], seconds: float, side: int
) -> dict[str, Any]:
    """All rows of all sizes, and what they are to be read beside."""
    peak = peak_tflops(device, seconds, side)
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "CPU, small networks",
        "torch": torch.__version__,
        "matmul_tflops": round(peak, 2),
        "rows": {
            str(pixels): [asdict(row) for row in measure_size(device, shape, pixels, seconds, peak)]
            for pixels in sizes
        },
    }


def markdown(result: dict[str, Any] | None) -> str:
    """A table, or that there was nothing to measure on."""
    if result is None:
        return "Stable Diffusion 1.5's shape on a GPU: not measured, there is no GPU here.\n"
    lines = [
        f"{result['device']}, torch {result['torch']}, random weights; matrix products "
        f"{result['matmul_tflops']:g} TFLOP/s in the same run.",
        "",
        "| pixels | per frame | p50 ms | p95 ms | |",
        "| ---: | --- | ---: | ---: | --- |",
    ]
    for pixels, rows in result["rows"].items():
        for row in rows:
            lines.append(
                f"| {pixels} | {row['what']} | {row['p50_ms']:.2f} | {row['p95_ms']:.2f} "
                f"| {row['note']} |"
            )
    return "\n".join([*lines, ""])


def main() -> None:
    """Print the table, and write `gpu.md` and `gpu.json`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench", help="folder")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each row")
    parser.add_argument(
        "--pixels", type=int, nargs="+", default=SIZES, help="a side (default: 512 256)"
    )
    a = parser.parse_args()
    result = None
    if torch.cuda.is_available():
        result = measure_all(torch.device("cuda"), Shape(), a.pixels, a.seconds, MATMUL_SIDE)
    a.out.mkdir(parents=True, exist_ok=True)
    (a.out / "gpu.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (a.out / "gpu.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


if __name__ == "__main__":
    main()
