"""How weights load: every foreign wrapper, name and format is dealt with here, and nowhere else.

A model is built on the meta device, from sizes read off the tensors themselves or from its folder's config.json, and the file's tensors
become its parameters: strictly, every name and every shape. Pickled files are only ever read by PyTorch's weights-only unpickler.
"""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from hunyuan_video.models.text import SKIPPED_LAYERS, TextEncoder, without_skipped_layers
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, split_head
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.transforms import fp8

Model = TypeVar("Model", bound=nn.Module)
# What PyTorch and safetensors raise over damaged files, found by damaging thousands at random.
DAMAGE = (
    SafetensorError, pickle.UnpicklingError, struct.error, RuntimeError, EOFError, ValueError, TypeError, LookupError, AttributeError,
    AssertionError,
)  # fmt: skip


def read_state_dict(path: Path) -> dict:
    """The content of a `.safetensors` or `.pt` file, memory-mapped where the format allows.

    Raises:
        FileNotFoundError, ValueError: the file is missing; or is damaged, no checkpoint, or would need code to run.
        OSError, RuntimeError: the file may not be read; or memory ran out.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}.")
    path.open("rb").close()  # a file that may not be read says so here; safetensors would call it missing
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except DAMAGE as error:
        if isinstance(error, RuntimeError) and "memory" in str(error).replace(str(path), ""):
            raise  # torch.OutOfMemoryError, or the allocator or mmap on CPU: the file is innocent
        raise ValueError(f"{path} is damaged or not a checkpoint of plain tensors ({reason(error)}); fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a checkpoint is a dictionary of tensors.")
    return content


def read_json(path: Path) -> dict:
    """The object in a `.json` file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({reason(error)}); fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (it holds a {type(content).__name__}, not an object); fetch it again.")
    return content


