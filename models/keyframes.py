"""A keyframe for each epoch, from the same noise: for bundles that need many steps."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from models.errors import BundleError
from models.follower import Conditioning
from models.frames import Decoded, Frame, Listener, Painter
from models.networks import EagerNetworks, Networks
from models.pipeline import EEGToImagePipeline, fixed_noise, load_bundle


class KeyframePainter:
    """Paints one picture for one epoch; the same epoch and seed give the same picture.

    Parameters
    ----------
    pipeline : the bundle.
    seed : of all noise, which pictures share, so that they change only where the EEG does.
    num_inference_steps, guidance_scale : of the sampler.
    networks : that compute; by default the bundle's own, as they are.
    """

    def __init__(
        self,
        pipeline: EEGToImagePipeline,
        seed: int = 0,
        num_inference_steps: int = 10,
        guidance_scale: float = 1.0,
        networks: Networks | None = None,
    ) -> None:
        if num_inference_steps < 1:
            raise ValueError(f"num_inference_steps is {num_inference_steps}, not 1 or more")
        self.pipeline = pipeline
        self.num_inference_steps = num_inference_steps
        self.guidance_scale = guidance_scale
        self._networks = networks or EagerNetworks(pipeline)
        noise, self._generator = fixed_noise(pipeline, seed)
        self._noise = noise.to(pipeline.unet.device, pipeline.unet.dtype)
        self._waiting: Conditioning | None = None
        self._listener = Listener(pipeline, self._networks)

    @classmethod
    def from_bundle(
        cls, folder: Path | str, seed: int = 0, threads: int = 1, device: str = "auto"
    ) -> KeyframePainter:
        """Load a bundle whose networks run as they are.

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
        device = chosen_device(device)
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

    period = 0.0
    rung = ""

    @property
    def is_moving(self) -> bool:
        """Whether an epoch waits to be painted."""
        return self._waiting is not None

    def restart(self) -> None:
        """Forget the epoch that waits; see `models.frames.Painter`."""
        self._waiting = None
        self._listener.restart()

    def aim(
        self, eeg: np.ndarray, is_locked: bool = True, first_sample: int | None = None
    ) -> Decoded:
        """Take an epoch; see `models.frames.Painter`."""
        self._waiting, decoded = self._listener.read(eeg, is_locked, first_sample)
        return decoded

    @torch.inference_mode()
    def step(self, dt: float) -> Frame | None:  # noqa: ARG002 - a keyframe has no way to it
        """Paint the epoch that waits, if one does."""
        if self._waiting is None:
            return None
        begun = time.perf_counter()
        conditioning, self._waiting = self._waiting, None
        latents = self.pipeline.denoise(
            conditioning.context,
            conditioning.time_embedding,
            self._noise,
            self.num_inference_steps,
            self.guidance_scale,
            self._generator.clone_state(),
            self._networks.predict,
        )
        rgb = self._networks.decode(latents)[0]
        return Frame(rgb, "painted", 1e3 * (time.perf_counter() - begun))

    def paint(self, eeg: np.ndarray) -> tuple[Decoded, Frame]:
        """An epoch and its picture, at once."""
        decoded = self.aim(eeg)
        frame = self.step(0)
        assert frame is not None
        return decoded, frame


def chosen_device(device: str) -> str:
    """Where to compute: CUDA for "auto" where there is one, else the CPU; or as it says."""
    if device != "auto":
        return device
    return "cuda" if torch.cuda.is_available() else "cpu"


class OneByOne:
    """`Painters` that paint one after the other; see `models.frames`."""

    def __init__(self, painters: Sequence[Painter]) -> None:
        self.painters = painters

    def step(self, dts: Sequence[float | None]) -> list[Frame | None]:
        """The next frame of each session; see `Painters`."""
        pairs = zip(self.painters, dts, strict=True)
        return [None if dt is None else painter.step(dt) for painter, dt in pairs]
