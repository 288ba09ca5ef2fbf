"""Networks that OpenVINO compiled for a CPU."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import nn

from models.fusing import as_it_is
from models.network_parts import DecoderPart, EncoderPart, UnetPart, example, example_eeg
from models.pipeline import EEGToImagePipeline


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
        encoder, unet, decoder = EncoderPart(pipeline), UnetPart(pipeline), DecoderPart(pipeline)
        inputs = example(pipeline, n)
        self._encoder = _compiled(encoder, (example_eeg(pipeline),), config, folder)
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
        pictures = []
        for row in latents.numpy():
            out = self._decoder.infer([row[None]], share_inputs=True, share_outputs=True)
            pictures.append(out[0][0].copy())
        return np.stack(pictures)

    fused = staticmethod(as_it_is)

    def wait(self) -> None:
        """Nothing: every answer is there when it is given."""


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
