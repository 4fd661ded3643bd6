"""What the image-to-video model is told: a prompt beside a picture, both read by the un-cut LLaVA-Llama-3-8B.

CLIP's vision tower and a projector make the picture tokens that the language model reads before the prompt. The transformer is given the
states of some of these, and those of the prompt.

Letters: B prompts, each with its picture, P tokens of a picture, L tokens that come out, N all that the language model reads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hunyuan_video.config import Conditioning, check_types, require
from hunyuan_video.models.clip import CLIPVision, CLIPVisionConfig
from hunyuan_video.models.llama import LlamaConfig
from hunyuan_video.models.text import MAX_TEXT_TOKENS, TextEncoder, TextFeatures, llm_states, pad
from hunyuan_video.pictures import CLIP_DEVIATION, CLIP_MEAN

log = logging.getLogger(__name__)

# Verbatim from the official release. There is one for single images, too, which no path of the official code can use.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\n<image>\nDescribe the video by detailing the following aspects according to the "
    "reference image: 1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>\n\n"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
)
PREFIX_TOKENS = 103  # what the official tokenizer makes of it before the prompt, the picture as one
HEADER_TOKENS = 4  # the end of the prompt's turn and the assistant's header, which are cut out; what stands behind them stays
STRIDES: dict[Conditioning, int] = {"first_frame": 4, "latent_concat": 2}  # of a picture's tokens the transformer is given every so manieth
SKIPPED_VISION_LAYERS = 1  # the projector reads hidden_states[-2], without the class token
WIDEST = 8  # times its shorter side, of which a picture is looked at


@dataclass(frozen=True)
class LlavaConfig:
    """Sizes of the un-cut LLaVA."""

    text: LlamaConfig
    vision: CLIPVisionConfig
    image_token: int
    projector_bias: bool

    def __post_init__(self) -> None:
        check_types(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> LlavaConfig:
        """Of a Hugging Face config.json.

        Raises:
            ValueError: it has another kind of tower, or one that is read elsewhere, than the official LLaVA's.
        """
        vision = values.get("vision_config")
        kind = "clip_vision_model" if vision is None else vision.get("model_type", "clip_vision_model")
        require(kind == "clip_vision_model", f"its tower is of type {kind!r}; the official LLaVA's is CLIP's")
        layer, strategy = values.get("vision_feature_layer", -2), values.get("vision_feature_select_strategy", "default")
        require(
            (layer, strategy) == (-1 - SKIPPED_VISION_LAYERS, "default"),
            f"its pictures are read at layer {layer} ({strategy}); the official LLaVA's are at -2 (default)",
        )
        act = values.get("projector_hidden_act", "gelu")
        require(act == "gelu", f"its projector's activation is {act}; the official LLaVA's is gelu")
        return cls(
            LlamaConfig.from_json(values.get("text_config") or {}),
            CLIPVisionConfig() if vision is None else CLIPVisionConfig.from_json(vision),
            values.get("image_token_index", values.get("image_token_id", 32000)),
            values.get("multimodal_projector_bias", True),
        )

    def text_tokens(self, told: Conditioning) -> int:
        """How many the transformer is given of a picture and the longest prompt."""
        return MAX_TEXT_TOKENS - HEADER_TOKENS + -(-self.vision.num_patches // STRIDES[told])


class Projector(nn.Module):
    """What the tower says of a patch, as the language model's vector of a token."""

    def __init__(self, config: LlavaConfig):
        super().__init__()
        self.linear_1 = nn.Linear(config.vision.hidden_size, config.text.hidden_size, bias=config.projector_bias)
        self.linear_2 = nn.Linear(config.text.hidden_size, config.text.hidden_size, bias=config.projector_bias)

    def forward(self, x: Float[Tensor, "B P E"]) -> Float[Tensor, "B P text_dim"]:
        return self.linear_2(F.gelu(self.linear_1(x)))


class VisionTower(nn.Module):
    """A picture to tokens of the language model. The parameters' names are LLaVA's."""

    def __init__(self, config: LlavaConfig):
        super().__init__()
        self.config = config
        self.vision_tower = CLIPVision(replace(config.vision, num_hidden_layers=config.vision.num_hidden_layers - SKIPPED_VISION_LAYERS))
        self.multi_modal_projector = Projector(config)

    def forward(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "B P text_dim"]:
        pixels = torch.stack([normalized(picture, self.config.vision.image_size) for picture in pictures])
        return self.multi_modal_projector(self.vision_tower(pixels.to(self.multi_modal_projector.linear_1.weight))[:, 1:])


