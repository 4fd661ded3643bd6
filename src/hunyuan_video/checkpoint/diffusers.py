"""The transformer's layers under the names that Diffusers gives them, where fused layers are several and one is turned around."""

from __future__ import annotations

import re

Rows = tuple[range, ...]  # of the official weight, in the order in which Diffusers stores them

_BLOCKS = {
    "double_blocks": "transformer_blocks",
    "single_blocks": "single_transformer_blocks",
    "txt_in.individual_token_refiner.blocks": "context_embedder.token_refiner.refiner_blocks",
}
_IN_BLOCKS = {
    "img_mod.linear": "norm1.linear",
    "img_attn_proj": "attn.to_out.0",
    "img_mlp.fc1": "ff.net.0.proj",
    "img_mlp.fc2": "ff.net.2",
    "txt_mod.linear": "norm1_context.linear",
    "txt_attn_proj": "attn.to_add_out",
    "txt_mlp.fc1": "ff_context.net.0.proj",
    "txt_mlp.fc2": "ff_context.net.2",
    "modulation.linear": "norm.linear",
    "linear2": "proj_out",
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
    """What Diffusers calls the linear layer `name`: each piece with its rows of the official weight."""
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
