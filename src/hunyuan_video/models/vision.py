"""What the image-to-video model is told: a prompt beside a picture, both read by the un-cut LLaVA-Llama-3-8B.

CLIP's vision tower and a projector make the picture tokens that the language model reads before the prompt. The transformer is given the
states of some of these, and those of the prompt. The models are transformers'; ours is what is put in, and which states are taken.

Letters: B prompts, each with its picture, P tokens of a picture, L tokens that come out, N all that the language model reads.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaConfig, PreTrainedTokenizerBase
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from hunyuan_video.config import Conditioning
from hunyuan_video.models.text import MAX_TEXT_TOKENS, TextEncoder, TextFeatures, llm_states, pad

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


def vision_config(config: LlavaConfig) -> CLIPVisionConfig:
    """The sizes of the tower. Raises a ValueError for another kind of tower, or one that is read elsewhere, than the official LLaVA's."""
    vision = config.vision_config
    if not isinstance(vision, CLIPVisionConfig):
        raise ValueError(f"its tower is a {type(vision).__name__}; the official LLaVA's is CLIP's")
    if config.vision_feature_layer != -1 - SKIPPED_VISION_LAYERS or config.vision_feature_select_strategy != "default":
        raise ValueError(
            f"its pictures are read at layer {config.vision_feature_layer} ({config.vision_feature_select_strategy}); the official "
            "LLaVA's are at -2 (default)"
        )
    return vision


def picture_side(config: LlavaConfig) -> int:
    """Of the square that the tower sees, in pixels."""
    side = vision_config(config).image_size
    assert isinstance(side, int)  # the type allows what no tower has
    return side


def picture_tokens(config: LlavaConfig) -> int:
    """How many the language model reads of a picture."""
    patch = vision_config(config).patch_size
    assert isinstance(patch, int)
    return (picture_side(config) // patch) ** 2


def text_tokens(config: LlavaConfig, told: Conditioning) -> int:
    """How many the transformer is given of a picture and the longest prompt."""
    return MAX_TEXT_TOKENS - HEADER_TOKENS + -(-picture_tokens(config) // STRIDES[told])


class VisionTower(nn.Module):
    """A picture to tokens of the language model. The parameters' names are LLaVA's."""

    def __init__(self, config: LlavaConfig):
        super().__init__()
        vision = vision_config(config)
        read = CLIPVisionConfig.from_dict(vision.to_dict() | {"num_hidden_layers": vision.num_hidden_layers - SKIPPED_VISION_LAYERS})
        self.vision_tower = CLIPVisionModel(read)
        self.vision_tower.register_module("post_layernorm", nn.Identity())
        self.multi_modal_projector = LlavaMultiModalProjector(config)
        self.num_tokens = picture_tokens(config)
        self.image_token: int = config.image_token_index
        side = picture_side(config)
        self.processor = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})

    def forward(self, pictures: Sequence[Image.Image]) -> Float[Tensor, "B P text_dim"]:
        pixels = self.processor(list(pictures), return_tensors="pt")["pixel_values"].to(self.multi_modal_projector.linear_1.weight)
        return self.multi_modal_projector(self.vision_tower(pixel_values=pixels).last_hidden_state[:, 1:])


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
        llm_tokenizer: PreTrainedTokenizerBase,
        clip_tokenizer: PreTrainedTokenizerBase,
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
        limit, shown = len(prefix) + MAX_TEXT_TOKENS, self.vision.num_tokens
        start, more = prefix.index(self.vision.image_token), shown - 1
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
            ids.append(row[:start] + [self.vision.image_token] * shown + row[start + 1 :])
            of_prompt = range(len(prefix) + more, end + more - HEADER_TOKENS)
            kept.append([*range(start, start + shown, self.stride), *of_prompt, *range(end + more, end + more + len(after))])
        with showing(self.llm, self.vision(pictures), start):
            states = llm_states(self.llm, pad(ids, self.llm))
        chosen = [row[places] for row, places in zip(states, kept, strict=True)]
        mask = pad_sequence([torch.ones(len(places), dtype=torch.bool) for places in kept], batch_first=True)
        return TextFeatures(pad_sequence(chosen, batch_first=True), mask, self.pooled(prompts))

    def _ids(self, text: str) -> list[int]:
        return self.llm_tokenizer(text, verbose=False)["input_ids"]
