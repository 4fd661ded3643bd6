"""Which weights these are: told by their numbers, whatever the file, its name or its layout.

Of each matrix three rows are read, which takes a moment even for 40 GB. It tells models apart, also one from itself with a LoRA merged into
it; whether every byte is right is what `hunyuan-video verify` is for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from hunyuan_video.checkpoint import read_clip, read_llm, read_vae, tokenizer_folder
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.checkpoint.seeing import read_vision
from hunyuan_video.checkpoint.stored import open_transformer
from hunyuan_video.config import LoadKey
from hunyuan_video.files import sha256
from hunyuan_video.models.llama import frequencies
from hunyuan_video.weights import Weights

NUMBERS = 4096  # of a row, at most


def of_model(found: Weights) -> str:
    """The identity of a transformer, a VAE and two text encoders, in hexadecimal."""
    return _digest({"transformer": of_transformer(found.transformer, found.load_key), "encoders": of_encoders(found)})


def of_transformer(path: Path, load_key: LoadKey = "module") -> str:
    """Of one in a file or folder of any layout."""
    stored = open_transformer(path, load_key)
    return _digest(stored.state | {f"{layer}.scale": scale for layer, scale in stored.scales.items()})


def of_encoders(found: Weights) -> str:
    """Of what makes latents and text states: all but the transformer. Numbers that a configuration file holds count, too."""
    sizes, vae = read_vae(found.vae)
    (llm, llm_state), (clip, clip_state) = read_llm(found.text_encoder), read_clip(found.text_encoder_2)
    how = [("silu", llm.config.num_attention_heads), (clip.config.hidden_act, clip.config.num_attention_heads)]
    eps = llm.config.rms_norm_eps, clip.config.layer_norm_eps
    seeing = {"vision": _of_vision(found.text_encoder)} if found.sees else {}
    return _digest(
        seeing
        | {
            "vae": _digest(vae),
            "llm": _digest(llm_state | {"positions": Lazy.of(frequencies(llm.config))}),
            "clip": _digest(clip_state),
            "numbers": repr((sizes, how, eps, llm.config.num_key_value_heads)),
            "llm words": _words(found.text_encoder),
            "clip words": _words(found.text_encoder_2),
        }
    )


def _of_vision(folder: Path) -> str:
    vision, state = read_vision(folder)
    config = vision.vision_tower.config
    return _digest(state | {"numbers": repr((config.hidden_act, config.num_attention_heads, config.layer_norm_eps, config.image_size))})


def _words(folder: Path) -> str:
    """Of a tokenizer, whichever of its forms is there."""
    files = [tokenizer_folder(folder) / name for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt")]
    return " ".join(sha256(file) for file in files if file.is_file())


def _digest(parts: Mapping[str, Lazy | Tensor | str]) -> str:
    digest = hashlib.sha256()
    for name, part in sorted(parts.items()):
        digest.update(f"{name} {part if isinstance(part, str) else list(part.shape)}\n".encode())
        if not isinstance(part, str):
            digest.update(_some_of(part if isinstance(part, Lazy) else Lazy.of(part)).numpy().tobytes())
    return digest.hexdigest()[:16]


def _some_of(tensor: Lazy) -> Tensor:
    """In float32, which has every number of a narrower type. The rows are one each of q, k and v where these stand below each other."""
    if len(tensor.shape) < 2 or 0 in tensor.shape:
        return tensor.read().float()
    rows = tensor.shape[0]
    return torch.cat([tensor.row(row).flatten()[:NUMBERS].float() for row in (rows // 6, rows // 2, rows * 5 // 6)])
