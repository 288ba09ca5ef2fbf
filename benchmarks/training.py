"""Steps of training at the reference's size: rows a second, memory, and what each means brings.

Each way of computing a step runs in a process of its own, whose largest memory the system
tells; the ways take turns. Weights and data are random: speed does not depend on them.

    python -m benchmarks.training pretrain "bf16" --size full     # one of them, as JSON

On a GPU with CUDA they run there, and memory is the GPU's.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent
Size = Literal["full", "small"]


@dataclass(frozen=True, slots=True)
class Way:
    """How a step is computed.

    Attributes
    ----------
    is_fused : whether attention is one fused kernel.
    is_bf16 : whether matrix products are.
    is_frozen : whether the frozen parts of the U-Net keep no gradients; the authors' code
        computes and never uses them.
    is_checkpointed : whether activations are computed again.
    """

    is_fused: bool = True
    is_bf16: bool = False
    is_frozen: bool = True
    is_checkpointed: bool = False


# The first of each stage is what the others are compared with.
WAYS: dict[str, dict[str, Way]] = {
    "pretrain": {
        "fp32": Way(),
        "without fused attention": Way(is_fused=False),
        "bf16": Way(is_bf16=True),
        "bf16, activations computed again": Way(is_bf16=True, is_checkpointed=True),
    },
    "finetune": {
        "fp32": Way(),
        "without fused attention": Way(is_fused=False),
        "gradients of the whole U-Net": Way(is_frozen=False),
        "bf16": Way(is_bf16=True),
        "bf16, activations computed again": Way(is_bf16=True, is_checkpointed=True),
    },
}
BATCH = {"pretrain": 8, "finetune": 1}


def default_device() -> torch.device:
    """The GPU, where there is one."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def peak_memory_mb() -> float:
    """Largest memory of this process so far, MB: allocated on the GPU, or resident."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes on Linux, bytes on macOS.
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def pretrain_step(way: Way, size: Size, batch: int) -> tuple[Any, Callable[[], Any]]:
    """The task and its loss for a batch of 128 channels x 512 samples."""
    import torch

    from models.training.presets import build_autoencoder

    autoencoder = build_autoencoder("reference" if size == "full" else "tiny", 128, 512)
    autoencoder.use_gradient_checkpointing(way.is_checkpointed)
    eeg = torch.randn(batch, 128, 512)
    return autoencoder, lambda: autoencoder(eeg)[0]


def finetune_step(way: Way, size: Size, batch: int) -> tuple[Any, Callable[[], Any]]:
    """The task and its loss for rows of 512x512 pixels under SD 1.5's U-Net."""
    import torch
    from diffusers import DDPMScheduler, UNet2DConditionModel

    from models.conditioner import EEGConditioner
    from models.training.config import FinetuneConfig
    from models.training.finetune import FinetuneTask
    from models.training.presets import build_encoder

    is_full = size == "full"
    channels = (320, 640, 1280, 1280) if is_full else (16, 16, 16, 16)
    unet = UNet2DConditionModel(
        sample_size=64,
        block_out_channels=channels,
        cross_attention_dim=768,
        attention_head_dim=8 if is_full else 2,
        norm_num_groups=32 if is_full else 4,
        class_embed_type="identity",
    )
    encoder = build_encoder("phosphene" if is_full else "tiny", 128, 512)
    conditioner = EEGConditioner(
        encoder.n_tokens, encoder.config.embed_dim, time_embed_dim=4 * channels[0]
    )
    scheduler = DDPMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False
    )
    # The rows below are given by hand.
    no_epochs: Any = None
    nothing = np.empty((0, 4, 64, 64), np.float16)
    task = FinetuneTask(
        encoder,
        conditioner,
        unet,
        scheduler,
        no_epochs,
        nothing,
        nothing,
        FinetuneConfig(),
    )
    if not way.is_frozen:
        unet.requires_grad_(True)
    encoder.blocks.is_checkpointed = way.is_checkpointed
    if way.is_checkpointed:
        unet.enable_gradient_checkpointing()
    if not way.is_fused:
        unet.set_default_attn_processor()
    rows = {
        "eeg": torch.randn(batch, 128, 512),
        "latents": torch.randn(batch, 4, 64, 64),
        "image_embeds": torch.randn(batch, 768),
        "noise": torch.randn(batch, 4, 64, 64),
        "t": torch.full((batch,), 500),
        "is_kept": torch.ones(batch, dtype=torch.bool),
    }
    return task, lambda: task(rows)["loss"]


