"""Make a bundle that paints in few steps out of one of Stable Diffusion 1.5."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from app.bundle import find_bundle
from app.checkpoints import unfinished
from app.errors import SettingsError
from models.few_steps import fuse_lcm_lora, replace_vae
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
    steps : of the sampler, noted in the bundle.
    say : tells people what was made.

    Raises
    ------
    SettingsError, BundleError, SummaryError
    """
    if not lora and not vae:
        raise SettingsError("Nothing is to be changed: give --lora, --vae or both.")
    folder = find_bundle(bundle)
    pipeline = load_bundle(folder)
    if lora:
        fuse_lcm_lora(pipeline, lora)
    if vae:
        replace_vae(pipeline, vae)
    with unfinished(out) as part:
        save_variant(part, pipeline, folder, Sampler(steps, 1.0))
    say(
        f"{out} paints in {steps} step{'s' if steps > 1 else ''}. How well it still shows what the "
        f"EEG says is not known: compare phosphene evaluate of both bundles."
    )
