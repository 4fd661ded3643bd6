"""A whole model as ComfyUI's own nodes load it: one file a part, in the folders of its `models`. Tokenizers it has itself.

It knows the official names of the transformer and the VAE; text encoders it knows as transformers saves them whole.
"""

from __future__ import annotations

import logging
from pathlib import Path

from hunyuan_video.checkpoint import clip_name, language_model_name, read_encoder, read_vae
from hunyuan_video.checkpoint.lazy import State
from hunyuan_video.models.transformer import TransformerConfig
from hunyuan_video.weights import Weights

log = logging.getLogger(__name__)

HEAD_DIM, MLP_RATIO, POOLED_DIM = 128, 4.0, 768  # which ComfyUI takes for granted


def parts(root: Weights, transformer: State) -> dict[str, State]:
    """The files, by their paths in ComfyUI's `models` folder. The vision tower is there where the language model sees pictures."""
    _, vae = read_vae(root.vae)
    kind = "i2v" if root.sees else "t2v"
    files = {
        f"diffusion_models/hunyuan_video_{kind}_720p.safetensors": transformer,
        "vae/hunyuan_video_vae.safetensors": vae,
        "text_encoders/llava_llama3.safetensors": read_encoder(root.text_encoder, _llama_name),
        "text_encoders/clip_l.safetensors": read_encoder(root.text_encoder_2, _clip_name),
    }
    if root.sees:
        files["clip_vision/llava_llama3_vision.safetensors"] = read_encoder(root.text_encoder, _vision_name)
    return files


def warn_of_sizes(config: TransformerConfig, path: Path) -> None:
    """Say if ComfyUI will not be able to use the files."""
    if (config.hidden_size // config.num_heads, config.mlp_ratio, config.pooled_dim) != (HEAD_DIM, MLP_RATIO, POOLED_DIM):
        log.warning("ComfyUI's own nodes know HunyuanVideo in its released sizes alone, and will not load %s.", path)


def _llama_name(name: str) -> str | None:
    bare = language_model_name(name)
    return None if bare is None else f"model.{bare}"


def _clip_name(name: str) -> str | None:
    bare = clip_name(name)
    return None if bare is None else f"text_model.{bare}"


def _vision_name(name: str) -> str | None:
    bare = name.removeprefix("model.").replace("vision_tower.vision_model.", "vision_tower.")
    if bare.endswith("position_ids") or not bare.startswith(("vision_tower.", "multi_modal_projector.")):
        return None
    return bare.replace("vision_tower.", "vision_model.", 1)
