"""Checkpoints of the released names, sizes and formats that hold only zeros: holes in files, which take no disk."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from hunyuan_video.checkpoint import diffusers
from hunyuan_video.checkpoint.lazy import lazy
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.transforms import fp8

NAMES = {torch.bfloat16: "BF16", torch.float16: "F16", torch.float32: "F32"}
LLAMA = LlamaConfig(
    vocab_size=128320, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8
)


def released() -> dict[str, Tensor]:
    """The 13B's tensors, on the meta device."""
    with torch.device("meta"):
        return HunyuanVideoTransformer().bfloat16().state_dict()


def save_safetensors(state: Mapping[str, Tensor], path: Path) -> Path:
    header, end = {}, 0
    for name, tensor in state.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return path


def save_shards(state: Mapping[str, Tensor], folder: Path, name: str, per_shard: int = 200) -> None:
    names, weight_map = iter(state), {}
    while part := list(islice(names, per_shard)):
        file = f"{name}-{len(weight_map):05}.safetensors"
        save_safetensors({key: state[key] for key in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / f"{name}.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def save_pt(state: Mapping[str, Tensor], path: Path) -> Path:
    with torch.serialization.skip_data():
        torch.save({"module": {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in state.items()}}, path)
    return path


def save_fp8(path: Path) -> Path:
    """And the scales beside it."""
    state = released()
    layers = [name for name, t in state.items() if fp8.in_blocks(name) and name.endswith("weight") and t.ndim == 2]
    torch.save({name.removesuffix(".weight"): torch.full((1,), 0.001) for name in layers}, path.with_name(f"{path.stem}_map.pt"))
    return save_pt(state | {name: state[name].to(fp8.FP8) for name in layers}, path)


def save_diffusers(folder: Path) -> Path:
    folder.mkdir()
    pieces = {name: torch.empty(p.shape, dtype=p.dtype, device="meta") for name, p in diffusers.from_official(lazy(released())).items()}
    save_shards(pieces, folder, "diffusion_pytorch_model")
    (folder / "config.json").write_text(json.dumps(diffusers.transformer_json(TransformerConfig())))
    return folder


def save_llama(folder: Path) -> Path:
    """The weights and config of a text encoder, in float16, as published; no tokenizer."""
    folder.mkdir()
    with torch.device("meta"):
        state = LlamaForCausalLM(LLAMA).half().state_dict()
    save_shards(state, folder, "model", per_shard=80)
    (folder / "config.json").write_text(json.dumps(LLAMA.to_dict() | {"model_type": "llama"}))
    return folder
