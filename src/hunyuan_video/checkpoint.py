"""How weights load: every foreign wrapper, name and format is dealt with here, and nowhere else.

A model is built on the meta device, from sizes read off the tensors themselves, and the file's tensors become its parameters: strictly,
every name and every shape. Pickled files are only ever read by PyTorch's weights-only unpickler.
"""

from __future__ import annotations

import json
import math
import pickle
import zipfile
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, split_head
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.transforms import fp8


def read_state_dict(path: Path) -> dict:
    """The content of a `.safetensors` or `.pt` file, memory-mapped where the format allows.

    Raises:
        FileNotFoundError, ValueError: the file is missing; or is damaged, no checkpoint, or would need code to run.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no weight file {path}.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ValueError(f"{path} is damaged or not a checkpoint of plain tensors ({reason}); fetch it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a checkpoint is a dictionary of tensors.")
    return content


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
    """Make `state` the parameters of a model built on the meta device.

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
    model.load_state_dict({name: state[name].to(device, kept[name]) for name in expected}, strict=True, assign=True)
    model.eval().requires_grad_(False).to(device)  # moves what is no parameter: the scales of 8-bit layers


def load_transformer(path: Path, dtype: torch.dtype, device: torch.device, load_key: str = "module") -> HunyuanVideoTransformer:
    """The diffusion transformer from an official checkpoint: `.pt` under "module" or "ema", bare, or `.safetensors`.

    The official FP8 file (`*_fp8.pt`, its scales in `*_fp8_map.pt` beside it) stays in 8 bits.
    """
    state = unwrap(read_state_dict(path), path, load_key)
    try:
        config = transformer_config(state)
    except (KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not a HunyuanVideo transformer in the official layout: it has no {error}.") from error
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
        vae = CausalVAE(VAEConfig.from_json(json.loads(config.read_text(encoding="utf-8"))))
    fill(vae, state, path, dtype, device)
    return vae
