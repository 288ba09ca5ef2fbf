"""The networks reproduce values that the reference implementation computed, once imported."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from models.masked_autoencoder import MaskedAutoencoder
from models.pipeline import EEGToImagePipeline
from models.published import masked_autoencoder_from_reference, pipeline_from_reference
from models.published_file import Checkpoint, read_checkpoint
from tests.published_checkpoint import finetuned_tensors, narrow_parts

FIXTURE = Path(__file__).parents[2].parent / "shared/fixtures/dreamdiffusion_tiny.safetensors"
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}

Values = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, str], Values]:
    """The fixture's metadata and tensors."""
    if not FIXTURE.is_file():
        pytest.skip(f"the reference's values are not here ({FIXTURE})")
    with safe_open(FIXTURE, framework="pt") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def checkpoint_of(reference: tuple[dict[str, str], Values], prefix: str, path: Path) -> Checkpoint:
    """One stage of the fixture, read from a file of its own."""
    metadata, values = reference
    stage = {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}
    if prefix == "finetuned.":
        # The fixture holds neither U-Net nor VAE, without which there is no checkpoint.
        rest = finetuned_tensors(narrow_parts(n_channels=8, n_times=64))
        assert stage.keys() <= rest.keys()
        stage = rest | stage
    save_file(stage, path, metadata)
    return read_checkpoint(path)


@pytest.fixture(scope="module")
def finetuned(
    reference: tuple[dict[str, str], Values], tmp_path_factory: pytest.TempPathFactory
) -> EEGToImagePipeline:
    path = tmp_path_factory.mktemp("reference") / "finetuned.safetensors"
    checkpoint = checkpoint_of(reference, "finetuned.", path)
    return pipeline_from_reference(checkpoint.tensors, checkpoint.sizes)


@pytest.fixture(scope="module")
def pretrained(
    reference: tuple[dict[str, str], Values], tmp_path_factory: pytest.TempPathFactory
) -> MaskedAutoencoder:
    path = tmp_path_factory.mktemp("reference") / "pretrain.safetensors"
    checkpoint = checkpoint_of(reference, "pretrain.model.", path)
    return masked_autoencoder_from_reference(checkpoint.tensors, checkpoint.sizes)


@torch.no_grad()
def test_encoder_and_conditioner_reproduce_the_reference(reference, finetuned) -> None:
    _, values = reference
    tokens = finetuned.eeg_encoder(values["io.eeg"])
    context, time_embedding, clip_embedding = finetuned.conditioner(tokens)
    torch.testing.assert_close(tokens, values["io.encoder_tokens"], **TOLERANCE)
    torch.testing.assert_close(context, values["io.context"], **TOLERANCE)
    torch.testing.assert_close(time_embedding, values["io.time_embedding"], **TOLERANCE)
    torch.testing.assert_close(clip_embedding, values["io.clip_embedding"], **TOLERANCE)


def test_position_embedding_is_the_reference_s(reference, finetuned) -> None:
    _, values = reference
    stored = values["finetuned.cond_stage_model.mae.pos_embed"]
    # Row 0 belongs to the cls token, which the fine-tuned encoder does not use; the
    # patches' rows begin behind it.
    torch.testing.assert_close(finetuned.eeg_encoder.pos_embed, stored[:, 1:], **TOLERANCE)


@torch.no_grad()
def test_masked_autoencoder_reproduces_the_reference(reference, pretrained) -> None:
    metadata, values = reference
    mask_ratio = json.loads(metadata["config"])["mask_ratio"]
    loss, prediction, mask = pretrained(values["io.eeg"], mask_ratio, values["io.mask_noise"])
    torch.testing.assert_close(mask, values["io.mask"], **TOLERANCE)
    torch.testing.assert_close(prediction, values["io.pretrain_pred"], **TOLERANCE)
    torch.testing.assert_close(loss, values["io.pretrain_loss"][0], **TOLERANCE)
