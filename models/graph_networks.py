"""Networks that are recorded as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import (
    Attention,
    AttnProcessor2_0,
    FusedAttnProcessor2_0,
)
from torch import nn

from models.fusing import Function, Fuse, as_it_is
from models.network_parts import DecoderPart, EncoderPart, UnetPart, example, example_eeg
from models.pipeline import EEGToImagePipeline


class GraphNetworks:
    """On a GPU: recorded once as a CUDA graph, so that nothing waits for the CPU to launch kernels.

    Inputs and outputs have their own places in memory, which a graph needs. On a CPU the same is
    computed in the same places, without a graph.

    Parameters
    ----------
    pipeline : the bundle.
    n : pictures of a call of `predict`.
    fuse : makes U-Net, decoder and what is given to `fused` faster before they are recorded.
    """

    def __init__(self, pipeline: EEGToImagePipeline, n: int, fuse: Fuse = as_it_is) -> None:
        for part in (pipeline.unet, pipeline.vae):
            part.to(memory_format=torch.channels_last)
        _join_projections(pipeline.unet)
        self._fuse = fuse
        self._eeg = example_eeg(pipeline)
        self._encode, self._encoded = _recorded(EncoderPart(pipeline), (self._eeg,))
        self._inputs = example(pipeline, n)
        unet = fuse(UnetPart(pipeline))
        self._predict, (self._predicted,) = _recorded(unet, self._inputs)
        decoder = fuse(DecoderPart(pipeline))
        # One alone does not take the time of all.
        self._decoders = {k: _PinnedDecoder(decoder, self._inputs[0][:k]) for k in {1, n}}

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
        k = len(latents)
        decoder = self._decoders[min(n for n in self._decoders if n >= k)]
        return decoder(latents)

    def fused(self, function: Function, /) -> Function:
        return self._fuse(function)

    def wait(self) -> None:
        if self._eeg.is_cuda:
            torch.cuda.synchronize(self._eeg.device)


def _join_projections(unet: UNet2DConditionModel) -> None:
    """One matrix product for queries, keys and values of each attention of diffusers' own.

    Those of adapters stay, for which diffusers has no such processor.
    """
    for attention in (part for part in unet.modules() if isinstance(part, Attention)):
        if type(attention.processor) is AttnProcessor2_0:
            attention.fuse_projections()
            attention.set_processor(FusedAttnProcessor2_0())


class _PinnedDecoder:
    """A decoder, recorded, whose pictures come to memory that the device copies to by itself.

    Parameters
    ----------
    decoder : latents to pixels.
    like : latents of as many pictures as it makes.
    """

    def __init__(self, decoder: nn.Module, like: torch.Tensor) -> None:
        self._latents = like.clone()
        self._decode, (self._pixels,) = _recorded(decoder, (self._latents,))
        is_cuda = like.device.type == "cuda"
        self._host = torch.empty(self._pixels.shape, dtype=torch.uint8, pin_memory=is_cuda)

    def __call__(self, latents: torch.Tensor) -> np.ndarray:
        """Latents of as many pictures, or fewer, to these."""
        k = len(latents)
        self._latents[:k].copy_(latents)
        self._decode()
        self._host.copy_(self._pixels)
        pixels: np.ndarray = self._host[:k].numpy().copy()
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