def reason(error: Exception) -> str:
    """What a library said, in one short line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200].rstrip(": ")


def unwrap(content: dict, path: Path, load_key: str) -> dict[str, Tensor]:
    """The state dict inside a DeepSpeed file, which keeps it under "module" (the weights) or "ema" (their average); or a bare one."""
    if load_key in content:
        return content[load_key]
    if wrappers := {"module", "ema"} & content.keys():
        raise ValueError(f"{path} has no {load_key!r}; it holds {', '.join(sorted(wrappers))}.")
    return content


def transformer_config(state: dict[str, Tensor]) -> TransformerConfig:
    """The sizes of a transformer, from its tensors: no config file comes with the official weights, and none is needed."""

    def count(prefix: str) -> int:
        return len({name.split(".")[prefix.count(".") + 1] for name in state if name.startswith(prefix + ".")})

    hidden_size, in_channels, *patch_size = state["img_in.proj.weight"].shape
    head_dim = state["single_blocks.0.q_norm.weight"].shape[0]
    return TransformerConfig(
        in_channels=in_channels,
        out_channels=state["final_layer.linear.weight"].shape[0] // math.prod(patch_size),
        hidden_size=hidden_size,
        num_heads=hidden_size // head_dim,
        mlp_ratio=state["double_blocks.0.img_mlp.fc1.weight"].shape[0] / hidden_size,
        patch_size=(patch_size[0], patch_size[1], patch_size[2]),
        num_double_blocks=count("double_blocks"),
        num_single_blocks=count("single_blocks"),
        num_refiner_blocks=count("txt_in.individual_token_refiner.blocks"),
        rope_dims=split_head(head_dim),
        text_dim=state["txt_in.input_embedder.weight"].shape[1],
        pooled_dim=state["vector_in.in_layer.weight"].shape[1],
        guidance_embed="guidance_in.mlp.0.weight" in state,
    )


def fill(model: nn.Module, state: dict[str, Tensor], path: Path, dtype: torch.dtype, device: torch.device) -> None:
    """Make `state`, which is used up, the parameters of a model built on the meta device.

    Raises:
        ValueError: a name or shape differs; lists the first ten.
    """
    expected = model.state_dict()
    problems = [f"{name} is missing" for name in expected if name not in state]
    problems += [f"{name} is unknown" for name in state if name not in expected]
    problems += [
        f"{name} has shape {list(state[name].shape)}, not {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if problems:
        shown = "; ".join(problems[:10]) + (f"; and {len(problems) - 10} more" if len(problems) > 10 else "")
        raise ValueError(f"{path} does not fit the model: {shown}.")
    kept = {name: torch.float8_e4m3fn if tensor.dtype == torch.float8_e4m3fn else dtype for name, tensor in expected.items()}
    # In the file's order, letting go of each: a shard that has been converted is out of memory before the next is read.
    converted = {name: state.pop(name).to(device, kept[name]) for name in list(state)}
    model.load_state_dict(converted, strict=True, assign=True)
    model.eval().requires_grad_(False).to(device)  # moves what is no parameter: the scales of 8-bit layers


def read_transformer(path: Path, load_key: str = "module") -> tuple[dict[str, Tensor], TransformerConfig]:
    """The tensors of a transformer's file, still on disk where the format allows it, and the sizes that they say."""
    state = unwrap(read_state_dict(path), path, load_key)
    try:
        return state, transformer_config(state)
    except (KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a HunyuanVideo transformer in the official layout: it has no {error}.") from error


def load_transformer(path: Path, dtype: torch.dtype, device: torch.device, load_key: str = "module") -> HunyuanVideoTransformer:
    """The diffusion transformer from an official checkpoint: `.pt` under "module" or "ema", bare, or `.safetensors`.

    The official FP8 file (`*_fp8.pt`, its scales in `*_fp8_map.pt` beside it) stays in 8 bits.
    """
    state, config = read_transformer(path, load_key)
    with torch.device("meta"):
        model = HunyuanVideoTransformer(config)
    quantized = {name.removesuffix(".weight") for name, tensor in state.items() if tensor.dtype == torch.float8_e4m3fn}
    if quantized:
        scales_path = path.with_name(f"{path.stem}_map{path.suffix}")
        if not scales_path.is_file():
            raise FileNotFoundError(f"{path} has 8-bit weights, whose scales must be in {scales_path}: fetch that file, too.")
        scales = read_state_dict(scales_path)
        if quantized != scales.keys():
            raise ValueError(
                f"{scales_path} has scales for {len(scales)} layers, {path} has {len(quantized)} in 8 bits: they do not belong together."
            )
        fp8.fit(model, scales)
    fill(model, state, path, dtype, device)
    return model


def load_vae(folder: Path, dtype: torch.dtype, device: torch.device) -> CausalVAE:
    """The VAE from `config.json` and `pytorch_model.pt` or `.safetensors`, whose names may start with "vae."."""
    config = folder / "config.json"
    if not config.is_file():
        raise FileNotFoundError(f"There is no {config}; it belongs to the official VAE download.")
    path = next(
        (p for p in (folder / "pytorch_model.pt", folder / "pytorch_model.safetensors") if p.is_file()), folder / "pytorch_model.pt"
    )
    state = read_state_dict(path)
    state = state.get("state_dict", state)
    if any(name.startswith("vae.") for name in state):
        state = {name.replace("vae.", ""): tensor for name, tensor in state.items() if name.startswith("vae.")}
    with torch.device("meta"):
        vae = CausalVAE(VAEConfig.from_json(read_json(config)))
    fill(vae, state, path, dtype, device)
    return vae


def load_text_encoder(
    llm_dir: Path | str, clip_dir: Path | str, dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Both text encoders from Hugging Face folders (config, tokenizer, weights in safetensors or .bin, whole or with an index).

    Only what is used enters memory: the last two Llama layers, its head, and CLIP's vision tower are mapped and never read.

    Raises:
        FileNotFoundError: a folder, or a file in it, is missing.
        ValueError: the folder holds the un-cut LLaVA, another kind of model, a damaged file, or weights that do not fit its config.
    """
    llm_dir, clip_dir, device = Path(llm_dir), Path(clip_dir), torch.device(device)
    if (kind := model_type(llm_dir)) == "llava":
        raise ValueError(
            f"{llm_dir} holds the whole LLaVA model, of which only the language model is used: "
            "cut that out as docs/weights.md shows, then use the result."
        )
    if kind != "llama":
        raise ValueError(f"{llm_dir} holds a model of type {kind!r}; the text encoder must be of type 'llama' (see docs/weights.md).")
    if (kind := model_type(clip_dir)) not in ("clip", "clip_text_model"):
        raise ValueError(
            f"{clip_dir} holds a model of type {kind!r}; the second text encoder must be CLIP, 'clip' or 'clip_text_model' "
            "(see docs/weights.md)."
        )
    llm, clip = from_config(meta_llm, llm_dir), from_config(meta_clip, clip_dir)
    llm_tokenizer, clip_tokenizer = load_tokenizer(llm_dir), load_tokenizer(clip_dir)
    num_layers = llm.config.num_hidden_layers
    fill(llm, renamed(read_folder(llm_dir), lambda name: llm_name(name, num_layers)), llm_dir, dtype, device)
    fill(clip, renamed(read_folder(clip_dir), clip_name), clip_dir, dtype, device)
    return TextEncoder(llm, clip, llm_tokenizer, clip_tokenizer).eval()


def model_type(folder: Path) -> str | None:
    """The kind of model that a Hugging Face folder says it holds."""
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no text encoder folder {folder}: docs/weights.md says where to fetch it.")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: it must be a complete Hugging Face model folder (see docs/weights.md).")
    return read_json(folder / "config.json").get("model_type")


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise FileNotFoundError(
            f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json): copy it beside the weights (see docs/weights.md)."
        )
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json"):
        if (folder / name).is_file():
            read_json(folder / name)
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"The tokenizer in {folder} is damaged or needs code of its own ({reason(error)}); fetch it again.") from error


def from_config(build: Callable[[Path], Model], folder: Path) -> Model:
    """`build(folder)`, where transformers' many ways to stumble over a config are one."""
    try:
        return build(folder)
    except (StrictDataclassError, ValueError, KeyError, TypeError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{folder / 'config.json'} describes no model that can be built ({reason(error)}); fetch it again.") from error


# Buffers that are computed, not stored, are made again for real: `fill` brings them to the device.


def meta_llm(folder: Path) -> LlamaModel:
    with torch.device("meta"):
        llm = without_skipped_layers(LlamaConfig.from_pretrained(folder, local_files_only=True))
    llm.rotary_emb = LlamaRotaryEmbedding(llm.config)
    return llm


def meta_clip(folder: Path) -> CLIPTextModel:
    with torch.device("meta"):
        clip = CLIPTextModel(CLIPTextConfig.from_pretrained(folder, local_files_only=True))
    clip.embeddings.register_buffer("position_ids", torch.arange(clip.config.max_position_embeddings)[None], persistent=False)
    return clip


def llm_name(name: str, num_layers: int) -> str | None:
    """Our name for a stored Llama tensor; None for one that is not used."""
    name = name.removeprefix("model.")  # saved with its language-model head, or without
    if name in ("norm.weight", "lm_head.weight") or name.endswith("rotary_emb.inv_freq"):
        return None
    layer = re.match(r"layers\.(\d+)\.", name)
    return None if layer and num_layers <= int(layer[1]) < num_layers + SKIPPED_LAYERS else name


def clip_name(name: str) -> str | None:
    """Our name for a stored CLIP tensor; None for one that is not used."""
    if re.match(r"vision_model\.|visual_projection\.|text_projection\.|logit_scale$", name) or name.endswith("position_ids"):
        return None
    return name.removeprefix("text_model.")


def renamed(state: dict[str, Tensor], rename: Callable[[str], str | None]) -> dict[str, Tensor]:
    return {name: tensor for stored, tensor in state.items() if (name := rename(stored)) is not None}


def read_folder(folder: Path) -> dict[str, Tensor]:
    """All tensors of a Hugging Face folder, from one file or from shards with an index."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            weight_map = read_json(index).get("weight_map")
            if not isinstance(weight_map, dict) or not all(isinstance(shard, str) for shard in weight_map.values()):
                raise ValueError(f"{index} is damaged (it has no weight_map from tensors to files); fetch it again.")
            shards = sorted(set(weight_map.values()))
            if absent := [shard for shard in shards if not (folder / shard).is_file()]:
                raise FileNotFoundError(f"{folder} is incomplete: {', '.join(absent)} of its {len(shards)} weight files are missing.")
            return {key: tensor for shard in shards for key, tensor in read_state_dict(folder / shard).items()}
        if (folder / name).is_file():
            return read_state_dict(folder / name)
    raise FileNotFoundError(
        f"{folder} has no weights (model.safetensors or pytorch_model.bin, whole or with an index): "
        "docs/weights.md says where to fetch them."
    )
