"""The un-cut LLaVA: the text encoders of `checkpoint`, and the vision tower and projector of the same folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from hunyuan_video import checkpoint
from hunyuan_video.checkpoint import fill, from_config, load_tokenizer, model_type, read_encoder, read_json
from hunyuan_video.checkpoint.lazy import Lazy
from hunyuan_video.checkpoint.ranks import delivered
from hunyuan_video.config import Conditioning
from hunyuan_video.distributed.once import once
from hunyuan_video.models.text import TextEncoder
from hunyuan_video.models.vision import SKIPPED_VISION_LAYERS, STRIDES, LlavaConfig, SeeingTextEncoder, VisionTower
from hunyuan_video.weights import Weights


def load_encoders(found: Weights, told: Conditioning, dtype: torch.dtype, device: torch.device, **how: Any) -> TextEncoder:
    """The text encoders of a model, as `load_text_encoder`; where the language model sees the picture, with what makes it see, for a
    transformer that is `told` so of it."""
    if found.sees:
        return load_seeing_text_encoder(found.text_encoder, found.text_encoder_2, dtype, device, stride=STRIDES[told], **how)
    return checkpoint.load_text_encoder(found.text_encoder, found.text_encoder_2, dtype, device, **how)


def load_seeing_text_encoder(
    llava_dir: Path, clip_dir: Path, dtype: torch.dtype, device: torch.device, *, stride: int, **how: Any
) -> SeeingTextEncoder:
    """As `load_text_encoder`, with what makes the language model see; of a picture's tokens every `stride`-th is given on."""
    vision, state = read_vision(llava_dir)
    text = checkpoint.load_text_encoder(llava_dir, clip_dir, dtype, device, **how)
    fill(vision, delivered(state), llava_dir, dtype, device)
    return SeeingTextEncoder(text.llm, text.clip, text.llm_tokenizer, text.clip_tokenizer, vision, stride).eval()


def read_vision(folder: Path) -> tuple[VisionTower, dict[str, Lazy]]:
    """The vision tower and the projector on the meta device, and those stored tensors that they use, under LLaVA's names.

    Raises:
        ValueError: the folder has none, or a tokenizer to which their token is another.
    """
    vision = from_config(_meta_vision, folder)
    own, ids = vision.config.image_token, load_tokenizer(folder).encode("<image>", add_special_tokens=False).ids
    if ids != [own]:
        raise ValueError(
            f"The tokenizer of {folder} makes {ids} of <image>, but the model knows a picture as {own}: they are parts of two models."
        )
    layers = vision.vision_tower.config.num_hidden_layers
    return vision, once(lambda: read_encoder(folder, lambda name: vision_name(name, layers)))


def llava_config(folder: Path) -> LlavaConfig:
    """Raises a ValueError if the folder holds something else."""
    if (kind := model_type(folder)) != "llava":
        raise ValueError(
            f"{folder} holds a model of type {kind!r}, which sees no picture; image to video needs the un-cut LLaVA, of type 'llava' "
            "(`hunyuan-video download --i2v` fetches it into text_encoder_i2v)."
        )
    return LlavaConfig.from_json(read_json(folder / "config.json"))


def _meta_vision(folder: Path) -> VisionTower:
    config = llava_config(folder)
    with torch.device("meta"):
        return VisionTower(config)


def vision_name(name: str, num_layers: int) -> str | None:
    """Our name for a stored tensor of the tower or the projector; None for one that is not used. transformers has called them
    vision_tower.vision_model.…, the same after model., and vision_tower.… alone."""
    bare = name.removeprefix("model.").replace("vision_tower.vision_model.", "vision_tower.")
    unused = tuple(
        f"vision_tower.{part}." for part in ("post_layernorm", *(f"encoder.layers.{num_layers + n}" for n in range(SKIPPED_VISION_LAYERS)))
    )
    if not bare.startswith(("vision_tower.", "multi_modal_projector.")) or bare.startswith(unused) or bare.endswith("position_ids"):
        return None
    return bare
