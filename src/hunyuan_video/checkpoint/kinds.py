"""What a healthy file is that cannot be used here: another model, or this one in a form that is not read. Told by names alone."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

_PREFIX = re.compile(r"^((model\.)?diffusion_model|first_stage_model|vae|transformer)\.")
_LORA = re.compile(r"[._](lora_(A|B|down|up)|hada_w\d_[ab]|lokr_w\d(_[ab])?)(\.|$)")
# What begins some names in each, all of one line; the first that fits, for later ones are vaguer. Original names, then Diffusers'.
_KINDS = (
    ("a HunyuanVideo 1.5 transformer", "byt5_in."),
    ("a HunyuanVideo 1.5 transformer", "context_embedder_2."),
    ("a Stable Diffusion XL UNet", "input_blocks.", "label_emb."),
    ("a Stable Diffusion XL UNet", "down_blocks.", "add_embedding."),
    ("a Stable Diffusion UNet", "input_blocks.", "middle_block."),
    ("a Stable Diffusion UNet", "down_blocks.", "mid_block.", "time_embedding."),
    ("a Stable Diffusion 3 transformer", "joint_blocks."),
    ("a Stable Diffusion 3 transformer", "pos_embed.proj.", "context_embedder."),
    ("a Flux transformer", "img_in.weight", "double_blocks."),
    ("a Flux transformer", "x_embedder.weight", "context_embedder.", "time_text_embed."),
    ("a Wan transformer", "patch_embedding.", "blocks.0.self_attn."),
    ("a Wan transformer", "patch_embedding.", "condition_embedder."),
    ("an LTX-Video transformer", "patchify_proj."),
    ("an LTX-Video transformer", "proj_in.", "time_embed.emb.", "scale_shift_table"),
    ("a CogVideoX transformer", "patch_embed.text_proj."),
    ("a HunyuanVideo transformer", "img_in.proj.", "single_blocks."),
    ("a HunyuanVideo transformer", "x_embedder.proj.", "single_transformer_blocks."),
    ("a language model", "model.layers.0."),
    ("a language model", "language_model."),
    ("a language model", "layers.0.self_attn."),
    ("CLIP", "text_model.encoder."),
    ("T5", "encoder.block.0.layer."),
    ("a HunyuanVideo VAE", "decoder.conv_in.conv.", "post_quant_conv."),
    ("a Wan VAE", "decoder.conv1.", "decoder.middle."),
    ("a Wan VAE", "decoder.conv_in.", "decoder.mid_block.attentions.0.to_qkv."),
    ("the VAE of another model", "decoder.", "encoder."),
)
# How the names end that a tool adds to the layers which it quantized.
_QUANTIZED = {
    ".quant_state.bitsandbytes__nf4": "in 4 bits by bitsandbytes (nf4)",
    ".quant_state.bitsandbytes__fp4": "in 4 bits by bitsandbytes (fp4)",
    ".absmax": "in 4 bits by bitsandbytes",
    ".SCB": "in 8 bits by bitsandbytes (int8)",
    ".qweight": "in whole numbers (GPTQ, AWQ or SVDQuant)",
}


class OtherKindError(ValueError):
    """A file with nothing wrong in it, which cannot be used."""


def kind_of(names: Iterable[str]) -> str | None:
    """What has tensors of these names; None if that is not known here."""
    bare = [_PREFIX.sub("", name) for name in names]
    if any(_LORA.search(name) for name in bare):
        return "a LoRA"
    return next((kind for kind, *signs in _KINDS if all(any(name.startswith(sign) for name in bare) for sign in signs)), None)


def check_kind(names: Iterable[str], wanted: str, path: Path) -> None:
    """Raises an OtherKindError that says what is in `path`, if that is known and another kind than wanted."""
    kind = kind_of(names)
    if kind not in (None, wanted):
        advice = "adapters are given as such (--lora), beside the weights that they change" if kind == "a LoRA" else f"give {wanted}"
        raise OtherKindError(f"{path} is {kind}, not {wanted}; {advice} (docs/which-files.md).")


def check_quantization(names: Iterable[str], path: Path) -> None:
    """Raises an OtherKindError for weights that another library has quantized and only that can expand."""
    for name in names:
        for ending, how in _QUANTIZED.items():
            if name.endswith(ending):
                raise OtherKindError(
                    f"{path} has weights {how}, such as {name.removesuffix(ending)}, which are not read here; take the same model in "
                    "bfloat16, float16 or FP8 (docs/which-files.md)."
                )
