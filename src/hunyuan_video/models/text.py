"""The two text encoders of HunyuanVideo, as one `TextEncoder.encode(prompts) -> TextFeatures`.

The MLLM (LLaVA-Llama-3-8B's language model) gives the diffusion transformer one state a token; CLIP-L gives one pooled vector.
Here are the official prompt templates, and which state is taken.

Letters: B prompts, L text tokens (the longest of the batch), N tokens including the template's prefix.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from hunyuan_video.models.llama import Llama, LlamaConfig

log = logging.getLogger(__name__)

Kind = Literal["video", "image"]

# Verbatim from the official release (there is no space between the numbered items): the model was trained behind these words.
TEMPLATES: dict[Kind, str] = {
    "video": (
        "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
        "1. The main content and theme of the video."
        "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
        "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
        "4. background environment, light, style and atmosphere."
        "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    ),
    "image": (
        "<|start_header_id|>system<|end_header_id|>\n\nDescribe the image by detailing the color, shape, size, texture, "
        "quantity, text, spatial relationships of the objects and background:<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    ),
}
# For both kinds. The official code lets an image prompt have 315 tokens, only because it subtracts the image template's prefix
# (36) from a length computed for the video's (95 + 256): the transformer was trained on 256, so we do not copy that.
MAX_TEXT_TOKENS = 256
PREFIX_TOKENS: dict[Kind, int] = {"video": 95, "image": 36}  # what the official tokenizer makes of the template before the prompt
MAX_CLIP_TOKENS = 77
SKIPPED_LAYERS = 2  # the released transformer reads hidden_states[-3]: the state before the last two layers and the final norm


def template_prefix(kind: Kind) -> str:
    """The template's words before the prompt; their states are computed and then dropped."""
    return TEMPLATES[kind].split("{}")[0]


def template_end(kind: Kind) -> str:
    """The template's words after the prompt."""
    return TEMPLATES[kind].split("{}")[1]


@dataclass(frozen=True)
class TextFeatures:
    """What the diffusion transformer is told about a batch of prompts. `mask` is True at real tokens, which come first, and stays on the
    CPU, for how long prompts are decides about shapes."""

    states: Float[Tensor, "B L text_dim"]
    mask: Bool[Tensor, "B L"]
    pooled: Float[Tensor, "B pooled_dim"]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> TextFeatures:
        return TextFeatures(self.states.to(device, dtype), self.mask, self.pooled.to(device, dtype))


def without_skipped_layers(config: LlamaConfig) -> Llama:
    """A Llama whose output is the state the diffusion transformer reads: no last two layers and no final norm."""
    llm = Llama(replace(config, num_hidden_layers=config.num_hidden_layers - SKIPPED_LAYERS))
    llm.norm = nn.Identity()
    return llm


def llm_states(llm: nn.Module, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N text_dim"]:
    """The states of right-padded `ids`. No mask is given: attention is causal, so padding on the right changes no real token."""
    return llm(ids)


def clip_pooled(clip: nn.Module, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B pooled_dim"]:
    """The final-layer-normed state at the end of text, unprojected: the first position of the largest id (padding may repeat it)."""
    return clip(ids)[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]


class TextEncoder(nn.Module):
    """Both encoders with their tokenizers; a module, so that it can be moved and offloaded as one."""

    def __init__(self, llm: nn.Module, clip: nn.Module, llm_tokenizer: Tokenizer, clip_tokenizer: Tokenizer):
        super().__init__()
        self.llm, self.clip = llm, clip
        self.llm_tokenizer, self.clip_tokenizer = llm_tokenizer, clip_tokenizer

    def crop(self, kind: Kind) -> int:
        """How many tokens, the begin-of-text token included, the template puts before the prompt (officially, `PREFIX_TOKENS`)."""
        return len(self.llm_tokenizer.encode(template_prefix(kind)))

    @torch.no_grad()
    def encode(self, prompts: list[str], kind: Kind = "video") -> TextFeatures:
        """Encode prompts; an empty one is legal. `L` is the longest prompt's length, at most 256 (what is longer is cut, with a warning).

        A prompt's features do not depend on the others in its batch.
        """
        if not prompts:
            raise ValueError("No prompts were given: encode needs at least one, which may be the empty string.")
        prompts = [prompt.strip() for prompt in prompts]
        crop = self.crop(kind)
        whole = [self.llm_tokenizer.encode(TEMPLATES[kind].format(prompt)).ids for prompt in prompts]
        end = self.llm_tokenizer.encode(template_end(kind), add_special_tokens=False).ids
        ids = [cut(row, crop + MAX_TEXT_TOKENS, end) for row in whole]
        for prompt, before, after in zip(prompts, whole, ids, strict=True):
            if lost := len(before) - len(after):
                log.warning(
                    "The prompt %.40r... is too long: its last %d tokens were cut (the model reads %d).", prompt, lost, MAX_TEXT_TOKENS
                )
        lengths = torch.tensor([len(row) - crop for row in ids])
        states = llm_states(self.llm, pad(ids, self.llm))[:, crop:]
        mask = torch.arange(states.shape[1]) < lengths[:, None]
        return TextFeatures(states, mask, self.pooled(prompts))

    def pooled(self, prompts: list[str]) -> Float[Tensor, "B pooled_dim"]:
        """CLIP's vector of each."""
        # Its cut is not worth a warning: any detailed prompt is longer than 77 tokens, and the MLLM reads all of it.
        whole = [self.clip_tokenizer.encode(prompt).ids for prompt in prompts]
        return clip_pooled(self.clip, pad([cut(row, MAX_CLIP_TOKENS, row[-1:]) for row in whole], self.clip))


def cut(ids: list[int], limit: int, end: list[int]) -> list[int]:
    """At most `limit` ids, which close with `end` as the whole ones do: the model has never seen a prompt that was not ended."""
    return ids if len(ids) <= limit else ids[: limit - len(end)] + end


def pad(ids: Sequence[Sequence[int]], model: nn.Module) -> Int[Tensor, "B N"]:
    """Pad on the right to the longest row. Which id pads does not matter (see `llm_states`), so the tokenizer needs no pad token."""
    device = next(model.parameters()).device
    return pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=0).to(device)
