"""From an epoch to a frame: a keyframe for each epoch, from the same noise."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from models.errors import BundleError
from models.pipeline import EEGToImagePipeline, first_line, fixed_noise, load_bundle


@dataclass(frozen=True, slots=True)
class Painted:
    """A frame and what the EEG says.

    Attributes
    ----------
    rgb : (H, W, 3) uint8.
    concepts : (name, confidence), the likeliest first; empty for a bundle without concepts.
    is_sure : whether the EEG is that of someone who sees something, so that there is an answer.
    encode_ms, paint_ms : time for EEG to conditioning, and for conditioning to pixels.
    """

    rgb: np.ndarray
    concepts: list[tuple[str, float]]
    is_sure: bool
    encode_ms: float
    paint_ms: float


class KeyframePainter:
    """Paints one picture for one epoch; the same epoch and seed give the same picture.

    Parameters
    ----------
    pipeline : the bundle.
    seed : of all noise, which pictures share, so that they change only where the EEG does.
    num_inference_steps, guidance_scale : of the sampler.
    """

    def __init__(
        self,
        pipeline: EEGToImagePipeline,
        seed: int = 0,
        num_inference_steps: int = 10,
        guidance_scale: float = 1.0,
    ) -> None:
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}, not 1 or more")
        self.pipeline = pipeline
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        noise, self._generator = fixed_noise(pipeline, seed)
        self._noise = noise.to(pipeline.unet.device, pipeline.unet.dtype)

    @classmethod
    def from_bundle(
        cls, folder: Path | str, seed: int = 0, threads: int = 1, device: str = "auto"
    ) -> KeyframePainter:
        """Load a bundle for painting.

        Parameters
        ----------
        folder : of the bundle; its `painter.json` may set the sampler.
        threads : of torch on the CPU.
        device : "cpu", "cuda" or "auto", which is CUDA where there is one.

        Raises
        ------
        BundleError
            In one sentence, with the remedy.
        """
        torch.set_num_threads(threads)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        is_cuda = device.startswith("cuda")
        half = {"unet": torch.float16, "vae": torch.float16, "default": torch.float32}
        pipeline = load_bundle(folder, half if is_cuda else torch.float32).to(device)
        path = Path(folder) / "painter.json"
        try:
            sampler = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            return cls(pipeline, seed, **sampler)
        except (ValueError, TypeError) as error:
            raise BundleError(
                f"{path} does not set the sampler ({error}). It may hold num_inference_steps "
                "and guidance_scale."
            ) from error

    def warm_up(self) -> None:
        """Paint once from silence, so that the first real frame is as fast as the others.

        Raises
        ------
        BundleError
            The bundle's parts do not fit each other, which shows only when it paints.
        """
        config = self.pipeline.eeg_encoder.config
        try:
            self.paint(np.zeros((config.in_channels, config.n_times), np.float32))
        # torch and diffusers raise whatever their inner libraries do.
        except Exception as error:
            raise BundleError(
                f"The bundle loads but cannot paint ({first_line(error)}). Its parts do not fit "
                "each other or this device; give another with --bundle."
            ) from error

    @torch.inference_mode()
    def paint(self, eeg: np.ndarray) -> Painted:
        """Paint the picture for an epoch (n_channels, n_times), float32.

        Raises
        ------
        EpochShapeError
            The epoch is not what the bundle was made for.
        """
        begun = time.perf_counter()
        pipeline = self.pipeline
        context, time_embedding, clip_embeds = pipeline.encode(torch.from_numpy(eeg)[None])
        concepts: list[tuple[str, float]] = []
        is_sure = True
        if pipeline.concepts is not None:
            probabilities = pipeline.concepts(clip_embeds.float())
            is_sure = bool(pipeline.concepts.is_sure(clip_embeds.float())[0])
            best = probabilities[0].sort(descending=True)
            names = pipeline.concepts.config.names
            concepts = [
                (names[i], p)
                for p, i in zip(best.values.tolist(), best.indices.tolist(), strict=True)
            ]
        encoded = time.perf_counter()
        latents = pipeline.denoise(
            context,
            time_embedding,
            self._noise,
            self.num_inference_steps,
            self.guidance_scale,
            self._generator.clone_state(),
        )
        picture = pipeline.decode(latents)[0]
        rgb = (picture * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
        painted = time.perf_counter()
        return Painted(rgb, concepts, is_sure, 1e3 * (encoded - begun), 1e3 * (painted - encoded))
