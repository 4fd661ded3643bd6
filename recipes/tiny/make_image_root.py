"""A miniature of the official image-to-video model, from the embedded one: `python recipes/tiny/make_image_root.py OUT`.

The transformer, the VAE and CLIP are the embedded model's, which goes on from a clean first frame. Its language model becomes an un-cut
LLaVA: the official template for pictures is seven tokens to it, as that for text is one, and a small random vision tower stands before it,
whose tokens are near the one that begins every text. So what the model sees of a picture it sees in the first frame.
"""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from hunyuan_video.files import making
from hunyuan_video.models.clip import CLIPVisionConfig
from hunyuan_video.models.text import template_prefix
from hunyuan_video.models.vision import TEMPLATE, LlavaConfig, VisionTower
from hunyuan_video.weights import EMBEDDED, I2V, T2V

START, END, IMAGE = "<|begin_of_text|>", "<|eot_id|>", "<image>"
LEAD, BEHIND = TEMPLATE.partition("{}")[0].split(IMAGE)
TOKENS = (LEAD, IMAGE, "<|start_header_id|>", "assistant", "<|end_header_id|>", "\n\n")  # of the template, that it does not know yet
SIDE, PATCH = 28, 14  # of a picture and its patches: four tokens, of which one is given on
SPREAD = 0.02  # of the tower's random weights


def write_root(out: Path) -> None:
    """Raises a FileExistsError if `out` is there."""
    if out.exists():
        raise FileExistsError(f"{out} exists already; nothing is overwritten, so choose another name.")
    with making(out) as root:
        shutil.copytree(EMBEDDED / T2V, root / I2V)
        shutil.copytree(EMBEDDED / "text_encoder_2", root / "text_encoder_2")
        shutil.copy(EMBEDDED / "generation_config.json", root)
        _write_llava(EMBEDDED / "text_encoder", root / "text_encoder_i2v")


def _write_llava(source: Path, target: Path) -> None:
    shutil.copytree(source, target)
    ids = _teach_template(target / "tokenizer.json")
    text = json.loads((source / "config.json").read_text(encoding="utf-8")) | {"vocab_size": len(ids)}
    vision = CLIPVisionConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE, patch_size=PATCH
    )
    config = {
        "model_type": "llava",
        "architectures": ["LlavaForConditionalGeneration"],
        "text_config": text,
        "vision_config": asdict(vision) | {"model_type": "clip_vision_model"},
        "image_token_index": ids[IMAGE],
        "image_seq_length": vision.num_patches,
    }
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    state = load_file(source / "model.safetensors")
    own = state.pop("embed_tokens.weight")
    alike = dict.fromkeys(TOKENS, END) | {LEAD: START, IMAGE: START}
    rows = [own[ids[alike.get(token, token)]] for token in ids]
    named = {f"language_model.model.{name}": tensor for name, tensor in (state | {"embed_tokens.weight": torch.stack(rows)}).items()}
    save_file(named | _tower(LlavaConfig.from_json(config), own[ids[START]]), target / "model.safetensors", metadata={"format": "pt"})


def _teach_template(file: Path) -> dict[str, int]:
    """The tokenizer's words and their numbers, with the official template's among them: what stands behind the picture gets the number that
    all before the prompt had."""
    tokenizer: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        if token["content"] == template_prefix("video"):
            token["content"] = BEHIND
    first = len(tokenizer["model"]["vocab"]) + len(tokenizer["added_tokens"])
    like = tokenizer["added_tokens"][-1]
    tokenizer["added_tokens"] += [like | {"id": first + number, "content": content} for number, content in enumerate(TOKENS)]
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
    ids = tokenizer["model"]["vocab"] | {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    return dict(sorted(ids.items(), key=lambda item: item[1]))


def _tower(config: LlavaConfig, near: torch.Tensor) -> dict[str, torch.Tensor]:
    """Random, of a seed; what it makes of any picture is close to one vector of the language model."""
    draw = torch.Generator().manual_seed(0)
    tower = VisionTower(config)
    for parameter in tower.parameters():
        parameter.data.normal_(0, SPREAD, generator=draw)
    tower.multi_modal_projector.linear_2.bias.data.copy_(near)
    return {name.replace("vision_tower.", "vision_tower.vision_model."): tensor.half() for name, tensor in tower.state_dict().items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, help="folder to write; it must not be there")
    write_root(parser.parse_args().out)
