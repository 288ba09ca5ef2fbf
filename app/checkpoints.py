"""DreamDiffusion's published checkpoints to bundles, and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors import SafetensorError

from acquisition.eeg_imagenet import DREAMDIFFUSION_SPEC
from acquisition.epoch_spec import EpochSpec
from app.bundle import read_epoch_spec_file
from app.errors import SettingsError, SummaryError
from models.eeg_encoder import EEGEncoder
from models.masked_autoencoder import DECODER, load_masked_autoencoder, save_masked_autoencoder
from models.pipeline import load_bundle
from models.published import masked_autoencoder_from_reference, pipeline_from_reference
from models.published_export import masked_autoencoder_to_reference, pipeline_to_reference
from models.published_file import read_checkpoint

STEPS = 250  # of the sampler, as the paper's


def import_checkpoint(
    path: Path,
    out: Path,
    spec_file: Path | None,
    given: Mapping[str, int | None],
    say: Callable[[str], None],
) -> None:
    """Write a bundle, or what pre-training leaves, from a checkpoint of the reference's code.

    Parameters
    ----------
    path : of the checkpoint.
    out : folder that is made.
    spec_file : epoch_spec.json of the bundle; EEG-ImageNet's if None.
    given : sizes that no tensor tells, see `models.published_file.Sizes`; None is the file's
        own, or else the reference's.
    say : tells people what was made.

    Raises
    ------
    CheckpointError, BundleError, SettingsError, SummaryError
    """
    checkpoint = read_checkpoint(path)
    sizes = checkpoint.sizes.changed_by(given)
    if checkpoint.kind == "pre-training":
        if spec_file is not None:
            raise SettingsError(
                f"{path} is of pre-training and becomes an encoder, which has no epoch_spec.json. "
                "Leave out --spec."
            )
        autoencoder = masked_autoencoder_from_reference(checkpoint.tensors, sizes)
        with unfinished(out) as folder:
            folder.mkdir(parents=True)
            save_masked_autoencoder(autoencoder, folder)
        say(
            f"{out} holds a pre-trained encoder for {_shown(autoencoder.encoder)} "
            f"(eeg_encoder) and its decoder ({DECODER})."
        )
        return
    pipeline = pipeline_from_reference(checkpoint.tensors, sizes)
    spec = _spec_for(pipeline.eeg_encoder, spec_file)
    with unfinished(out) as folder:
        pipeline.save_pretrained(folder)
        _write_json(folder / "epoch_spec.json", spec.to_dict())
        _write_json(folder / "painter.json", {"num_inference_steps": STEPS, "guidance_scale": 1.0})
    say(
        f"{out} is a bundle for {_shown(pipeline.eeg_encoder)} and pictures of {sizes.img_size} "
        f"pixels. Its painter.json asks for the paper's {STEPS} steps for each; fewer are faster."
    )
    if spec_file is None:
        say(
            "A checkpoint does not say which EEG it was trained on: taken for granted is the "
            "paper's, EEG-ImageNet, with its electrodes, filters and timing. Give --spec if it "
            "was another."
        )


def export_folder(folder: Path, out: Path, say: Callable[[str], None]) -> None:
    """Write a bundle, or an imported encoder of pre-training, with the reference's names.

    Parameters
    ----------
    folder : of the bundle.
    out : file that is made, for the reference's `torch.load`.
    say : tells people what was made and what could not return.

    Raises
    ------
    CheckpointError, BundleError, SummaryError
    """
    if (folder / DECODER).is_file():
        autoencoder = load_masked_autoencoder(folder)
        tensors = masked_autoencoder_to_reference(autoencoder)
        content = {
            "model": tensors,
            "config": _config(autoencoder.encoder)
            | {"decoder_num_heads": autoencoder.decoder_num_heads},
        }
        lost = "the state of the optimiser and the number of the pass"
    else:
        pipeline = load_bundle(folder)
        tensors, sizes = pipeline_to_reference(pipeline)
        content = {
            "model_state_dict": tensors,
            "config": _config(pipeline.eeg_encoder) | asdict(sizes) | {"use_time_cond": True},
        }
        lost = (
            "CLIP's image tower (image_embedder.*) and the buffers of the noise schedule, which "
            "the reference makes itself; the state of the random generator, which its "
            "gen_eval_eeg.py reads; the table of concepts, the epoch specification"
        )
    with unfinished(out) as file:
        torch.save(content, file)
    say(
        f"{out} holds {len(tensors)} tensors with the reference's names. Not in it: {lost}. Its "
        "config is a plain dictionary, where the reference's is an object of its own class."
    )


def _spec_for(encoder: EEGEncoder, spec_file: Path | None) -> EpochSpec:
    spec = DREAMDIFFUSION_SPEC if spec_file is None else read_epoch_spec_file(spec_file)
    if (spec.n_channels, spec.n_times) != (encoder.config.in_channels, encoder.config.n_times):
        whose = "EEG-ImageNet" if spec_file is None else spec_file
        raise SettingsError(
            f"The checkpoint is for {_shown(encoder)}, and {whose} has {spec.n_channels} channels "
            f"x {spec.n_times} samples. Give the epoch_spec.json of what it was trained on with "
            "--spec."
        )
    return spec


def _shown(encoder: EEGEncoder) -> str:
    return f"{encoder.config.in_channels} channels x {encoder.config.n_times} samples"


def _config(encoder: EEGEncoder) -> dict[str, int | float]:
    """An encoder's sizes by the reference's names."""
    names = ("patch_size", "embed_dim", "depth", "num_heads", "mlp_ratio")
    sizes = {name: encoder.config[name] for name in names}
    return {**sizes, "in_chans": encoder.config.in_channels, "time_len": encoder.config.n_times}


def _write_json(path: Path, values: Mapping[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


@contextmanager
def unfinished(out: Path) -> Iterator[Path]:
    """A path beside `out` that becomes `out` when all went well, and else is deleted.

    Raises
    ------
    SummaryError
        `out` exists, or cannot be written.
    """
    partial = out.with_name(f".{out.name}.part")
    if out.exists():
        raise SummaryError(f"{out} exists already. Give another name, or delete it.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _delete(partial)  # of a run that was killed
        yield partial
        partial.replace(out)
    # torch's and safetensors' own words for a disk that is full.
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SummaryError(
            f"{out} cannot be written ({reason}). Give a place with enough room where you may "
            "write."
        ) from error
    finally:
        _delete(partial)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
