"""Compiled networks answer as PyTorch does, are converted once, and tell nobody."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino_telemetry
import pytest
import torch
from diffusers.models.attention_processor import FusedAttnProcessor2_0
from torch import nn

from models import networks, openvino_networks
from models.eeg_encoder import EEGEncoder
from models.fusing import Compiler, as_it_is
from models.graph_networks import GraphNetworks
from models.networks import EagerNetworks, compiled_networks, open_networks
from models.openvino_networks import OpenVinoNetworks
from models.pipeline import EEGToImagePipeline, load_bundle


@pytest.fixture(scope="module")
def pipeline(tiny_bundle: Path) -> EEGToImagePipeline:
    return load_bundle(tiny_bundle)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def asked(n: int) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    t = torch.tensor([321])
    return torch.randn(n, 4, 4, 4), t, torch.randn(n, 8, 16), torch.randn(n, 64)


def epoch(pipeline: EEGToImagePipeline, seed: int) -> torch.Tensor:
    config = pipeline.eeg_encoder.config
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(1, config.in_channels, config.n_times, generator=generator)


@pytest.mark.parametrize("n", [1, 2])
def test_the_answers_are_pytorchs(pipeline: EEGToImagePipeline, cache: Path, n: int) -> None:
    eager, compiled = EagerNetworks(pipeline), OpenVinoNetworks(pipeline, n, 1, cache)
    inputs = asked(n)
    first = compiled.predict(*inputs)
    torch.testing.assert_close(first, eager.predict(*inputs), atol=1e-4, rtol=1e-4)
    compiled.predict(*(2 * x for x in inputs))
    torch.testing.assert_close(first, eager.predict(*inputs), atol=1e-4, rtol=1e-4)
    latents = inputs[0]
    pixels = compiled.decode(latents)
    assert pixels.shape == (n, 32, 32, 3)
    assert pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.astype(int), eager.decode(latents).astype(int), atol=1)
    decoded = pipeline.decode(latents).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(pixels / 255, decoded, atol=1 / 255)
    first, second = epoch(pipeline, 0), epoch(pipeline, 1)
    kept = compiled.encode(first)
    compiled.encode(second)
    for found, wanted in zip(kept, eager.encode(first), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)
    own = pipeline.conditioner(pipeline.eeg_encoder(first))
    torch.testing.assert_close(eager.encode(first), own, atol=0, rtol=0)


def test_equal_weights_put_together_otherwise_are_kept_apart() -> None:
    encoders = [EEGEncoder(8, 64, 16, 16, 1, heads, 1.0) for heads in (2, 4)]
    encoders[1].load_state_dict(encoders[0].state_dict())
    assert len({openvino_networks._digest(nn.Sequential(encoder)) for encoder in encoders}) == 2
    assert len({openvino_networks._digest(nn.Sequential(encoders[0])) for _ in range(2)}) == 1


ROOT = Path(__file__).resolve().parents[2]
HAS_GPU = torch.cuda.is_available()
NEEDS_GPU = [pytest.mark.gpu, pytest.mark.skipif(not HAS_GPU, reason="needs an NVIDIA GPU")]
DEVICES = ["cpu", pytest.param("cuda", marks=NEEDS_GPU)]


COMPILER = {"cpu": "aot_eager", "cuda": "inductor"}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("is_fused", [False, True], ids=["own kernels", "fused"])
def test_a_graphs_answers_are_pytorchs(
    tiny_bundle: Path, n: int, device: str, is_fused: bool
) -> None:
    # Two: a graph's lays out its weights anew.
    plain, moved = (load_bundle(tiny_bundle).to(device) for _ in range(2))
    fuse = Compiler(COMPILER[device]) if is_fused else as_it_is
    eager, graph = EagerNetworks(plain), GraphNetworks(moved, n, fuse)
    kinds = {type(processor) for processor in moved.unet.attn_processors.values()}
    assert kinds == {FusedAttnProcessor2_0}
    first, second = asked(n), tuple(2 * x for x in asked(n))
    kept = graph.predict(*(x.to(device) for x in first))
    for inputs in (second, first):
        there = tuple(x.to(device) for x in inputs)
        torch.testing.assert_close(
            graph.predict(*there), eager.predict(*there), atol=1e-3, rtol=1e-3
        )
    wanted = eager.predict(*(x.to(device) for x in first))
    torch.testing.assert_close(kept, wanted, atol=1e-3, rtol=1e-3)
    for k in {1, n, max(1, n - 1)}:
        pixels = [graph.decode(x[0][:k].to(device)) for x in (first, second)]
        for x, found in zip((first, second), pixels, strict=True):
            shown = eager.decode(x[0][:k].to(device))
            assert len(found) == k
            np.testing.assert_allclose(found.astype(int), shown.astype(int), atol=1)
        assert (pixels[0] != pixels[1]).any()
    kept = graph.encode(epoch(moved, 0).to(device))
    graph.encode(epoch(moved, 1).to(device))
    for found, wanted in zip(kept, eager.encode(epoch(moved, 0).to(device)), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-3, rtol=1e-3)


def test_they_are_converted_once_and_again_where_that_is_lost(
    pipeline: EEGToImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[str] = []
    convert = openvino_networks._converted

    def counting(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> object:
        converted.append(type(network).__name__)
        return convert(network, inputs)

    monkeypatch.setattr(openvino_networks, "_converted", counting)
    first, again = (OpenVinoNetworks(pipeline, 1, 1, tmp_path) for _ in range(2))
    assert converted == ["EncoderPart", "UnetPart", "DecoderPart"]
    torch.testing.assert_close(again.predict(*asked(1)), first.predict(*asked(1)), atol=0, rtol=0)
    assert len(list(tmp_path.iterdir())) == 6, "nothing else is left"
    for path in tmp_path.glob("*.xml"):
        path.write_text("<net")
    OpenVinoNetworks(pipeline, 1, 1, tmp_path)
    assert len(converted) == 6
    file = tmp_path / "file"
    file.write_text("no folder")
    OpenVinoNetworks(pipeline, 1, 1, file)
    assert len(converted) == 9, "where nothing can be kept, it goes without"


def test_a_first_session_paints_as_later_ones(tmp_path: Path) -> None:
    # The shipped one's: what is read back rounds otherwise, and in small ones that never shows.
    shipped = load_bundle(ROOT / "weights" / "scale-model")
    first, again = (OpenVinoNetworks(shipped, 1, 1, tmp_path) for _ in range(2))
    for latents in torch.randn(12, 1, 4, 16, 16, generator=torch.Generator().manual_seed(0)):
        np.testing.assert_array_equal(again.decode(latents), first.decode(latents))


def test_other_weights_are_other_networks(pipeline: EEGToImagePipeline, tmp_path: Path) -> None:
    before = OpenVinoNetworks(pipeline, 1, 1, tmp_path).predict(*asked(1))
    bias = pipeline.unet.conv_out.bias
    with torch.no_grad():
        bias += 1
    try:
        after = OpenVinoNetworks(pipeline, 1, 1, tmp_path).predict(*asked(1))
    finally:
        with torch.no_grad():
            bias -= 1
    torch.testing.assert_close(after, before + 1, atol=1e-5, rtol=0)


def test_signals_are_handled_after_networks_have_come_and_gone(tiny_bundle: Path) -> None:
    # In a process of its own, which a segmentation fault would end.
    code = f"""
