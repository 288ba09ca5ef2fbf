"""Make a bundle that paints in few steps out of one of Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.bundle import find_bundle
from app.checkpoints import unfinished
from app.errors import SettingsError
from models.few_steps import fuse_lcm_lora, replace_vae
from models.keyframes import KeyframePainter
from models.pipeline import load_bundle
from models.training.bundle import Sampler, save_variant


def make_few_steps(
    bundle: str, out: Path, lora: str, vae: str, steps: int, say: Callable[[str], None]
) -> None:
    """Write the bundle `out`.

    Parameters
    ----------
    bundle : folder of the one that it is made of.
    lora, vae : see `models.few_steps`; "" leaves what the bundle has.
    steps : of the sampler with `lora`, noted in the bundle; without, it stays as it is.
    say : tells people what was made.

    Raises
    ------
    SettingsError, BundleError, SummaryError
    """
    if not lora and not vae:
        raise SettingsError("Nothing is to be changed: give --lora, --vae or both.")
    folder = find_bundle(bundle)
    pipeline, sampler = load_bundle(folder), Sampler(steps, 1.0)
    if lora:
        fuse_lcm_lora(pipeline, lora)
    else:
        # What the bundle is sampled with needs its own steps and guidance.
        painter = KeyframePainter.from_bundle(folder, device="cpu")
        sampler = Sampler(painter.num_inference_steps, painter.guidance_scale)
    if vae:
        replace_vae(pipeline, vae)
    with unfinished(out) as part:
        save_variant(part, pipeline, folder, sampler)
    n = sampler.num_inference_steps
    say(
        f"{out} paints in {n} step{'s' if n > 1 else ''}. How well it still shows what the "
        f"EEG says is not known: compare phosphene evaluate of both bundles."
    )
