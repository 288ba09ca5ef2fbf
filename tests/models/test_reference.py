"""The networks reproduce values that the reference implementation computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from models.conditioner import EEGConditioner
from models.eeg_encoder import EEGEncoder
from models.masked_autoencoder import MaskedAutoencoder

FIXTURE = Path(__file__).parents[2].parent / "shared/fixtures/dreamdiffusion_tiny.safetensors"
TOLERANCE = {"rtol": 0.0, "atol": 1e-5}

Values = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def reference() -> tuple[dict[str, float], Values]:
    if not FIXTURE.is_file():
        pytest.skip(f"the reference's values are not here ({FIXTURE})")
    with safe_open(FIXTURE, framework="pt") as file:
        config = json.loads(file.metadata()["config"])
        return config, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def under(values: Values, prefix: str) -> Values:
    return {k[len(prefix) :]: v for k, v in values.items() if k.startswith(prefix)}


def build_encoder(config: dict[str, float], weights: Values) -> EEGEncoder:
    encoder = EEGEncoder(
        config["in_chans"],
        config["time_len"],
        config["patch_size"],
        config["embed_dim"],
        config["depth"],
        config["num_heads"],
        config["mlp_ratio"],
    )
    own = {k: v for k, v in weights.items() if k.startswith(("patch_embed.", "blocks.", "norm."))}
    encoder.load_state_dict(own)
    return encoder


@pytest.fixture(scope="module")
def finetuned(reference):
    config, values = reference
    stage = under(values, "finetuned.cond_stage_model.")
    encoder = build_encoder(config, under(stage, "mae."))
    conditioner = EEGConditioner(
        encoder.n_tokens,
        config["embed_dim"],
        n_context=77,
        cross_attention_dim=config["cross_attention_dim"],
        time_embed_dim=config["time_embed_dim"],
        clip_dim=config["cross_attention_dim"],
        clip_from="tokens",
    )
    time = under(values, "finetuned.model.diffusion_model.time_embed_condtion.")
    conditioner.load_state_dict(
        {k: v for k, v in stage.items() if not k.startswith("mae.")}
        | {f"time_mapper.{k}": v for k, v in time.items()}
    )
    return encoder, conditioner


@torch.no_grad()
def test_encoder_and_conditioner_reproduce_the_reference(reference, finetuned) -> None:
    _, values = reference
    encoder, conditioner = finetuned
    tokens = encoder(values["io.eeg"])
    context, time_embedding, clip_embedding = conditioner(tokens)
    torch.testing.assert_close(tokens, values["io.encoder_tokens"], **TOLERANCE)
    torch.testing.assert_close(context, values["io.context"], **TOLERANCE)
    torch.testing.assert_close(time_embedding, values["io.time_embedding"], **TOLERANCE)
    torch.testing.assert_close(clip_embedding, values["io.clip_embedding"], **TOLERANCE)


def test_position_embedding_is_the_reference_s(reference, finetuned) -> None:
    _, values = reference
    encoder, _ = finetuned
    stored = values["finetuned.cond_stage_model.mae.pos_embed"]
    # Row 0 belongs to the cls token, which the fine-tuned encoder does not use; the
    # patches' rows begin behind it.
    torch.testing.assert_close(encoder.pos_embed, stored[:, 1:], **TOLERANCE)


@torch.no_grad()
def test_masked_autoencoder_reproduces_the_reference(reference) -> None:
    config, values = reference
    weights = under(values, "pretrain.model.")
    encoder = build_encoder(config, weights)
    autoencoder = MaskedAutoencoder(
        encoder,
        config["decoder_embed_dim"],
        config["decoder_depth"],
        config["decoder_num_heads"],
        has_cls_token=True,
    )
    own = {
        k: v for k, v in weights.items() if k.startswith(("decoder_", "cls_token", "mask_token"))
    }
    own.pop("decoder_pos_embed")
    missing, unexpected = autoencoder.load_state_dict(own, strict=False)
    assert not unexpected
    assert all(name.startswith("encoder.") for name in missing)
    loss, prediction, mask = autoencoder(
        values["io.eeg"], config["mask_ratio"], values["io.mask_noise"]
    )
    torch.testing.assert_close(mask, values["io.mask"], **TOLERANCE)
    torch.testing.assert_close(prediction, values["io.pretrain_pred"], **TOLERANCE)
    torch.testing.assert_close(loss, values["io.pretrain_loss"][0], **TOLERANCE)


def test_default_sizes_are_the_reference_s() -> None:
    with torch.device("meta"):
        encoder = EEGEncoder()
        conditioner = EEGConditioner(clip_from="tokens")

    def count(module: torch.nn.Module) -> int:
        return sum(p.numel() for p in module.parameters())

    # The published count includes the fixed positions (129 x 1024) and two unused tokens.
    assert count(encoder) == 151_902_208 - 129 * 1024 - 2 * 1024
    assert count(conditioner.mapping) == 787_329
    assert count(conditioner.channel_mapper) == 13_261
    assert count(conditioner.dim_mapper) == 787_200
    assert count(conditioner.time_mapper) == 987_323
