"""Encoder, U-Net and decoder as fast as the device allows: eager PyTorch, OpenVINO, or CUDA graphs.

Shapes are fixed, so that each is compiled or captured once, before the first frame.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import nn

from models.pipeline import EEGToImagePipeline

# Parameters of the U-Net up to which OpenVINO is worth it on a CPU: what it saves is the time
# around the matrix products. SD 1.5's are bound by the products themselves, and would be
# kept three times in memory while they are converted.
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
        """Latents (1, 4, h, w) to a picture (H, W, 3), uint8."""


class _Encoder(nn.Module):
    """Encoder and conditioner."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__()
        self.encoder, self.conditioner = pipeline.eeg_encoder, pipeline.conditioner

    def forward(self, eeg: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out: tuple[torch.Tensor, ...] = self.conditioner(self.encoder(eeg))
        return out


class _Unet(nn.Module):
    """The U-Net, tensors in and a tensor out."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__()
        self.unet = pipeline.unet

    def forward(
        self,
        latents: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        time_embedding: torch.Tensor,
    ) -> torch.Tensor:
        out: torch.Tensor = self.unet(
            latents, t, context, class_labels=time_embedding, return_dict=False
        )[0]
        return out


class _Decoder(nn.Module):
    """Latents (1, 4, h, w) to pixels (1, H, W, 3), uint8."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        super().__init__()
        self.vae, self.scale = pipeline.vae, float(pipeline.vae.config.scaling_factor)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        x = self.vae.decode(latents.to(self.vae.dtype) / self.scale, return_dict=False)[0]
        x = ((x.float() / 2 + 0.5).clamp(0, 1) * 255).round()
        pixels: torch.Tensor = x.permute(0, 2, 3, 1).to(torch.uint8)
        return pixels


class EagerNetworks:
    """As PyTorch runs them."""

    def __init__(self, pipeline: EEGToImagePipeline) -> None:
        self._encoder = _Encoder(pipeline)
        self._unet, self._decoder = _Unet(pipeline), _Decoder(pipeline)

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
        pixels: np.ndarray = self._decoder(latents)[0].cpu().numpy()
        return pixels


class GraphNetworks:
    """On a GPU: recorded once as a CUDA graph, so that nothing waits for the CPU to launch kernels.

    Inputs and outputs have their own places in memory, which a graph needs. On a CPU the same is
    computed in the same places, without a graph.

    Parameters
    ----------
    pipeline : the bundle.
    n : pictures of a call of `predict`.
    """

    def __init__(self, pipeline: EEGToImagePipeline, n: int) -> None:
        for part in (pipeline.unet, pipeline.vae):
            part.to(memory_format=torch.channels_last)
        self._eeg = _example_eeg(pipeline)
        self._encode, self._encoded = _recorded(_Encoder(pipeline), (self._eeg,))
        self._inputs = _example(pipeline, n)
        self._predict, (self._predicted,) = _recorded(_Unet(pipeline), self._inputs)
        self._latents = self._inputs[0][:1].clone()
        self._decode, (self._pixels,) = _recorded(_Decoder(pipeline), (self._latents,))
        is_cuda = pipeline.unet.device.type == "cuda"
        # Pinned: the copy from the device needs no other.
        self._host = torch.empty(self._pixels.shape, dtype=torch.uint8, pin_memory=is_cuda)

    @torch.inference_mode()
    def encode(self, eeg: torch.Tensor) -> tuple[torch.Tensor, ...]:
        self._eeg.copy_(eeg)
        self._encode()
        return tuple(x.clone() for x in self._encoded)

    @torch.inference_mode()
    def predict(self, *inputs: torch.Tensor) -> torch.Tensor:
        for place, x in zip(self._inputs, inputs, strict=True):
            place.copy_(x)
        self._predict()
        # The next call writes where this one wrote.
        return self._predicted.clone()

    @torch.inference_mode()
    def decode(self, latents: torch.Tensor) -> np.ndarray:
        self._latents.copy_(latents)
        self._decode()
        self._host.copy_(self._pixels)
        pixels: np.ndarray = self._host[0].numpy().copy()
        return pixels


@torch.inference_mode()
def _recorded(
    network: nn.Module, inputs: tuple[torch.Tensor, ...]
) -> tuple[Callable[[], object], tuple[torch.Tensor, ...]]:
    """What runs a network on these inputs, and where its outputs then are."""
    network.eval()
    if inputs[0].device.type != "cuda":
        places = _outputs(network, inputs)

        def run() -> None:
            for place, x in zip(places, _outputs(network, inputs), strict=True):
                place.copy_(x)

        return run, places
    # Kernels are chosen and compiled before anything is recorded, on another stream as CUDA asks.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            network(*inputs)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        places = _outputs(network, inputs)
    return graph.replay, places


def _outputs(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    out = network(*inputs)
    return out if isinstance(out, tuple) else (out,)


def open_networks(pipeline: EEGToImagePipeline, n: int, threads: int) -> Networks:
    """The fastest for a pipeline's size and device.

    Parameters
    ----------
    n : pictures of a call of `predict`.
    threads : that compute, on the CPU.
    """
    device = pipeline.unet.device.type
    if device == "cuda":
        return GraphNetworks(pipeline, n)
    size = sum(p.numel() for p in pipeline.unet.parameters())
    if device == "cpu" and size <= SMALL:
        return OpenVinoNetworks(pipeline, n, threads)
    return EagerNetworks(pipeline)


def _example_eeg(pipeline: EEGToImagePipeline) -> torch.Tensor:
    encoder = pipeline.eeg_encoder
    shape = (1, encoder.config.in_channels, encoder.config.n_times)
    return torch.zeros(shape, dtype=encoder.dtype, device=encoder.device)


def _example(pipeline: EEGToImagePipeline, n: int) -> tuple[torch.Tensor, ...]:
    unet, device = pipeline.unet, pipeline.unet.device
    width = unet.config.cross_attention_dim
    time_dim = unet.time_embedding.linear_2.out_features
    return (
        torch.zeros(pipeline.latent_shape(n), dtype=unet.dtype, device=device),
        torch.zeros(n, dtype=torch.int64, device=device),
        torch.zeros(n, pipeline.n_context, width, dtype=unet.dtype, device=device),
        torch.zeros(n, time_dim, dtype=unet.dtype, device=device),
    )


class OpenVinoNetworks:
    """On a CPU, compiled by OpenVINO; in float32, so that the answers are PyTorch's.

    Converted once and kept in the user's cache, which saves five of six seconds.

    Parameters
    ----------
    pipeline : the bundle, on the CPU.
    n : pictures of a call of `predict`.
    threads : that compute.
    folder : of converted networks.
    """

    def __init__(
        self, pipeline: EEGToImagePipeline, n: int, threads: int, folder: Path | None = None
    ) -> None:
        config = {
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            # The cores are shared with the other processes of a session.
            "ENABLE_CPU_PINNING": False,
        }
        folder = folder or user_cache_path("phosphene") / "openvino"
        encoder, unet, decoder = _Encoder(pipeline), _Unet(pipeline), _Decoder(pipeline)
        inputs = _example(pipeline, n)
        self._encoder = _compiled(encoder, (_example_eeg(pipeline),), config, folder)
        self._unet = _compiled(unet, inputs, config, folder)
        self._decoder = _compiled(decoder, (inputs[0][:1],), config, folder)

    def encode(self, eeg: torch.Tensor) -> tuple[torch.Tensor, ...]:
        out = self._encoder.infer([eeg.numpy()], share_inputs=True, share_outputs=True)
        return tuple(torch.from_numpy(out[i].copy()) for i in range(len(out)))

    def predict(
        self,
        latents: torch.Tensor,
        t: torch.Tensor,
        context: torch.Tensor,
        time_embedding: torch.Tensor,
    ) -> torch.Tensor:
        inputs = (latents, t.expand(len(latents)).contiguous(), context, time_embedding)
        out = self._unet.infer([x.numpy() for x in inputs], share_inputs=True, share_outputs=True)
        # The next call writes where this one wrote.
        return torch.from_numpy(out[0].copy())

    def decode(self, latents: torch.Tensor) -> np.ndarray:
        out = self._decoder.infer([latents.numpy()], share_inputs=True, share_outputs=True)
        pixels: np.ndarray = out[0][0].copy()
        return pixels


@cache
def openvino_core() -> Any:
    """OpenVINO, once in a process and never let go.

    Its plugin for CPUs replaces the stack that signals are handled on, and puts the one before back
    when it is destroyed; of several, not in the order of their beginning, one puts back a stack
    that is gone, and the next signal is a segmentation fault.
    """
    import openvino

    return openvino.Core()


def _compiled(
    network: nn.Module, inputs: tuple[torch.Tensor, ...], config: dict[str, Any], folder: Path
) -> Any:
    """OpenVINO's request for a network and inputs of fixed shapes; `folder` keeps what is made."""
    import openvino

    core = openvino_core()
    path = folder / f"{_digest(network)}-{openvino.__version__.partition('-')[0]}.xml"
    try:
        model = core.read_model(path)
    # Not there, or damaged.
    except RuntimeError:
        model = _converted(network, inputs)
        _keep(model, path)
        with suppress(RuntimeError):
            # What is read rounds otherwise than what was written: pixels differ by one.
            model = core.read_model(path)
    shapes = [openvino.PartialShape(list(x.shape)) for x in inputs]
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    return core.compile_model(model, "CPU", config).create_infer_request()


def _converted(network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Any:
    # Not `openvino.convert_model`, which tells Intel of every conversion.
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with warnings.catch_warnings(), torch.no_grad():
        # Shapes are fixed here, and that is all that tracing warns of.
        warnings.simplefilter("ignore")
        traced = TorchScriptPythonDecoder(network.eval(), example_input=inputs)
        reader = FrontEndManager().load_by_framework("pytorch")
        return reader.convert(reader.load(traced))


def _keep(model: Any, path: Path) -> None:
    """Write a model for the next time, all of it or nothing; without room it goes without."""
    import openvino

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            whole = Path(folder) / path.name
            openvino.save_model(model, whole, compress_to_fp16=False)
            # The weights first: a description without them would be read.
            for part in (whole.with_suffix(".bin"), whole):
                os.replace(part, path.with_name(part.name))
    except (OSError, RuntimeError):
        pass


def _digest(network: nn.Module) -> str:
    """Of the weights and how they are put together, which heads and scales belong to."""
    settings = [
        {
            name: value
            for name, value in dict(getattr(part, "config", {})).items()
            if not name.startswith("_")
        }
        for part in network.children()
    ]
    written = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(f"{network!r}{written}".encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.contiguous().numpy().view(np.uint8).data)
    return digest.hexdigest()[:32]
