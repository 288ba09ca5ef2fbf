"""Few-step distillation: a bundle that paints at once what guided steps paint one by one.

Latent consistency distillation (Luo et al. 2023, arXiv 2310.04378) of a finished bundle's
U-Net; see `models.training.consistency`. Encoder and conditioner stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import DDIMScheduler, LCMScheduler, UNet2DConditionModel
from torch import nn

from models.errors import PreparedSetError, TrainingError
from models.ip_adapter import ImageAdapter
from models.keyframes import KeyframePainter
from models.pipeline import EEGToImagePipeline, fixed_noise
from models.training.base import check_prediction, encode_set, load_stage
from models.training.bundle import Sampler, read_held_out, save_variant
from models.training.captions import CaptionedPictures
from models.training.config import DistillConfig
from models.training.consistency import DistillTask
from models.training.prepared import PreparedSet
from models.training.pretrained import check_shapes
from models.training.seen import SeenEpochs
from models.training.stage import processes, run_stage

# Held-out epochs that are painted at each checkpoint, and in how many steps.
HELD_OUT = 32
FEW_STEPS = (1, 2, 4)


class Likeness:
    """How far few steps are from the teacher's many, from the same noise.

    Parameters
    ----------
    pipeline : the bundle; its U-Net is the teacher's.
    unet, scheduler : the student's, and LCM's.
    eeg : (n, n_channels, n_times), held-out epochs.
    guidance : of the teacher.
    adapter : the student's.
    """

    def __init__(
        self,
        pipeline: EEGToImagePipeline,
        unet: nn.Module,
        scheduler: LCMScheduler,
        eeg: torch.Tensor,
        guidance: float,
        seed: int,
        adapter: ImageAdapter | None = None,
    ) -> None:
        config = scheduler.config
        teacher = DDIMScheduler.from_config(
            config, timestep_spacing="trailing", set_alpha_to_one=False
        )
        parts = pipeline.components
        self._many = EEGToImagePipeline(**parts | {"scheduler": teacher})
        learns = {"unet": unet, "image_adapter": adapter, "scheduler": scheduler}
        self._few = EEGToImagePipeline(**parts | learns)
        for each in (self._many, self._few):
            each.set_progress_bar_config(disable=True)
        self._eeg, self._guidance, self._seed = eeg, guidance, seed
        self._n_steps = config.original_inference_steps
        self._painted: torch.Tensor | None = None

    def __call__(self) -> dict[str, float]:
        """Squared error of the latents beside the variance of the teacher's, by steps."""
        if self._painted is None:
            self._painted = self._paint(self._many, self._n_steps, self._guidance)
        wanted = self._painted
        return {
            f"error_{n}_steps": float(
                (self._paint(self._few, n, 1.0) - wanted).square().mean() / wanted.var()
            )
            for n in FEW_STEPS
            if n <= self._n_steps
        }

    @torch.no_grad()
    def _paint(self, pipeline: EEGToImagePipeline, n_steps: int, guidance: float) -> torch.Tensor:
        noise, generator = fixed_noise(pipeline, self._seed)
        painted = []
        for part in self._eeg.split(16):
            context, time_embedding = pipeline.encode(part)[:2]
            latents = noise.to(context).expand(len(part), -1, -1, -1)
            generators = [generator.clone_state() for _ in part]
            painted.append(
                pipeline.denoise(context, time_embedding, latents, n_steps, guidance, generators)
            )
        return torch.cat(painted).float().cpu()


def build_scheduler(bundle: Path, teacher: EEGToImagePipeline, solver_steps: int) -> LCMScheduler:
    """LCM's, with the noise schedule of a bundle.

    Raises
    ------
    TrainingError
        The bundle is distilled already, or cannot be a teacher.
    """
    found = teacher.scheduler
    if isinstance(found, LCMScheduler):
        raise TrainingError(
            f"{bundle} was distilled already. Give the bundle that it was distilled from."
        )
    check_prediction(found, bundle)
    n_timesteps = len(found.alphas_cumprod)
    if n_timesteps % solver_steps:
        raise TrainingError(
            f"--solver-steps expects a divisor of the {n_timesteps} timesteps of {bundle}, as 50, "
            f"not {solver_steps}."
        )
    return LCMScheduler.from_config(
        found.config, original_inference_steps=solver_steps, clip_sample=False
    )


def begin_unet(
    start: str, teacher: UNet2DConditionModel, adapter: ImageAdapter | None = None
) -> UNet2DConditionModel:
    """What learns: a copy of the teacher, or what was distilled before from one like it.

    Parameters
    ----------
    adapter : that is installed in it.

    Raises
    ------
    TrainingError
        The folder holds no U-Net, or one of another build.
    """
    if not start:
        unet = copy.deepcopy(teacher)
        if adapter is not None:
            adapter.install(unet)
        return unet
    remedy = "Give --start the folder `unet` of a bundle that was distilled from one like this."
    unet = load_stage(UNet2DConditionModel, Path(start), "The U-Net to go on from", remedy)
    if adapter is not None:
        adapter.install(unet)
    found, wanted = ({n: p.shape for n, p in u.named_parameters()} for u in (unet, teacher))
    if found != wanted:
        raise TrainingError(f"The U-Net in {start} is of another build than the bundle's. {remedy}")
    return unet


