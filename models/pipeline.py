"""EEG to image: encoder, conditioner, U-Net and VAE as a diffusers pipeline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline, LCMScheduler
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from PIL import Image
from torch import nn

from models.bundle_files import check_bundle
from models.concepts import ConceptTable
from models.conditioner import EEGConditioner
from models.drift import Drift
from models.eeg_encoder import EEGEncoder
from models.errors import BundleError
from models.guidance import guide
from models.ip_adapter import ImageAdapter, empty_context, uninstall
from models.template_reader import Reading, TemplateReader

Encode = Callable[[torch.Tensor], tuple[torch.Tensor, ...]]
Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]

Route = Literal["context", "image"]
"""From EEG to the painter: DreamDiffusion's context, or CLIP's space and an image adapter."""

Generators = torch.Generator | list[torch.Generator] | None
"""One for all pictures, or one for each."""


class Encoded(NamedTuple):
    """What n epochs say, to the U-Net and to people.

    Attributes
    ----------
    context : (n, n_context, cross_attention_dim).
    time_embedding : (n, time_embed_dim).
    clip_embeds : (n, clip_dim), the EEG in CLIP's space.
    probabilities : (n, n_concepts), or None for a bundle without concepts.
    is_sure : (n,) bool, whether anything was seen; True for a bundle without concepts.
    """

    context: torch.Tensor
    time_embedding: torch.Tensor
    clip_embeds: torch.Tensor
    probabilities: torch.Tensor | None
    is_sure: torch.Tensor


@dataclass
class EEGToImageOutput(BaseOutput):  # type: ignore[misc]
    """What the pipeline returns.

    Attributes
    ----------
    images : list of PIL images, or a tensor (n, 3, H, W) in 0 to 1 for `output_type="pt"`.
    concept_probabilities : (n, n_concepts), or None for a bundle without concepts.
    clip_embeds : (n, clip_dim), the EEG in CLIP's space.
    """

    images: list[Image.Image] | torch.Tensor
    concept_probabilities: torch.Tensor | None
    clip_embeds: torch.Tensor


class EEGToImagePipeline(DiffusionPipeline):  # type: ignore[misc]
    """DreamDiffusion's inference (arXiv 2306.16934).

    Parameters
    ----------
    vae : `AutoencoderKL` or `AutoencoderTiny`.
    unet : `UNet2DConditionModel` with `class_embed_type="identity"`, so that the time
        embedding of the EEG is added to that of the step.
    scheduler : any scheduler of diffusers.
    eeg_encoder, conditioner : see their modules.
    concepts : prototypes in CLIP's space, or None.
    image_adapter : which lets the U-Net paint by the EEG's CLIP embedding; None: by the
        conditioner's context, as DreamDiffusion. It is installed in the U-Net here.
    reader : templates that the concept is read by beside the encoder, or None.
    drift : follows a person's EEG from one epoch to the next, in live use, or None.
    """

    # diffusers adds lists to it
    _optional_components: ClassVar = ["concepts", "image_adapter", "reader", "drift"]
    model_cpu_offload_seq = "eeg_encoder->conditioner->unet->vae"

    def __init__(
        self,
        vae: Any,
        unet: Any,
        scheduler: Any,
        eeg_encoder: EEGEncoder,
        conditioner: EEGConditioner,
        concepts: ConceptTable | None = None,
        image_adapter: ImageAdapter | None = None,
        reader: TemplateReader | None = None,
        drift: Drift | None = None,
    ) -> None:
        super().__init__()
        if image_adapter is not None:
            image_adapter.install(unet)
        self.register_modules(
            vae=vae,
            unet=unet,
            scheduler=scheduler,
            eeg_encoder=eeg_encoder,
            conditioner=conditioner,
            concepts=concepts,
            image_adapter=image_adapter,
            reader=reader,
            drift=drift,
        )

    @property
    def route(self) -> Route:
        """How EEG reaches the painter: see `image_adapter`."""
        return "context" if self.image_adapter is None else "image"

    @property
    def n_context(self) -> int:
        """Tokens of the U-Net's context."""
        by_image = self.image_adapter is not None
        n: int = (
            self.image_adapter.config.n_tokens if by_image else self.conditioner.config.n_context
        )
        return n

    def save_pretrained(self, *args: Any, **kwargs: Any) -> None:
        """As diffusers does; the U-Net without the adapter's weights, which are saved beside."""
        if self.image_adapter is not None:
            uninstall(self.unet)
        super().save_pretrained(*args, **kwargs)
        if self.image_adapter is not None:
            self.image_adapter.install(self.unet)

    @torch.no_grad()
    def encode(
        self,
        eeg: torch.Tensor,
        is_locked: bool = True,
        reading: Reading | None = None,
        encode: Encode | None = None,
    ) -> Encoded:
        """Read epochs (n, channels, times).

        Parameters
        ----------
        is_locked : whether they are locked to the onset of what was seen, or sliding windows.
        reading : what windows before them say with them (`models.window_filter`), for a bundle
            with a reader; else each is read alone.
        encode : what computes encoder and conditioner; by default they do.
        """
        encoder, adapter, table = self.eeg_encoder, self.image_adapter, self.concepts
        device, encoder_dtype = _place(encoder)
        eeg = eeg.to(device, encoder_dtype)
        encoded = encode(eeg) if encode else self.conditioner(encoder(eeg))
        context, time_embedding, clip_embeds = encoded
        probabilities, is_sure = None, torch.ones(len(eeg), dtype=torch.bool)
        if table is not None:
            probabilities = own = table(clip_embeds.float())
            is_sure = table.is_sure(clip_embeds.float())
        if self.reader is not None and table is not None:
            odds = table.log_odds(clip_embeds.float())
            if reading is None:
                scores = self.reader.scores(eeg, is_locked)
                reading = self.reader.read(scores, self.reader.distance(eeg), own, odds, is_locked)
            probabilities, is_sure = reading.probabilities.to(own.device), reading.is_seen
            label = probabilities.argmax(1)
            told = self.reader.context(eeg, label, is_locked)
            if adapter is None:
                context = told.to(encoder_dtype)
                time_embedding = self.conditioner.time_embedding(context)
                # Of the encoder's embedding all stays but the concept.
                named = table.prototypes[label] - table.prototypes[own.argmax(1)]
                clip_embeds = F.normalize(clip_embeds.float(), dim=1) + named
            else:
                clip_embeds = told[:, 0]
        if adapter is not None:
            context = adapter(clip_embeds.to(encoder_dtype))
            time_embedding = torch.zeros_like(time_embedding)
        dtype = _place(self.unet)[1]
        context, time_embedding = context.to(dtype), time_embedding.to(dtype)
        return Encoded(context, time_embedding, clip_embeds, probabilities, is_sure)

    @torch.no_grad()
    def denoise(
        self,
        context: torch.Tensor,
        time_embedding: torch.Tensor,
        latents: torch.Tensor,
        num_inference_steps: int,
        guidance_scale: float = 1.0,
        generator: Generators = None,
        predict: Predict | None = None,
    ) -> torch.Tensor:
        """Latents of unit noise (n, 4, h, w) to clean ones under the conditioning.

        Parameters
        ----------
        generator : of the noise that some schedulers add at every step, as LCM's.
        predict : what computes the U-Net's output, from latents, timestep (1,), context and time
            embedding; by default the U-Net.
        """
        self.scheduler.set_timesteps(num_inference_steps, device=latents.device)
        noise = latents
        latents = latents * self.scheduler.init_noise_sigma
        is_guided = guidance_scale > 1
        if is_guided:
            context = torch.cat([empty_context(self.image_adapter, context), context])
            time_embedding = torch.cat([torch.zeros_like(time_embedding), time_embedding])
        extra = {"generator": generator} if _takes_generator(self.scheduler) else {}
        timesteps = self.scheduler.timesteps
        for k, t in enumerate(self.progress_bar(timesteps)):
            x = torch.cat([latents, latents]) if is_guided else latents
            x = self.scheduler.scale_model_input(x, t)
            if predict:
                noise_pred = predict(x, t[None], context, time_embedding)
            else:
                noise_pred = self.unet(x, t, context, class_labels=time_embedding).sample
            if is_guided:
                empty, conditioned = noise_pred.chunk(2)
                noise_pred = guide(empty, conditioned, guidance_scale, self.scheduler)
            out = self.scheduler.step(noise_pred, t, latents, **extra)
            latents = out.prev_sample
            if isinstance(self.scheduler, LCMScheduler) and k + 1 < len(timesteps):
                # With the noise that it began from, not a new one: else each step would leave the
                # picture that the one before it had begun (told rightly: 69 against 64 %).
                latents = self.scheduler.add_noise(out.denoised, noise, timesteps[k + 1][None])
        return latents

    @torch.no_grad()
    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents to pictures (n, 3, H, W) in 0 to 1."""
        vae = self.vae
        pictures = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        out: torch.Tensor = (pictures.float() / 2 + 0.5).clamp(0, 1)
        return out

    def latent_shape(self, n: int) -> tuple[int, int, int, int]:
        """Shape of the latents of `n` pictures."""
        side = self.unet.config.sample_size
        return (n, self.unet.config.in_channels, side, side)

    def __call__(
        self,
        eeg: torch.Tensor | np.ndarray,
        num_inference_steps: int = 20,
        guidance_scale: float = 1.0,
        generator: Generators = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        is_locked: bool = True,
    ) -> EEGToImageOutput:
        """Paint what was seen.

        Parameters
        ----------
        eeg : (n, channels, times), cut and normalised by the bundle's epoch_spec.json.
        num_inference_steps : U-Net evaluations for a picture; the reference takes 250.
        guidance_scale : 1 as the reference; above it needs conditioning dropout.
        generator : of the initial noise, and of what some schedulers add later; or one for
            each picture.
        latents : (n, 4, h, w) initial noise of unit variance, instead of drawing it.
        output_type : "pil" or "pt".
        is_locked : see `encode`.

        Raises
        ------
        EpochShapeError
            `eeg` is not what the encoder was built for.
        """
        epochs = torch.as_tensor(eeg, dtype=torch.float32)
        encoded = self.encode(epochs, is_locked)
        if latents is None:
            latents = randn_tensor(
                self.latent_shape(len(epochs)),
                generator=generator,
                device=self.unet.device,
                dtype=self.unet.dtype,
            )
        latents = self.denoise(
            encoded.context,
            encoded.time_embedding,
            latents.to(self.unet.device, self.unet.dtype),
            num_inference_steps,
            guidance_scale,
            generator,
        )
        pictures = self.decode(latents)
        said = encoded.probabilities, encoded.clip_embeds
        if output_type == "pt":
            return EEGToImageOutput(pictures, *said)
        pixels = (pictures.permute(0, 2, 3, 1) * 255).round().byte().cpu().numpy()
        images = [Image.fromarray(p) for p in pixels]
        return EEGToImageOutput(images, *said)


def _place(module: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Where and in what precision a network computes.

    What diffusers' `device` and `dtype` say, which look through all of its parts for that: some
    milliseconds at every epoch.
    """
    first = next(module.parameters())
    return first.device, first.dtype


