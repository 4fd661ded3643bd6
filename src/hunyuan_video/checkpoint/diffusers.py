"""The transformer's layers under the names that Diffusers gives them, where fused layers are several and one is turned around."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import torch

from hunyuan_video.checkpoint.lazy import Lazy, State, count_numbered, stacked_rows
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import VAEConfig

Rows = tuple[range, ...]  # of the official weight, in the order in which Diffusers stores them

_BLOCKS = {
    "double_blocks": "transformer_blocks",
    "single_blocks": "single_transformer_blocks",
    "txt_in.individual_token_refiner.blocks": "context_embedder.token_refiner.refiner_blocks",
}
_IN_BLOCKS = {
    "img_mod.linear": "norm1.linear",
    "img_attn_q_norm": "attn.norm_q",
    "img_attn_k_norm": "attn.norm_k",
    "img_attn_proj": "attn.to_out.0",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mod.linear": "norm1_context.linear",
    "txt_attn_q_norm": "attn.norm_added_q",
    "txt_attn_k_norm": "attn.norm_added_k",
    "txt_attn_proj": "attn.to_add_out",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
    "modulation.linear": "norm.linear",
    "q_norm": "attn.norm_q",
    "k_norm": "attn.norm_k",
    "linear2": "proj_out",
    "norm1": "norm1",
    "norm2": "norm2",
    "self_attn_proj": "attn.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
    "adaLN_modulation.1": "norm_out.linear",
}
_FUSED = {
    "img_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn_qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "self_attn_qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
}
_OUTSIDE = {
    "img_in.proj": "x_embedder.proj",
    "time_in.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "time_in.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "guidance_in.mlp.0": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.mlp.2": "time_text_embed.guidance_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "txt_in.t_embedder.mlp.0": "context_embedder.time_text_embed.timestep_embedder.linear_1",
    "txt_in.t_embedder.mlp.2": "context_embedder.time_text_embed.timestep_embedder.linear_2",
    "txt_in.c_embedder.linear_1": "context_embedder.time_text_embed.text_embedder.linear_1",
    "txt_in.c_embedder.linear_2": "context_embedder.time_text_embed.text_embedder.linear_2",
    "final_layer.linear": "proj_out",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
}


def in_diffusers(name: str, out_features: int, in_features: int) -> dict[str, Rows]:
    """What Diffusers calls the layer `name`: each piece with its rows of the official weight."""
    whole = (range(out_features),)
    if name == "final_layer.adaLN_modulation.1":  # (shift, scale) here, (scale, shift) there
        return {_OUTSIDE[name]: (range(in_features, out_features), range(in_features))}
    if name in _OUTSIDE:
        return {_OUTSIDE[name]: whole}
    place = re.fullmatch(r"(.+blocks)\.(\d+)\.(.+)", name)
    assert place is not None, name
    block = f"{_BLOCKS[place[1]]}.{place[2]}"
    if place[3] not in _FUSED:
        return {f"{block}.{_IN_BLOCKS[place[3]]}": whole}
    # Every fused layer starts with three square pieces; what is left belongs to the fourth, if there is one.
    starts = [0, in_features, 2 * in_features, 3 * in_features, out_features]
    return {f"{block}.{piece}": (range(starts[i], starts[i + 1]),) for i, piece in enumerate(_FUSED[place[3]])}


def is_diffusers(names: Iterable[str]) -> bool:
    return "x_embedder.proj.weight" in names


def to_official(state: State) -> dict[str, Lazy]:
    """A transformer's tensors under their official names, pieces put together; what belongs to none keeps its name."""
    double, single, refiner = (count_numbered(state, theirs) for theirs in _BLOCKS.values())
    guidance = "time_text_embed.guidance_embedder.linear_1.weight" in state
    config = TransformerConfig(num_double_blocks=double, num_single_blocks=single, num_refiner_blocks=refiner, guidance_embed=guidance)
    with torch.device("meta"):
        names = HunyuanVideoTransformer(config).state_dict()
    left, found = dict(state), {}
    for name in names:
        layer, _, ending = name.rpartition(".")
        pieces = [f"{piece}.{ending}" for piece in in_diffusers(layer, 4, 1)]
        if not all(piece in left for piece in pieces):
            continue
        tensors = [left.pop(piece) for piece in pieces]
        if layer == "final_layer.adaLN_modulation.1":
            half = tensors[0].shape[0] // 2
            found[name] = tensors[0].rows((range(half, 2 * half), range(half)))
        else:
            found[name] = tensors[0] if len(tensors) == 1 else stacked_rows(tensors)
    return found | left


