"""Diffusers' models with our weights: the second opinion of the tests and the opponent of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoTransformer3DModel

from hunyuan_video.config import Conditioning
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE

KEYMAP = Path(__file__).parent.parent / "tests" / "data" / "manifests" / "keymap_original_to_diffusers.json"
FULL_HIDDEN_SIZE = 3072  # the row ranges of the key map are those of the released model
CONDITIONINGS = {"text": None, "first_frame": "token_replace", "latent_concat": "latent_concat"}  # as Diffusers calls them


def transformer_peer(model: HunyuanVideoTransformer, told: Conditioning = "text") -> HunyuanVideoTransformer3DModel:
    """The same transformer in Diffusers, which must know how it is told of a picture."""
    config = model.config
    peer = HunyuanVideoTransformer3DModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        num_attention_heads=config.num_heads,
        attention_head_dim=config.head_dim,
        num_layers=config.num_double_blocks,
        num_single_layers=config.num_single_blocks,
        num_refiner_layers=config.num_refiner_blocks,
        mlp_ratio=config.mlp_ratio,
        patch_size=config.patch_size[1],
        patch_size_t=config.patch_size[0],
        guidance_embeds=config.guidance_embed,
        text_embed_dim=config.text_dim,
        pooled_projection_dim=config.pooled_dim,
        rope_theta=config.rope_theta,
        rope_axes_dim=config.rope_dims,
        image_condition_type=CONDITIONINGS[told],
    )
    keymap = json.loads(KEYMAP.read_text(encoding="utf-8"))["map"]
    ours = model.state_dict()
    theirs = {}
    for name in peer.state_dict():
        source = keymap[name]
        tensor = ours[source["from"]]
        if "rows" in source:
            scaled = [[row * config.hidden_size // FULL_HIDDEN_SIZE for row in rows] for rows in source["rows"]]
            tensor = torch.cat([tensor[first:end] for first, end in scaled])
        theirs[name] = tensor
    peer.load_state_dict(theirs, strict=True)
    return peer.eval().requires_grad_(False)


def vae_peer(vae: CausalVAE) -> AutoencoderKLHunyuanVideo:
    """The same VAE in Diffusers, whole clips at once (its default cuts time into tiles of its own)."""
    config = vae.config
    peer = AutoencoderKLHunyuanVideo(
        latent_channels=config.latent_channels,
        block_out_channels=config.block_out_channels,  # pyright: ignore[reportArgumentType] (annotated as one number)
        layers_per_block=config.layers_per_block,
        norm_num_groups=config.norm_num_groups,
    )
    peer.load_state_dict(vae.state_dict(), strict=True)
    peer.use_framewise_encoding = peer.use_framewise_decoding = False
    return peer.eval().requires_grad_(False)
