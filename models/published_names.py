"""The reference's names of the parameters of this program's parts.

U-Net and VAE are those of SD 1.5, here diffusers' and there CompVis's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from models.errors import CheckpointError

CONDITIONER = "cond_stage_model."
ENCODER = "cond_stage_model.mae."
UNET = "model.diffusion_model."
TIME = "model.diffusion_model.time_embed_condtion."  # the reference's own spelling
VAE = "first_stage_model."

_UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
_VAE_ATTENTION = {
    "group_norm": "norm",
    "to_q": "q",
    "to_k": "k",
    "to_v": "v",
    "to_out.0": "proj_out",
}
_VAE_ENDS = {"conv_norm_out": "norm_out"}


def encoder_names(encoder: nn.Module) -> dict[str, str]:
    """The name in a fine-tuned checkpoint for each name in an `EEGEncoder`'s state."""
    return {name: ENCODER + name for name in encoder.state_dict()}


def conditioner_names(conditioner: nn.Module) -> dict[str, str]:
    """The name in a fine-tuned checkpoint for each name in an `EEGConditioner`'s state."""
    time = "time_mapper."  # the reference has it inside the U-Net
    return {
        name: TIME + name.removeprefix(time) if name.startswith(time) else CONDITIONER + name
        for name in conditioner.state_dict()
    }


def masked_autoencoder_names(model: nn.Module) -> dict[str, str]:
    """The name in a checkpoint of pre-training for each in a `MaskedAutoencoder`'s state."""
    return {name: name.removeprefix("encoder.") for name in model.state_dict()}


def unet_names(unet: Any) -> dict[str, str]:
    """The name in a fine-tuned checkpoint for each name in a `UNet2DConditionModel`'s state.

    CompVis numbers the blocks of all levels in one row: the convolution at the entrance is
    input block 0, then each level has its residual blocks and a block that halves.

    Raises
    ------
    CheckpointError
        SD 1.5 has no such parameter.
    """
    row = unet.config.layers_per_block + 1
    # An upsampler stands in the same block as the last residual block, behind its attention.
    upsampler = [1 + kind.startswith("CrossAttn") for kind in unet.config.up_block_types]

    def name_of(stem: str) -> str:
        match stem.split("."):
            case ["down_blocks", level, "resnets", layer, part]:
                return f"input_blocks.{int(level) * row + int(layer) + 1}.0.{_UNET_RESNET[part]}"
            case ["down_blocks", level, "attentions", layer, *rest]:
                return f"input_blocks.{int(level) * row + int(layer) + 1}.1." + ".".join(rest)
            case ["down_blocks", level, "downsamplers", "0", "conv"]:
                return f"input_blocks.{(int(level) + 1) * row}.0.op"
            case ["mid_block", "resnets", index, part]:
                return f"middle_block.{2 * int(index)}.{_UNET_RESNET[part]}"
            case ["mid_block", "attentions", "0", *rest]:
                return "middle_block.1." + ".".join(rest)
            case ["up_blocks", level, "resnets", layer, part]:
                return f"output_blocks.{int(level) * row + int(layer)}.0.{_UNET_RESNET[part]}"
            case ["up_blocks", level, "attentions", layer, *rest]:
                return f"output_blocks.{int(level) * row + int(layer)}.1." + ".".join(rest)
            case ["up_blocks", level, "upsamplers", "0", "conv"]:
                block = int(level) * row + row - 1
                return f"output_blocks.{block}.{upsampler[int(level)]}.conv"
        return _UNET_ENDS[stem]

    return _names(unet, UNET, name_of)


def vae_names(vae: Any) -> dict[str, str]:
    """The name in a fine-tuned checkpoint for each name in an `AutoencoderKL`'s state.

    CompVis counts the decoder's levels from the finest, as the encoder's; diffusers in the
    order in which they are run.

    Raises
    ------
    CheckpointError
        SD 1.5 has no such parameter.
    """
    highest = len(vae.config.up_block_types) - 1

    def name_of(stem: str) -> str:
        match stem.split("."):
            case [("quant_conv" | "post_quant_conv") as part]:
                return part
            case [side, ("conv_in" | "conv_out" | "conv_norm_out") as part]:
                return f"{side}.{_VAE_ENDS.get(part, part)}"
            case [side, "mid_block", "resnets", index, part]:
                return f"{side}.mid.block_{int(index) + 1}.{_VAE_RESNET.get(part, part)}"
            case [side, "mid_block", "attentions", "0", *rest]:
                return f"{side}.mid.attn_1.{_VAE_ATTENTION['.'.join(rest)]}"
            case ["encoder", "down_blocks", level, "resnets", layer, part]:
                return f"encoder.down.{level}.block.{layer}.{_VAE_RESNET.get(part, part)}"
            case ["encoder", "down_blocks", level, "downsamplers", "0", "conv"]:
                return f"encoder.down.{level}.downsample.conv"
            case ["decoder", "up_blocks", level, "resnets", layer, part]:
                part = _VAE_RESNET.get(part, part)
                return f"decoder.up.{highest - int(level)}.block.{layer}.{part}"
            case ["decoder", "up_blocks", level, "upsamplers", "0", "conv"]:
                return f"decoder.up.{highest - int(level)}.upsample.conv"
        raise KeyError(stem)

    return _names(vae, VAE, name_of)


def _names(model: nn.Module, prefix: str, name_of: Callable[[str], str]) -> dict[str, str]:
    """With `name_of` for what stands before `.weight` or `.bias`, which are the same in both."""
    names = {}
    for name in model.state_dict():
        stem, _, end = name.rpartition(".")
        try:
            names[name] = f"{prefix}{name_of(stem)}.{end}"
        except KeyError as error:
            raise CheckpointError(
                f"{type(model).__name__} has {name}, for which Stable Diffusion 1.5 has no place. "
                "Only networks of its structure have names in the reference."
            ) from error
    return names