def fixed_noise(pipeline: EEGToImagePipeline, seed: int) -> tuple[torch.Tensor, torch.Generator]:
    """The noise that all pictures begin from, so that they change only where the EEG does.

    Returns
    -------
    latents (1, 4, h, w), and a generator whose `clone_state()` each picture gets, for schedulers
    that add noise at every step.
    """
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(pipeline.latent_shape(1), generator=generator), generator


def _takes_generator(scheduler: Any) -> bool:
    return "generator" in scheduler.step.__code__.co_varnames


def first_line(error: Exception) -> str:
    """What a library's error says, short enough to be part of a sentence."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def load_bundle(
    folder: Path | str, dtype: torch.dtype | dict[str, torch.dtype] = torch.float32
) -> EEGToImagePipeline:
    """Load any bundle: the scale model, SD 1.5 fine-tuned, an imported checkpoint.

    Parameters
    ----------
    folder : with model_index.json, epoch_spec.json and a folder for each component.
    dtype : of the weights, or of each component (diffusers' `dtype`).

    Raises
    ------
    BundleError
        The folder is missing, incomplete or damaged; says which part.
    """
    folder = Path(folder)
    check_bundle(folder)
    try:
        pipeline: EEGToImagePipeline = EEGToImagePipeline.from_pretrained(
            folder,
            dtype=dtype,
            local_files_only=True,
            # Never a pickle: a bundle may come from a stranger.
            use_safetensors=True,
            low_cpu_mem_usage=False,
        )
    # diffusers and safetensors raise whatever their inner libraries do.
    except Exception as error:
        raise BundleError(
            f"The bundle {folder} cannot be loaded ({first_line(error)}). Copy it again, or give "
            "another with --bundle."
        ) from error
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