def from_official(state: State) -> dict[str, Lazy]:
    """A whole transformer's tensors as Diffusers names and cuts them."""
    found = {}
    for name, tensor in state.items():
        layer, _, ending = name.rpartition(".")
        out_features, *in_features = state[f"{layer}.weight"].shape
        for piece, rows in in_diffusers(layer, out_features, in_features[0] if in_features else 0).items():
            found[f"{piece}.{ending}"] = tensor if rows == (range(out_features),) else tensor.rows(rows)
    return found


def transformer_json(config: TransformerConfig, *, sees: bool = False) -> dict[str, Any]:
    """The `transformer/config.json` of these sizes.

    Of a model for text "token_replace" is never written: with it the text-to-video pipeline, which the folder names, takes every first
    frame for clean. `sees` says that it is the image-to-video model.
    """
    told = "latent_concat" if config.in_channels > config.out_channels else "token_replace" if sees else None
    return {
        "_class_name": "HunyuanVideoTransformer3DModel",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_attention_heads": config.num_heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.num_double_blocks,
        "num_single_layers": config.num_single_blocks,
        "num_refiner_layers": config.num_refiner_blocks,
        "mlp_ratio": config.mlp_ratio,
        "patch_size": config.patch_size[1],
        "patch_size_t": config.patch_size[0],
        "qk_norm": "rms_norm",
        "guidance_embeds": config.guidance_embed,
        "text_embed_dim": config.text_dim,
        "pooled_projection_dim": config.pooled_dim,
        "rope_theta": config.rope_theta,
        "rope_axes_dim": list(config.rope_dims),
        "image_condition_type": told,
    }


def vae_json(config: VAEConfig) -> dict[str, Any]:
    """The `vae/config.json`. Names and shapes of the VAE's tensors are the official ones."""
    num_blocks = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKLHunyuanVideo",
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * num_blocks,
        "up_block_types": ["HunyuanVideoUpBlock3D"] * num_blocks,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "act_fn": "silu",
        "norm_num_groups": config.norm_num_groups,
        "scaling_factor": config.scaling_factor,
        "spatial_compression_ratio": config.spatial_compression_ratio,
        "temporal_compression_ratio": config.time_compression_ratio,
        "mid_block_add_attention": True,
    }


def image_processor_json(size: int) -> dict[str, Any]:
    """The `image_processor/preprocessor_config.json`, CLIP's, for pictures of this side."""
    sides = {"shortest_edge": size}, {"height": size, "width": size}
    return {"image_processor_type": "CLIPImageProcessor", "size": sides[0], "crop_size": sides[1]}


MODEL_INDEX: dict[str, Any] = {
    "_class_name": "HunyuanVideoPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "LlamaModel"],
    "text_encoder_2": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "PreTrainedTokenizerFast"],
    "tokenizer_2": ["transformers", "PreTrainedTokenizerFast"],
    "transformer": ["diffusers", "HunyuanVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLHunyuanVideo"],
}
# What the image-to-video model has in place of that.
SEEING_INDEX: dict[str, Any] = {
    "_class_name": "HunyuanVideoImageToVideoPipeline",
    "text_encoder": ["transformers", "LlavaForConditionalGeneration"],
    "image_processor": ["transformers", "CLIPImageProcessor"],
}