def normalized(picture: Image.Image, side: int) -> Float[Tensor, "3 side side"]:
    """A square from the middle, after its shorter side became `side` pixels, in CLIP's mean and deviation."""
    width, height = picture.size
    if max(width, height) > WIDEST * min(width, height):  # of which nothing so far from the middle is seen, but all would be enlarged
        wide, high = min(width, WIDEST * height), min(height, WIDEST * width)
        left, top = (width - wide) // 2, (height - high) // 2
        picture, width, height = picture.crop((left, top, left + wide, top + high)), wide, high
    size = (side, side * height // width) if width <= height else (side * width // height, side)
    small = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    pixels = torch.tensor(np.asarray(small.crop((left, top, left + side, top + side))))
    return ((pixels / 255 - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_DEVIATION)).permute(2, 0, 1)


@contextmanager
def showing(llm: nn.Module, seen: Float[Tensor, "B P text_dim"], start: int) -> Iterator[None]:
    """Inside, the language model reads `seen` in place of its own vectors of the tokens from `start` on. By a hook, for where weights are
    spread over ranks they are only there while the model itself works."""

    def show(_layer: nn.Module, _inputs: object, embedded: Tensor) -> Tensor:
        return torch.cat([embedded[:, :start], seen.to(embedded), embedded[:, start + seen.shape[1] :]], dim=1)

    hook = llm.get_submodule("embed_tokens").register_forward_hook(show)
    try:
        yield
    finally:
        hook.remove()


class SeeingTextEncoder(TextEncoder):
    """Both text encoders, of which the language model sees a picture with each prompt."""

    def __init__(
        self,
        llm: nn.Module,
        clip: nn.Module,
        llm_tokenizer: Tokenizer,
        clip_tokenizer: Tokenizer,
        vision: VisionTower,
        stride: int,
    ):
        super().__init__(llm, clip, llm_tokenizer, clip_tokenizer)
        self.vision, self.stride = vision, stride

    @torch.no_grad()
    def encode_seeing(self, prompts: list[str], pictures: Sequence[Image.Image]) -> TextFeatures:
        """Encode prompts, which may be empty, each with its picture. `L` is a picture's tokens, every `stride`-th, and those of the longest
        prompt, at most 252 (what is longer is cut, with a warning, as the official code cuts it: its turn is not ended then)."""
        prompts = [prompt.strip() for prompt in prompts]
        prefix = self._ids(TEMPLATE.partition("{}")[0])
        limit, shown = len(prefix) + MAX_TEXT_TOKENS, self.vision.config.vision.num_patches
        start, more = prefix.index(self.vision.config.image_token), shown - 1
        ids, kept = [], []
        for prompt in prompts:
            whole = self._ids(TEMPLATE.replace("{}", prompt))
            row = whole[:limit]
            after = row[-1:] if len(whole) <= limit else []  # the blank line after the assistant's header
            end = len(row) - len(after)
            if lost := len(whole) - 1 - end:
                log.warning(
                    "The prompt %.40r... is too long: its last %d tokens were cut (the model reads %d).",
                    *(prompt, lost, MAX_TEXT_TOKENS - HEADER_TOKENS),
                )
            ids.append(row[:start] + [self.vision.config.image_token] * shown + row[start + 1 :])
            of_prompt = range(len(prefix) + more, end + more - HEADER_TOKENS)
            kept.append([*range(start, start + shown, self.stride), *of_prompt, *range(end + more, end + more + len(after))])
        with showing(self.llm, self.vision(pictures), start):
            states = llm_states(self.llm, pad(ids, self.llm))
        chosen = [row[places] for row, places in zip(states, kept, strict=True)]
        mask = pad_sequence([torch.ones(len(places), dtype=torch.bool) for places in kept], batch_first=True)
        return TextFeatures(pad_sequence(chosen, batch_first=True), mask, self.pooled(prompts))

    def _ids(self, text: str) -> list[int]:
        return self.llm_tokenizer.encode(text).ids