def measure_way(stage: str, way: Way, size: Size, steps: int, batch: int = 0) -> dict[str, float]:
    """Seconds of a step, rows a second and memory, after one step that does not count."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from models.training.config import Schedule
    from models.training.stage import build_optimizer, trained_parameters

    torch.manual_seed(0)
    batch = batch or BATCH[stage]
    device = default_device()
    with device:
        task, loss = (pretrain_step if stage == "pretrain" else finetune_step)(way, size, batch)
    task.train()
    optimizer = build_optimizer(trained_parameters(task), Schedule())
    seconds = []
    with ExitStack() as stack:
        if not way.is_fused:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        for _ in range(1 + steps):
            begun = time.perf_counter()
            with torch.autocast(device.type, torch.bfloat16, enabled=way.is_bf16):
                value = loss()
            value.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
    median = float(np.median(seconds[1:]))
    return {
        "seconds": median,
        "rows_per_second": batch / median,
        "peak_mb": peak_memory_mb(),
    }


def measure_all(size: Size, steps: int, rounds: int = 1) -> list[dict[str, Any]]:
    """All ways of both stages, in turns; a row each, with the ratio to the stage's first."""
    rows = []
    for stage, ways in WAYS.items():
        found: dict[str, list[dict[str, float]]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name in ways:
                command = [sys.executable, "-m", "benchmarks.training", stage, name,
                           "--size", size, "--steps", str(steps)]  # fmt: skip
                done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
                if done.returncode:
                    raise RuntimeError(done.stderr)
                found[name].append(json.loads(done.stdout.splitlines()[-1]))
        medians = {
            name: {key: float(np.median([r[key] for r in runs])) for key in runs[0]}
            for name, runs in found.items()
        }
        first = medians[next(iter(ways))]
        for name, values in medians.items():
            ratios = {
                "speed_ratio": first["seconds"] / values["seconds"],
                "memory_ratio": values["peak_mb"] / first["peak_mb"],
            }
            rows.append({"stage": stage, "way": name, **values, **ratios})
    return rows


def markdown(rows: list[dict[str, Any]], size: Size) -> str:
    """The rows as a table."""
    sizes = {
        "full": "At the reference's size: masked signal modelling of 128 channels x 512 samples "
        "(165 million parameters), and fine-tuning with SD 1.5's U-Net at 512x512 pixels. ",
        "small": "With tiny networks, which says nothing about the full ones. ",
    }
    lines = [
        "# Training steps",
        "",
        f"{sizes[size]}Speed and memory beside the first row of each stage, measured in the same "
        "run; memory is the largest of the process, weights and optimiser included.",
        "",
        "| stage | way | rows a second | s a step | speed | peak GB | memory |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {r['stage']} | {r['way']} | {r['rows_per_second']:.3g} | {r['seconds']:.3g} "
        f"| {r['speed_ratio']:.2f}x | {r['peak_mb'] / 1e3:.2f} | {r['memory_ratio']:.2f}x |"
        for r in rows
    ]
    return "\n".join([*lines, ""])


def main() -> None:
    """Measure one way, and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.training", description=__doc__)
    parser.add_argument("stage", choices=WAYS)
    parser.add_argument("way")
    parser.add_argument("--size", choices=("full", "small"), default="full")
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--batch", type=int, default=0)
    a = parser.parse_args()
    print(json.dumps(measure_way(a.stage, WAYS[a.stage][a.way], a.size, a.steps, a.batch)))


if __name__ == "__main__":
    main()