import gc, os, signal
from pathlib import Path
from models.openvino_networks import OpenVinoNetworks
from models.pipeline import load_bundle
pipeline = load_bundle({str(tiny_bundle)!r})
kept = [OpenVinoNetworks(pipeline, 1, 1) for _ in range(3)]
kept.append(OpenVinoNetworks(pipeline, 1, 1))
while kept:
    kept.pop(0)
    gc.collect()
heard = []
signal.signal(signal.SIGINT, lambda *_: heard.append(1))
os.kill(os.getpid(), signal.SIGINT)
assert heard
"""
    command = [sys.executable, "-X", "faulthandler", "-W", "ignore", "-c", code]
    subprocess.run(command, check=True, cwd=ROOT)


def test_nobody_is_told_of_a_conversion(
    pipeline: EEGToImagePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError("telemetry")

    monkeypatch.setattr(openvino_telemetry.Telemetry, "__init__", refuse)
    OpenVinoNetworks(pipeline, 1, 1, tmp_path)


def test_what_cannot_be_compiled_runs_on_pytorch_s_own_kernels_and_says_so(
    tiny_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    first = asked(1)
    wanted = EagerNetworks(load_bundle(tiny_bundle)).predict(*first)

    def broken(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC")

    def name(function: Callable[[], None]) -> str:
        function()
        return function.__name__

    for backend, fused in (("aot_eager", True), (broken, False)):
        caplog.clear()
        found = compiled_networks(load_bundle(tiny_bundle), 1, backend)
        torch.testing.assert_close(found.predict(*first), wanted, atol=1e-4, rtol=1e-4)
        assert (found.fused(name) is not name) == fused
        told = [r.getMessage() for r in caplog.records if r.name == "models.networks"]
        assert bool(told) != fused
    assert "for this GPU (Failed to find C compiler.)" in told[0]
    assert "apt install gcc" in told[0]
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "phosphene" / "inductor")


def test_a_gpu_without_room_is_not_taken_for_one_without_a_compiler(
    pipeline: EEGToImagePipeline, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(networks, "GraphNetworks", full)
    with pytest.raises(torch.OutOfMemoryError):
        compiled_networks(pipeline, 1)
    assert not [r for r in caplog.records if r.name == "models.networks"]


def test_small_ones_are_compiled_and_large_ones_on_a_cpu_stay_as_they_are(
    pipeline: EEGToImagePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = sum(p.numel() for p in pipeline.unet.parameters())
    monkeypatch.setattr(networks, "SMALL", size)
    assert isinstance(open_networks(pipeline, 1, 1), OpenVinoNetworks)
    monkeypatch.setattr(networks, "SMALL", size - 1)
    assert isinstance(open_networks(pipeline, 1, 1), EagerNetworks)