def split_epochs(
    every: SeenEpochs, held_out: dict[str, torch.Tensor]
) -> tuple[SeenEpochs, SeenEpochs]:
    """Epochs to learn from, and those to validate by; test epochs are in neither.

    Parameters
    ----------
    held_out : rows that the bundle's training held out, beside what the set itself tells.
    """
    none = torch.empty(0, dtype=torch.int64)
    told = every.columns().get("split", torch.full((len(every),), -1))
    is_test = (told == 2) | torch.isin(every.index, held_out.get("test", none))
    is_validation = (told == 1) | torch.isin(every.index, held_out.get("val", none))
    learnt = every.part((~is_test & ~is_validation).nonzero()[:, 0])
    return learnt, every.part((~is_test & is_validation).nonzero()[:, 0])


def _captioned(
    folder: Path,
    clip: Path,
    out: Path,
    mixed: float,
    pipeline: EEGToImagePipeline,
    bundle: Path,
    shape: tuple[int, ...],
) -> CaptionedPictures:
    if pipeline.image_adapter is not None:
        raise TrainingError(
            "The bundle paints from CLIP's embeddings of pictures, not from captions. Leave "
            "--pictures and --clip away."
        )
    data = PreparedSet(folder)
    latents = encode_set(out / "cache" / "captioned.npy", data, pipeline.vae, bundle)
    if latents.shape[1:] != shape:
        raise TrainingError(
            f"The pictures of {folder} become latents of {latents.shape[2]} x "
            f"{latents.shape[3]}, and those that were seen of {shape[1]} x {shape[2]}. Prepare "
            "both with pictures of one size."
        )
    captioned = CaptionedPictures(data, clip, latents, mixed)
    told = pipeline.conditioner.config
    captioned.check(told.n_context, told.cross_attention_dim)
    return captioned


def distill(
    bundle: Path,
    prepared: Path,
    out: Path,
    config: DistillConfig,
    say: Callable[[str], None] = print,
    pictures: Path | None = None,
    clip: Path | None = None,
) -> None:
    """Distil a bundle and write `out / "bundle"`, which `phosphene serve` runs.

    What the bundle's own training held out stays out of this one too.

    Parameters
    ----------
    bundle : folder of the teacher.
    prepared : folder of a prepared set whose epochs have pictures.
    out : folder of the stage.
    pictures, clip : prepared set of pictures with captions, and folder of the small CLIP that
        reads them: some rows are told by captions then, so that nothing is forgotten that captions
        say and EEG hardly does. Both, or neither.

    Raises
    ------
    BundleError, PreparedSetError, TrainingError
    """
    if (pictures is None) != (clip is None):
        raise TrainingError("Captions need --pictures and --clip. Give both, or neither.")
    is_main = processes().is_main_process
    data = PreparedSet(prepared)
    painter = KeyframePainter.from_bundle(bundle, threads=torch.get_num_threads(), device="cpu")
    pipeline, guidance = painter.pipeline, config.guidance or painter.guidance_scale
    scheduler = build_scheduler(bundle, pipeline, config.solver_steps)
    held_out = read_held_out(bundle, data) or {}
    seen, validation = split_epochs(SeenEpochs(data, config.epochs), held_out)
    if not len(seen):
        raise PreparedSetError(
            f"{prepared} holds no epochs but those for validation and test. Give the set that the "
            "bundle was trained on."
        )
    check_shapes(pipeline.eeg_encoder, seen.epochs, prepared)
    if is_main:
        say(
            f"Learning from {len(seen)} epochs, with guidance {guidance:g}; {len(validation)} are "
            "for validation."
        )
    latents = encode_set(out / "cache" / "latents.npy", data, pipeline.vae, bundle)
    adapter = copy.deepcopy(pipeline.image_adapter)
    if adapter is not None:
        # Its keys and values learn with the U-Net, its projection does not.
        adapter.projection = pipeline.image_adapter.projection
    captioned = None
    if pictures is not None and clip is not None:
        captioned = _captioned(
            pictures, clip, out, config.mixed, pipeline, bundle, latents.shape[1:]
        )
    unet = begin_unet(config.start, pipeline.unet, adapter)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    task = DistillTask(
        unet,
        pipeline.unet,
        pipeline.eeg_encoder,
        pipeline.conditioner,
        scheduler,
        guidance,
        seen,
        latents,
        config.augment,
        # Of the painter's default seed.
        fixed_noise(pipeline, 0)[0],
        config.fixed_noise,
        pipeline.image_adapter,
        captioned,
        config.captions,
    )
    places = torch.arange(min(HELD_OUT, len(validation)))
    likeness = Likeness(
        pipeline, unet, scheduler, validation.eeg(places), guidance, config.seed, adapter
    )

    def look(_step: int) -> dict[str, float]:
        return likeness() if len(places) else {}

    given = {"bundle": bundle, "prepared": prepared, "pictures": pictures, "clip": clip}
    identity = {name: str(path) for name, path in given.items() if path}
    run_stage(out, task, config, say, look, identity, task.follow)
    if is_main:
        distilled = EEGToImagePipeline(
            **pipeline.components | {"unet": unet, "image_adapter": adapter, "scheduler": scheduler}
        )
        save_variant(out / "bundle", distilled, bundle, Sampler(config.sampler_steps))
        say(f"{out / 'bundle'} holds the bundle: phosphene serve --bundle {out / 'bundle'}")
