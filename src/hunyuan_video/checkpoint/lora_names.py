"""What tensors in LoRA files are called: which layer a name means, and what of it the tensor is; in every tool's spelling.

A name is what wraps the model, the layer, and the part: `diffusion_model.` `double_blocks.0.img_attn_qkv` `.lora_A.weight`. Layers have the
official names, ComfyUI's, OneTrainer's or Diffusers', each with dots or flat, with underscores in their place.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from hunyuan_video.checkpoint.diffusers import Rows, in_diffusers

# What tools put around the model, one inside the other; VideoX-Fun writes lora_unet__, for its outermost module has an empty name.
_PREFIXES = re.compile(
    r"(?:lora_unet__?|lora_transformer_|lycoris_|Hunyuan_video_I2V_lora_|(?:base_model|diffusion_model|transformer|model|module|unet|lora)\.)*"
)
# What torch.compile, FSDP and activation checkpointing put around a block of it.
_WRAPPERS = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)[._]")

_LOW_RANK = re.compile(
    r"(?P<layer>.+?)(?:\.lora_|[._]lora(?:_linear_layer)?\.)(?P<factor>up|down|A|B)(?:\.(?!weight$|bias$)(?P<adapter>[^.]+))?(?P<end>\.weight|\.bias)?"
)
_OTHER_PARTS = re.compile(r"(?P<layer>.+)\.(?P<part>hada_w[12]_[ab]|lokr_w[12](?:_[ab])?|alpha|diff|diff_b|w_norm|b_norm)")
# Of a matrix a @ b; and of LyCORIS' norms, which are differences, too.
_PARTS = {"up": "lora_a", "B": "lora_a", "down": "lora_b", "A": "lora_b", "w_norm": "diff", "b_norm": "diff_b"}

_REFUSED = {
    r"\.(dora_scale|lora_magnitude_vector(\..+)?|(weight_)?magnitude)": "is of DoRA, which scales the rows of the whole weight",
    r"\.(lora_mid\.weight|hada_t[12]|lokr_t[12])": "is of a convolution",
    r"\.(oft_\w+|boft_\w+|on_input|scalar|[ab][12]\.weight|vera_\w+|ia3_l.*)": "is of another kind of adapter (OFT, IA3, GLoRA …)",
    r"(lora_te\d*_|text_encoder(_\d)?\.|lora_llama|clip_l[._]|llama\.).+": "is of a text encoder, which is not adapted",
    r"bundle_emb\..+": "is a trained word",
}
_REFUSALS = {re.compile(rf".*?(?:{pattern})"): why for pattern, why in _REFUSED.items()}

# Layers as ComfyUI names them, and as OneTrainer does, which numbers the pieces of fused ones besides.
_COMFYUI = {
    r"_attn_(qkv|proj)$": r"_attn.\1",
    r"(_attn)?[._]q_norm$": r"\1.norm.query_norm",
    r"(_attn)?[._]k_norm$": r"\1.norm.key_norm",
    r"(_mod|\.modulation)\.linear$": r"\1.lin",
    r"mlp\.fc1$": "mlp.0",
    r"mlp\.fc2$": "mlp.2",
    r"^(time_in|guidance_in|txt_in\.t_embedder)\.mlp\.0$": r"\1.in_layer",
    r"^(time_in|guidance_in|txt_in\.t_embedder)\.mlp\.2$": r"\1.out_layer",
    r"^txt_in\.c_embedder\.linear_1$": "txt_in.c_embedder.in_layer",
    r"^txt_in\.c_embedder\.linear_2$": "txt_in.c_embedder.out_layer",
}
_ONETRAINER = {
    r"mlp\.fc1$": "mlp.fc0",
    r"^txt_in\.t_embedder\.mlp\.0$": "txt_in.t_embedder.linear_1",
    r"^txt_in\.t_embedder\.mlp\.2$": "txt_in.t_embedder.linear_2",
}

# Other models, by what stands in most of their tensors' names.
_OTHER_MODELS = {
    r"(^|\.)(encoder|decoder)\.(conv_in|conv1|conv_out|conv_norm_out|down|up|mid|middle|downsamples|upsamples)": "a VAE",
    r"lora_te\d*_|text_encoder(_\d)?\.|text_model\.|lora_llama|clip_l[._]|encoder\.block\.\d+\.layer": "a text encoder",
    r"(^|\.)layers\.\d+\.(self_attn|mlp)\.": "a text encoder",
    r"(down|up|input|output)_blocks?[._]\d|mid(dle)?_block[._]": "Stable Diffusion",
    r"joint_blocks[._]\d": "Stable Diffusion 3",
    r"(^|[._])(?<!refiner[._])blocks[._]\d+[._](self|cross)_attn[._]": "Wan",
    r"transformer_blocks[._]\d+[._]attn[12][._]": "LTX-Video or CogVideoX",
    r"transformer_blocks[._]\d+[._](img|txt)_(mlp|mod)[._]": "Qwen-Image",
}  # fmt: skip
_DIALECTS = {
    ".lokr_": "a LoKr file",
    ".hada_": "a LoHa file",
    "Hunyuan_video_I2V_lora_": "a LoRA of Tencent's I2V trainer",
    "lora_unet__": "a LoRA of VideoX-Fun",
    "lora_unet_": "a kohya LoRA",
    "lora_transformer_": "a LoRA of OneTrainer",
    "lycoris_": "a LoRA of LyCORIS",
    "transformer_blocks.": "a LoRA from Diffusers",
    ".lora_A.": "a PEFT LoRA with original names",
    ".lora_down.": "a LoRA with original names",
    ".diff": "differences of whole weights",
}


def spellings(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[str, Rows]]:
    """Every name of a layer, or of a piece of one, in any dialect -> its official name and its rows there. `shapes` are of weights."""
    places: dict[str, tuple[str, Rows]] = {}
    for name, (out_features, *in_features) in shapes.items():
        pieces = in_diffusers(name, out_features, in_features[0] if in_features else 0)
        found = {other: (range(out_features),) for other in (name, _renamed(name, _COMFYUI), _renamed(name, _ONETRAINER))} | pieces
        if len(pieces) > 1:
            found |= {f"{name}.{index}": rows for index, rows in enumerate(pieces.values())}
        for spelling, rows in found.items():
            places[spelling] = places[spelling.replace(".", "_")] = name, rows
    return places


def split(key: str) -> tuple[str, str | None, str | None]:
    """A tensor's name as the layer, without what wraps it; what of it this is, None for nothing known; and the adapter's name, if any.

    The parts are two factors, `lora_a` of the rows and `lora_b` of the columns, with `lora_bias` to be scaled like their product; LyCORIS'
    hada_… and lokr_…; `alpha`; and differences of a whole weight and bias, `diff` and `diff_b`.
    """
    key = _PREFIXES.sub("", _WRAPPERS.sub("", key), count=1)
    if match := _LOW_RANK.fullmatch(key):
        part = _PARTS[match["factor"]]
        if match["end"] == ".bias":
            part = "lora_bias" if part == "lora_a" else None
        return match["layer"], part, match["adapter"]
    if match := _OTHER_PARTS.fullmatch(key):
        return match["layer"], _PARTS.get(match["part"], match["part"]), None
    return key, None, None


def why_not(key: str) -> str:
    """What is to be said of a tensor that is not understood, after its name."""
    return next((why for pattern, why in _REFUSALS.items() if pattern.fullmatch(key)), "is unknown")


def looks_like(keys: Iterable[str]) -> str:
    """What a file with such names is."""
    keys = list(keys)
    is_adapter = any(split(key)[1] is not None for key in keys)
    for sign, model in _OTHER_MODELS.items():
        if 2 * sum(re.search(sign, key) is not None for key in keys) > len(keys):
            return f"a LoRA of {model}" if is_adapter else f"weights of {model}"
    if not is_adapter:
        whole = any(re.search(r"double_blocks\.|transformer_blocks\.", key) for key in keys)
        return "whole weights of HunyuanVideo" if whole else "something else"
    return next((what for sign, what in _DIALECTS.items() if any(sign in key for key in keys)), "something else")


def is_of_flux(layers: Iterable[str], num_blocks: tuple[int, int]) -> bool:
    """Whether a LoRA that adapts these layers, by official name, is one of FLUX: its 19 double and 38 single blocks have the names and
    shapes of HunyuanVideo's first ones, and all of them are adapted, and no others."""
    double, single = (
        {int(name.split(".")[1]) for name in layers if name.startswith(kind)} for kind in ("double_blocks.", "single_blocks.")
    )
    theirs = {*range(19)}, {*range(38)}
    return num_blocks == (20, 40) and (double, single) in (theirs, (theirs[0], set()), (set(), theirs[1]))


def _renamed(name: str, rules: Mapping[str, str]) -> str:
    for pattern, other in rules.items():
        name = re.sub(pattern, other, name)
    return name
