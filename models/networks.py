"""Encoder, U-Net and decoder as fast as the device allows: eager PyTorch, OpenVINO, or CUDA graphs.

Shapes are fixed, so that each is compiled or captured once, before the first frame.
"""

from __future__ import annotations

import logging
import os
from typing import Protocol

import numpy as np
import torch
from platformdirs import user_cache_path

from models.fusing import Compiler, Function, as_it_is
from models.graph_networks import GraphNetworks
from models.network_parts import DecoderPart, EncoderPart, UnetPart
from models.openvino_networks import OpenVinoNetworks
from models.pipeline import EEGToImagePipeline, first_line

log = logging.getLogger(__name__)

# Parameters of the U-Net up to which OpenVINO is worth it on a CPU: what it saves is the time
# around the matrix products. SD 1.5's are bound by the products themselves, and would be
# kept three times in memory while they are converted. On a GPU smaller ones are painted in a few
# milliseconds as they are, and compiling takes minutes.
SMALL = 100_000_000


class Networks(Protocol):
    """What the painter asks of a bundle, `n` pictures at a time."""

    def encode(self, eeg: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """An epoch (1, channels, times) to what `models.conditioner.EEGConditioner` makes of it."""

    def predict(
        self,
        latents: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        time_embedding: torch.Tensor,
    ) -> torch.Tensor:
        """The U-Net's output (n, 4, h, w) for latents at timesteps `t`, (n,) or (1,) for all."""

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        """Latents (k, 4, h, w), of `n` pictures at most, to pictures (k, H, W, 3), uint8."""

    def fused(self, function: Function, /) -> Function:
        """A function of tensors, as fast as the device allows where these networks compute."""

    def wait(self) -> None:
        """Until all that was asked for is computed, so that times are of what took them."""


class EagerNetworks:
    """As PyTorch runs them."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        self._encoder, self._device = EncoderPart(pipeline), pipeline.unet.device
        self._unet, self._decoder = UnetPart(pipeline), DecoderPart(pipeline)

    @torch.inference_mode()
    def encode(self, eeg: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out: tuple[torch.Tensor, ...] = self._encoder(eeg)
        return out

    @torch.inference_mode()
    def predict(self, *inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self._unet(*inputs)
        return out

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        pixels: np.ndarray = self._decoder(latents).cpu().numpy()
        return pixels

    fused = staticmethod(as_it_is)

    def wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def open_networks(pipeline: EEGToImagePipeline, n: int, threads: int) -> Networks:
    """The fastest for a pipeline's size and device.

    Parameters
    ----------
    n : pictures of a call of `predict`.
    threads : that compute, on the CPU.
    """
    device = pipeline.unet.device.type
    is_small = sum(p.numel() for p in pipeline.unet.parameters()) <= SMALL
    if device == "cuda":
        return GraphNetworks(pipeline, n) if is_small else compiled_networks(pipeline, n)
    if device == "cpu" and is_small:
        return OpenVinoNetworks(pipeline, n, threads)
    return EagerNetworks(pipeline)


def compiled_networks(
    pipeline: EEGToImagePipeline, n: int, backend: str = "inductor"
) -> GraphNetworks:
    """Graphs of few kernels that PyTorch's compiler made, or, where it cannot, of PyTorch's own.

    Parameters
    ----------
    n : pictures of a call of `predict`.
    backend : of `torch.compile`.
    """
    # Kept where OpenVINO's are: PyTorch has set a folder that a restart of the machine empties.
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(user_cache_path("phosphene") / "inductor")
    try:
        return GraphNetworks(pipeline, n, Compiler(backend))
    except torch.OutOfMemoryError:
        raise
    # The compiler's parts raise whatever they do, a missing header CalledProcessError.
    except Exception as error:
        log.warning(
            "PyTorch cannot compile for this GPU (%s), and frames take longer: install a C "
            "compiler and Python's headers (apt install gcc python3-dev) and start again.",
            # What the compiler met, and not that it did.
            first_line(getattr(error, "inner_exception", error)),
        )
        return GraphNetworks(pipeline, n)
