"""A transformer in a file or folder of any layout, as the official names and shapes: where it is still on disk, and its 8-bit scales.

official     bare, or under "module", "ema" or "state_dict"; 8-bit weights with their scales in a file `…_map` beside them
comfyui      the official names, or ComfyUI's own, perhaps behind "model.diffusion_model."; 8-bit weights as they are (a plain
             cast), or with their scales as tensors of the same file
diffusers    a folder, perhaps of shards; attention and linear1 in pieces
gguf         official names, quantized
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hunyuan_video.checkpoint import diffusers
from hunyuan_video.checkpoint.kinds import check_kind
from hunyuan_video.checkpoint.lazy import Lazy, count_numbered, lazy
from hunyuan_video.checkpoint.reading import check_finite, plain_tensors, read_folder, read_state_dict, reason
from hunyuan_video.config import LoadKey
from hunyuan_video.models.rope import split_head
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.transforms.fp8 import FP8, in_blocks

_EIGHT_BITS = (torch.float8_e4m3fn, torch.float8_e5m2)
# No weight of a trained linear comes near this; one that is scaled to use all of the format reaches 448.
_LARGEST_UNSCALED = 64

_PREFIX = re.compile(r"(model\.)?diffusion_model\.|model\.model\.|transformer\.")
_SCALE = re.compile(r"(.+)\.(scale_weight|weight_scale)")
_OF_ACTIVATIONS = re.compile(r"(.*\.)?(scaled_fp8|scale_input|input_scale|comfy_quant)")  # says how to compute, which we decide
# ComfyUI's own names, under which it saves what it loaded -> the official ones.
_COMFYUI = {
    r"((?:img|txt|self)_attn)\.(qkv|proj)\.": r"\1_\2.",
    r"_attn\.norm\.([qk])\w+_norm\.(?:scale|weight)$": r"_attn_\1_norm.weight",
    r"(\d)\.norm\.([qk])\w+_norm\.(?:scale|weight)$": r"\1.\2_norm.weight",
    r"(_mod|\.modulation)\.lin\.": r"\1.linear.",
    r"((?:img|txt)_mlp|blocks\.\d+\.mlp)\.0\.": r"\1.fc1.",
    r"((?:img|txt)_mlp|blocks\.\d+\.mlp)\.2\.": r"\1.fc2.",
    r"^(time_in|guidance_in|txt_in\.t_embedder)\.in_layer\.": r"\1.mlp.0.",
    r"^(time_in|guidance_in|txt_in\.t_embedder)\.out_layer\.": r"\1.mlp.2.",
    r"^txt_in\.c_embedder\.in_layer\.": "txt_in.c_embedder.linear_1.",
    r"^txt_in\.c_embedder\.out_layer\.": "txt_in.c_embedder.linear_2.",
}


@dataclass(frozen=True)
class StoredTransformer:
    """Tensors under official names. The weights of the layers in `scales` are float8_e4m3fn and count times their scale."""

    layout: str
    state: dict[str, Lazy]
    scales: dict[str, Tensor]
    config: TransformerConfig

    def expanded(self) -> dict[str, Lazy]:
        """The tensors with nothing in 8 bits."""
        weights = {f"{layer}.weight": scale for layer, scale in self.scales.items()}
        return {name: tensor.scaled(weights[name]) if name in weights else tensor for name, tensor in self.state.items()}


def open_transformer(path: Path, load_key: LoadKey = "module") -> StoredTransformer:
    """The transformer in a file or folder of any layout; its tensors stay on disk.

    Raises:
        FileNotFoundError, ValueError: a file is missing; or is damaged, or no HunyuanVideo transformer.
        ImportError: it is GGUF, and that library is not installed.
    """
    content = plain_tensors(unwrap(read_folder(path) if path.is_dir() else read_state_dict(path), path, load_key), path)
    tensors = lazy(content)
    if any(name.startswith("model.diffusion_model.") for name in tensors):  # perhaps with the VAE and text encoders beside it
        tensors = {name: tensor for name, tensor in tensors.items() if name.startswith("model.diffusion_model.")}
    tensors = {_PREFIX.sub("", name, count=1): tensor for name, tensor in tensors.items()}

    layout = "diffusers" if diffusers.is_diffusers(tensors) else "official"
    names = {name: _official_name(name) for name in tensors}
    if layout == "official" and any(old != new or _SCALE.fullmatch(old) for old, new in names.items()):
        layout = "comfyui"
    try:
        if layout == "diffusers":
            tensors = diffusers.to_official(tensors)
        else:
            tensors = {names[name]: tensor for name, tensor in tensors.items() if not _OF_ACTIVATIONS.fullmatch(name)}
        config = transformer_config(tensors)
    except KeyError as error:
        check_kind(tensors, "a HunyuanVideo transformer", path)
        raise ValueError(f"{path} is not a HunyuanVideo transformer in a known layout: it has no {error}.") from error
    except (IndexError, ValueError, ArithmeticError) as error:
        check_kind(tensors, "a HunyuanVideo transformer", path)
        raise ValueError(f"{path} is not a HunyuanVideo transformer: its sizes make no sense ({reason(error)}).") from error
    return StoredTransformer(layout, *_eight_bits(tensors, path), config)


def unwrap(content: dict, path: Path, load_key: LoadKey) -> object:
    """The state dict inside a DeepSpeed file, which keeps it under "module" (the weights) or "ema" (their average); or in another trainer's
    file, under "state_dict"; or a bare one."""
    content = content.get("state_dict", content)
    if not isinstance(content, dict):
        return content  # which `plain_tensors` refuses
    if load_key in content:
        return content[load_key]
    if wrappers := {"module", "ema"} & content.keys():
        raise ValueError(f"{path} has no {load_key!r}; it holds {', '.join(sorted(wrappers))}.")
    if load_key != "module":
        raise ValueError(f"{path} has no {load_key!r}; it holds weights alone.")
    return content


def expanded(state: Mapping[str, Tensor | Lazy], path: Path) -> dict[str, Lazy]:
    """The tensors of a text encoder, of which some may be in 8 bits, with their scales beside them as ComfyUI has them.

    Raises:
        ValueError: a scale is of nothing in 8 bits, or of rows or blocks.
    """
    tensors = lazy(state)
    found = {name: tensor for name, tensor in tensors.items() if not (_SCALE.fullmatch(name) or _OF_ACTIVATIONS.fullmatch(name))}
    for layer, scale in ((match[1], tensor.read()) for name, tensor in tensors.items() if (match := _SCALE.fullmatch(name))):
        weight = found.get(f"{layer}.weight")
        if weight is None or weight.dtype not in _EIGHT_BITS or scale.numel() != 1:
            raise ValueError(
                f"{path} has a scale for {layer} that is of no weight in 8 bits, or of rows or blocks; only one for each is supported."
            )
        found[f"{layer}.weight"] = weight.scaled(scale.float().view(()))
    return found


def transformer_config(state: Mapping[str, Tensor | Lazy]) -> TransformerConfig:
    """The sizes of a transformer, from its tensors: no config file comes with the official weights, and none is needed."""
    hidden_size, in_channels, *patch_size = state["img_in.proj.weight"].shape
    head_dim = state["single_blocks.0.q_norm.weight"].shape[0]
    return TransformerConfig(
        in_channels=in_channels,
        out_channels=state["final_layer.linear.weight"].shape[0] // math.prod(patch_size),
        hidden_size=hidden_size,
        num_heads=hidden_size // head_dim,
        mlp_ratio=state["double_blocks.0.img_mlp.fc1.weight"].shape[0] / hidden_size,
        patch_size=(patch_size[0], patch_size[1], patch_size[2]),
        num_double_blocks=count_numbered(state, "double_blocks"),
        num_single_blocks=count_numbered(state, "single_blocks"),
        num_refiner_blocks=count_numbered(state, "txt_in.individual_token_refiner.blocks"),
        rope_dims=split_head(head_dim),
        text_dim=state["txt_in.input_embedder.weight"].shape[1],
        pooled_dim=state["vector_in.in_layer.weight"].shape[1],
        guidance_embed="guidance_in.mlp.0.weight" in state,
    )


def _official_name(name: str) -> str:
    for pattern, official in _COMFYUI.items():
        name = re.sub(pattern, official, name)
    return name


def _eight_bits(tensors: dict[str, Lazy], path: Path) -> tuple[dict[str, Lazy], dict[str, Tensor]]:
    """Tensors and scales: the linears of the blocks stay in 8 bits, all else is expanded."""
    state = {name: tensor for name, tensor in tensors.items() if not _SCALE.fullmatch(name)}
    stored = {name.removesuffix(".weight"): tensor for name, tensor in state.items() if tensor.dtype in _EIGHT_BITS}
    kept = {layer for layer, tensor in stored.items() if in_blocks(layer) and tensor.dtype == FP8 and len(tensor.shape) == 2}
    scales = {match[1]: tensor.read().float() for name, tensor in tensors.items() if (match := _SCALE.fullmatch(name))}
    scales = scales or _scales_of_file(state, kept, path)
    if not kept <= scales.keys() <= stored.keys():
        raise ValueError(f"{path} has {len(kept)} layers in 8 bits and scales for {len(scales)}: they do not belong together.")
    if any(scale.numel() != 1 for scale in scales.values()):
        raise ValueError(f"{path} has scales of rows or blocks; only one for each weight is supported.")
    for layer, scale in scales.items():
        check_finite(f"the scale of {layer}", scale, path)
    for name in state.keys() - {f"{layer}.weight" for layer in kept}:
        layer, tensor = name.removesuffix(".weight"), state[name]
        if layer in stored:
            state[name] = tensor.scaled(scales[layer]) if layer in scales else tensor.cast(torch.bfloat16)
    return state, {layer: scales[layer].view(1) for layer in kept}


def _scales_of_file(state: dict[str, Lazy], kept: set[str], path: Path) -> dict[str, Tensor]:
    """The scales of a file that holds none: in one beside it, as published; or 1, if the weights are a plain cast."""
    beside = path.with_name(f"{path.stem}_map{path.suffix}")
    if kept and beside.is_file():
        scales = {layer: tensor.float() for layer, tensor in plain_tensors(read_state_dict(beside), beside).items()}
        if kept != scales.keys():
            raise ValueError(
                f"{beside} has scales for {len(scales)} layers, {path} has {len(kept)} in 8 bits: they do not belong together."
            )
        return scales
    if kept and state[f"{min(kept)}.weight"].read().float().abs().max() > _LARGEST_UNSCALED:
        raise FileNotFoundError(f"{path} has scaled 8-bit weights, whose scales must be in {beside}: fetch that file, too.")
    return {layer: torch.ones(1) for layer in kept}
