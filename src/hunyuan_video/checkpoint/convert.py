"""Weights from any layout into another, one tensor at a time: memory holds the largest tensor, whatever the size of the model.

What is written is there whole or not at all, and nothing is overwritten.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from hunyuan_video.checkpoint import (
    check_fits,
    comfyui,
    diffusers,
    gguf_file,
    language_model_name,
    llm_config,
    model_type,
    read_json,
    read_vae,
    renamed,
    tokenizer_folder,
)
from hunyuan_video.checkpoint.lazy import Lazy, State, lazy
from hunyuan_video.checkpoint.reading import plain_tensors, read_folder
from hunyuan_video.checkpoint.seeing import llava_config
from hunyuan_video.checkpoint.stored import StoredTransformer, open_transformer
from hunyuan_video.config import LoadKey
from hunyuan_video.files import making
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.transforms import fp8
from hunyuan_video.weights import Weights, locate, official_tree

Target = Literal["official", "diffusers", "comfyui", "single-file", "fp8", "gguf"]
_SUFFIX = {"official": ".pt", "single-file": ".safetensors", "fp8": ".pt", "gguf": ".gguf"}
SHARD_BYTES = 5 * 10**9  # as Diffusers cuts
_DTYPE_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float64: "F64", torch.int64: "I64", torch.int32: "I32",
    torch.uint8: "U8", torch.bool: "BOOL", fp8.FP8: "F8_E4M3",
}  # fmt: skip


def convert(source: Path, out: Path, to: Target, load_key: LoadKey = "module") -> list[Path]:
    """Write `source` as `to`; returns what was written.

    A root of a whole model becomes a whole model (official, diffusers, comfyui); a transformer's file or folder becomes one of its own. A
    single file, fp8 and gguf are always of the transformer alone.

    Raises:
        FileExistsError: `out` is there.
        FileNotFoundError, ValueError: `source` is missing, damaged or unknown, or a part of what ComfyUI needs; or `out` is not what that
            layout is called.
    """
    if not source.exists():
        raise FileNotFoundError(f"There is no {source} to convert; give a transformer's file or folder, or the root of a whole model.")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{out} is inside {source}, which is to be converted; write it elsewhere.")
    root = whole_model(source, load_key)
    if to == "comfyui" and root is None:
        raise ValueError(
            f"{source} is no whole model, which comfyui is; give the root of one, or of a transformer alone write a single-file, which "
            "goes into ComfyUI's models/diffusion_models as it is."
        )
    is_folder = to in ("diffusers", "comfyui") or (to == "official" and root is not None)
    if not is_folder and out.suffix != _SUFFIX[to]:
        raise ValueError(f"{out} is to be {to}, which of {source} is a file that ends in {_SUFFIX[to]}.")
    outs = [out, out.with_name(f"{out.stem}_map.pt")] if to == "fp8" else [out]
    for path in outs:
        if os.path.lexists(path):
            raise FileExistsError(f"{path} exists already; nothing is overwritten, so choose another name.")
    stored = open_transformer(root.transformer if root else source, load_key)
    with torch.device("meta"):
        check_fits(HunyuanVideoTransformer(stored.config), stored.state, source)
    out.parent.mkdir(parents=True, exist_ok=True)
    if to == "fp8":
        _write_fp8(stored, *outs)
        return outs
    with making(out) as temporary:
        state = stored.expanded()
        if to == "single-file":
            write_safetensors(state, temporary)
        elif to == "gguf":
            gguf_file.write(state, temporary)
        elif to == "comfyui" and root:
            comfyui.warn_of_sizes(stored.config, out)
            _write_comfyui(root, state, temporary)
        elif to == "diffusers" and root:
            _write_diffusers(root, stored, temporary)
        elif to == "diffusers":
            _write_diffusers_transformer(stored, temporary)
        elif root:
            _write_official(root, state, temporary)
        else:
            write_pickle({"module": state}, temporary)
    return outs


def whole_model(path: Path, load_key: LoadKey = "module") -> Weights | None:
    """The parts of a model, if `path` is the root of one, official or Diffusers.

    Raises:
        FileNotFoundError: it is the root of an incomplete one.
    """
    found = locate(path, load_key=load_key)
    if not (found.is_diffusers or found.vae.parent.is_dir()):
        return None
    if missing := found.missing():
        raise FileNotFoundError(f"{path} is incomplete: {', '.join(str(part) for part in missing)} is not there.")
    return found


def write_safetensors(state: State, path: Path) -> None:
    """As the safetensors library writes, but reading each tensor only when its turn has come."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, tensor in state.items():
        start, end = end, end + tensor.nbytes
        header[name] = {"dtype": _DTYPE_NAMES[tensor.dtype], "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in state.values():
            file.write(tensor.read().contiguous().flatten().view(torch.uint8).numpy().data)


def write_pickle(content: Mapping[str, State], path: Path) -> None:
    """A `.pt` file of wrapped state dicts: first its skeleton, with room for all numbers, then the numbers, into the mapped file."""
    if not hasattr(mmap, "MAP_SHARED"):  # on Windows, where PyTorch does not write into a file that it has mapped
        whole = {
            key: {name: tensor.read().clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
            for key, state in content.items()
        }
        torch.save(whole, path)
        return
    with torch.serialization.skip_data():
        torch.save({key: {name: torch.empty(t.shape, dtype=t.dtype) for name, t in state.items()} for key, state in content.items()}, path)
    if hasattr(
        os, "posix_fallocate"
    ):  # of a full disk one learns here by an error; where a mapped hole is written to, by a signal that kills
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
        mapped = torch.load(path, mmap=True, weights_only=True)
    for key, state in content.items():
        for name, tensor in state.items():
            mapped[key][name].copy_(tensor.read())


def _write_fp8(stored: StoredTransformer, out: Path, scales_out: Path) -> None:
    """The pair of the official FP8 checkpoint: the linears of the blocks in 8 bits, all else in bfloat16; and the map of scales.

    Weights that are in 8 bits already stay as they are.
    """
    scales, state = dict(stored.scales), {}
    for name, tensor in stored.state.items():
        layer = name.removesuffix(".weight")
        if layer in scales:
            state[name] = tensor
        elif fp8.in_blocks(name) and name.endswith(".weight") and len(tensor.shape) == 2:
            scales[layer] = fp8.scale_of(tensor.read())
            state[name] = _in_8_bits(tensor, scales[layer])
        else:
            state[name] = tensor.cast(torch.bfloat16)
    mapped = False
    try:
        with making(out) as temporary:
            write_pickle({"module": state}, temporary)
            with making(scales_out) as temporary_map:
                torch.save(scales, temporary_map)
            mapped = True
    except BaseException:
        if mapped:  # of the pair, none is there alone
            scales_out.unlink()
        raise


def _in_8_bits(tensor: Lazy, scale: Tensor) -> Lazy:
    return Lazy(tensor.shape, fp8.FP8, lambda: fp8.in_8_bits(tensor.read(), scale))


def _write_official(root: Weights, state: State, out: Path) -> None:
    """The whole official tree."""
    empty = official_tree(out, sees=root.sees)
    empty.transformer.parent.mkdir(parents=True)
    write_pickle({"module": state}, empty.transformer)
    config, tensors = read_vae(root.vae)
    empty.vae.mkdir()
    write_pickle({"state_dict": tensors}, empty.vae / "pytorch_model.pt")
    _write_json(official_vae_json(config), empty.vae / "config.json")
    for source, target in ((root.text_encoder, empty.text_encoder), (root.text_encoder_2, empty.text_encoder_2)):
        _write_text_encoder(source, target, whole=root.sees)
        _copy_tokenizer(source, target)
    _write_defaults(root, out)


def _write_diffusers(root: Weights, stored: StoredTransformer, out: Path) -> None:
    """The whole of a Diffusers folder, for `HunyuanVideoPipeline.from_pretrained`, or its like for image to video."""
    _write_diffusers_transformer(stored, out / "transformer", sees=root.sees)
    config, tensors = read_vae(root.vae)
    (out / "vae").mkdir()
    write_safetensors(tensors, out / "vae" / "diffusion_pytorch_model.safetensors")
    _write_json(diffusers.vae_json(config), out / "vae" / "config.json")
    for source, name in ((root.text_encoder, "text_encoder"), (root.text_encoder_2, "text_encoder_2")):
        _write_text_encoder(source, out / name, whole=root.sees)
        _copy_tokenizer(source, out / name.replace("text_encoder", "tokenizer"))
    scheduler = {"_class_name": "FlowMatchEulerDiscreteScheduler", "num_train_timesteps": 1000, "shift": root.sampling().shift}
    _write_json(scheduler, out / "scheduler" / "scheduler_config.json")
    if root.sees:
        side = llava_config(root.text_encoder).vision.image_size
        _write_json(diffusers.image_processor_json(side), out / "image_processor" / "preprocessor_config.json")
    _write_json(diffusers.MODEL_INDEX | (diffusers.SEEING_INDEX if root.sees else {}), out / "model_index.json")
    _write_defaults(root, out)


def _write_comfyui(root: Weights, state: State, out: Path) -> None:
    for name, part in comfyui.parts(root, state).items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        write_safetensors(part, out / name)


def _write_diffusers_transformer(stored: StoredTransformer, folder: Path, *, sees: bool = False) -> None:
    folder.mkdir(parents=True)
    _write_shards(diffusers.from_official(stored.expanded()), folder, "diffusion_pytorch_model")
    _write_json(diffusers.transformer_json(stored.config, sees=sees), folder / "config.json")


def _write_shards(state: State, folder: Path, name: str) -> None:
    """One file, or several with an index."""
    shards = list(_shards(state))
    if len(shards) == 1:
        return write_safetensors(state, folder / f"{name}.safetensors")
    files = [f"{name}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for file, shard in zip(files, shards, strict=True):
        write_safetensors(shard, folder / file)
    weight_map = {key: file for file, shard in zip(files, shards, strict=True) for key in shard}
    size = sum(tensor.nbytes for tensor in state.values())
    _write_json({"metadata": {"total_size": size}, "weight_map": weight_map}, folder / f"{name}.safetensors.index.json")


def _shards(state: State) -> Iterator[dict[str, Lazy]]:
    """In order, each as large as SHARD_BYTES allow."""
    shard: dict[str, Lazy] = {}
    for name, tensor in state.items():
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


def _write_text_encoder(source: Path, target: Path, *, whole: bool) -> None:
    """Config and weights as they are; of the un-cut LLaVA, its language model, unless it is to be `whole`."""
    target.mkdir(parents=True)
    tensors = plain_tensors(read_folder(source), source)
    if model_type(source) == "llava" and not whole:
        tensors = renamed(tensors, language_model_name)
        _write_json(read_json(source / "config.json")["text_config"] | llm_config(source).to_json(), target / "config.json")
    else:
        shutil.copyfile(source / "config.json", target / "config.json")
    _write_shards(lazy(tensors), target, "model")


def _copy_tokenizer(source: Path, target: Path) -> None:
    target.mkdir(exist_ok=True)
    for file in sorted(tokenizer_folder(source).iterdir()):
        if file.is_file() and file.name.startswith(("tokenizer", "special_tokens", "vocab", "merges", "added_tokens")):
            shutil.copyfile(file, target / file.name)


def official_vae_json(config: VAEConfig) -> dict[str, Any]:
    """A VAE's config.json as the official release has it."""
    num_blocks = len(config.block_out_channels)
    return asdict(config) | {
        "_class_name": "AutoencoderKLCausal3D",
        "act_fn": "silu",
        "down_block_types": ["DownEncoderBlockCausal3D"] * num_blocks,
        "up_block_types": ["UpDecoderBlockCausal3D"] * num_blocks,
        "mid_block_add_attention": True,
    }


def _write_defaults(root: Weights, out: Path) -> None:
    """What these weights were made for, if they say so."""
    file = root.root / "generation_config.json"
    if file.exists():
        shutil.copyfile(file, out / file.name)


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
