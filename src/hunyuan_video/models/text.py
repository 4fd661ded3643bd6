"""The two text encoders of HunyuanVideo, as one `TextEncoder.encode(prompts) -> TextFeatures`.

The MLLM (LLaVA-Llama-3-8B's language model) gives the diffusion transformer one state a token; CLIP-L gives one pooled vector.
Both are transformers' models. What is ours: the official prompt templates, which state is taken, and exact loading.

Letters: B prompts, L text tokens (the longest of the batch), N tokens including the template's prefix.
"""

from __future__ import annotations

import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoTokenizer, CLIPTextConfig, CLIPTextModel, LlamaConfig, LlamaModel, PreTrainedTokenizerBase
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

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
MAX_CLIP_TOKENS = 77
SKIPPED_LAYERS = 2  # the released transformer reads hidden_states[-3]: the state before the last two layers and the final norm


def template_prefix(kind: Kind) -> str:
    """The template's words before the prompt; their states are computed and then dropped."""
    return TEMPLATES[kind].split("{}")[0]


@dataclass(frozen=True)
class TextFeatures:
    """What the diffusion transformer is told about a batch of prompts; `mask` is True at real tokens, which come first."""

    states: Float[Tensor, "B L text_dim"]
    mask: Bool[Tensor, "B L"]
    pooled: Float[Tensor, "B pooled_dim"]

    def to(self, device: torch.device | str, dtype: torch.dtype) -> TextFeatures:
        return TextFeatures(self.states.to(device, dtype), self.mask.to(device), self.pooled.to(device, dtype))


def without_skipped_layers(config: LlamaConfig) -> LlamaModel:
    """A Llama whose output is the state the diffusion transformer reads: no last two layers and no final norm."""
    config = LlamaConfig.from_dict(config.to_dict() | {"num_hidden_layers": config.num_hidden_layers - SKIPPED_LAYERS})
    llm = LlamaModel(config)
    llm.register_module("norm", nn.Identity())
    return llm


def llm_states(llm: nn.Module, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B N text_dim"]:
    """The states of right-padded `ids`. No mask is given: attention is causal, so padding on the right changes no real token."""
    return llm(input_ids=ids, use_cache=False).last_hidden_state


def clip_pooled(clip: nn.Module, ids: Int[Tensor, "B N"]) -> Float[Tensor, "B pooled_dim"]:
    """The final-layer-normed state at the end of text, unprojected: the first position of the largest id (padding may repeat it)."""
    states = clip(input_ids=ids).last_hidden_state
    return states[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)]


class TextEncoder(nn.Module):
    """Both encoders with their tokenizers; a module, so that it can be moved and offloaded as one."""

    def __init__(self, llm: nn.Module, clip: nn.Module, llm_tokenizer: PreTrainedTokenizerBase, clip_tokenizer: PreTrainedTokenizerBase):
        super().__init__()
        self.llm, self.clip = llm, clip
        self.llm_tokenizer, self.clip_tokenizer = llm_tokenizer, clip_tokenizer

    def crop(self, kind: Kind) -> int:
        """How many tokens, the begin-of-text token included, the template puts before the prompt (95 and 36 officially)."""
        return len(self.llm_tokenizer(template_prefix(kind))["input_ids"])

    @torch.no_grad()
    def encode(self, prompts: list[str], kind: Kind = "video") -> TextFeatures:
        """Encode prompts; an empty one is legal. `L` is the longest prompt's length, at most 256 (what is longer is cut, with a warning).

        A prompt's features do not depend on the others in its batch.
        """
        if not prompts:
            raise ValueError("No prompts were given: encode needs at least one, which may be the empty string.")
        prompts = [prompt.strip() for prompt in prompts]
        crop = self.crop(kind)
        ids, cut = tokenize(self.llm_tokenizer, [TEMPLATES[kind].format(prompt) for prompt in prompts], crop + MAX_TEXT_TOKENS)
        for prompt, count in zip(prompts, cut, strict=True):
            if count:
                log.warning(
                    "The prompt %.40r... is too long: its last %d tokens were cut (the model reads %d).", prompt, count, MAX_TEXT_TOKENS
                )
        lengths = torch.tensor([len(row) - crop for row in ids])
        states = llm_states(self.llm, pad(ids, self.llm))[:, crop:]
        mask = torch.arange(states.shape[1]) < lengths[:, None]
        # CLIP's cut is not worth a warning: any detailed prompt is longer than 77 tokens, and the MLLM reads all of it.
        clip_ids, _ = tokenize(self.clip_tokenizer, prompts, MAX_CLIP_TOKENS)
        return TextFeatures(states, mask.to(states.device), clip_pooled(self.clip, pad(clip_ids, self.clip)))


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str], limit: int) -> tuple[list[list[int]], list[int]]:
    """Each text's ids, at most `limit` with the tokenizer's own special tokens, and how many ids each lost on the right."""
    whole = tokenizer(texts, verbose=False)["input_ids"]
    kept = tokenizer(texts, truncation=True, max_length=limit, truncation_side="right")["input_ids"]
    return kept, [len(a) - len(b) for a, b in zip(whole, kept, strict=True)]


def pad(ids: Sequence[Sequence[int]], model: nn.Module) -> Int[Tensor, "B N"]:
    """Pad on the right to the longest row. Which id pads does not matter (see `llm_states`), so the tokenizer needs no pad token."""
    device = next(model.parameters()).device
    return pad_sequence([torch.tensor(row) for row in ids], batch_first=True, padding_value=0).to(device)


def load_text_encoder(
    llm_dir: Path | str, clip_dir: Path | str, dtype: torch.dtype = torch.float16, device: torch.device | str = "cpu"
) -> TextEncoder:
    """Load both encoders from Hugging Face folders (config, tokenizer, weights in safetensors or .bin).

    Only the parameters that are used are read: the last two Llama layers and CLIP's vision tower never enter memory.

    Raises:
        FileNotFoundError: a folder, or a file in it, is missing.
        ValueError: the folder holds the un-cut LLaVA, another kind of model, or weights that do not fit its config.
    """
    llm_dir, clip_dir = Path(llm_dir), Path(clip_dir)
    if (kind := _model_type(llm_dir)) == "llava":
        raise ValueError(
            f"{llm_dir} holds the whole LLaVA model, of which only the language model is used: extract that with the official tool, "
            f"hyvideo/utils/preprocess_text_encoder_tokenizer_utils.py --input_dir {llm_dir} --output_dir <folder>, then use its output."
        )
    if kind != "llama":
        raise ValueError(f"{llm_dir} holds a model of type {kind!r}; the text encoder must be of type 'llama'.")
    if (kind := _model_type(clip_dir)) not in ("clip", "clip_text_model"):
        raise ValueError(f"{clip_dir} holds a model of type {kind!r}; the second text encoder must be CLIP ('clip' or 'clip_text_model').")
    llm_tokenizer, clip_tokenizer = _load_tokenizer(llm_dir), _load_tokenizer(clip_dir)
    # Built on "meta": parameters take no memory until the file's own tensors become them. Buffers that are computed, not stored,
    # are made again for real.
    with torch.device("meta"):
        llm = without_skipped_layers(LlamaConfig.from_pretrained(llm_dir))
        clip = CLIPTextModel(CLIPTextConfig.from_pretrained(clip_dir))
    llm.rotary_emb = LlamaRotaryEmbedding(llm.config)
    clip.embeddings.register_buffer("position_ids", torch.arange(clip.config.max_position_embeddings)[None], persistent=False)

    num_layers = llm.config.num_hidden_layers

    def llm_name(key: str) -> str | None:
        key = re.sub(r"^model\.", "", key)  # saved with its language-model head, or without
        layer = re.match(r"layers\.(\d+)\.", key)
        unused = key in ("norm.weight", "lm_head.weight") or key.endswith("rotary_emb.inv_freq") or (layer and int(layer[1]) >= num_layers)
        return None if unused else key

    def clip_name(key: str) -> str | None:
        unused = re.match(r"vision_model\.|visual_projection\.|text_projection\.|logit_scale$", key) or key.endswith("position_ids")
        return None if unused else re.sub(r"^text_model\.", "", key)

    _load_weights(llm, llm_dir, llm_name, dtype)
    _load_weights(clip, clip_dir, clip_name, dtype)
    return TextEncoder(llm, clip, llm_tokenizer, clip_tokenizer).eval().requires_grad_(False).to(device)


def _model_type(folder: Path) -> str | None:
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no text encoder folder {folder}: see the README for where to download it.")
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} has no config.json: it must be a complete Hugging Face model folder.")
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")


def _load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json")):
        raise FileNotFoundError(f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.json): copy it beside the weights.")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def _load_weights(model: nn.Module, folder: Path, rename: Callable[[str], str | None], dtype: torch.dtype) -> None:
    """Make the folder's tensors the model's parameters, strictly: only keys for which `rename` gives None may be left over."""
    state = {}
    for file in _weight_files(folder):
        for key, read in _tensors(file):
            if (name := rename(key)) is not None:
                state[name] = read().to(dtype)
    expected = set(model.state_dict())
    if missing := sorted(expected - state.keys()):
        raise ValueError(f"The weights in {folder} lack {len(missing)} tensors that its config asks for, such as {missing[0]}.")
    if surplus := sorted(state.keys() - expected):
        raise ValueError(f"The weights in {folder} have {len(surplus)} tensors that its config does not know, such as {surplus[0]}.")
    model.load_state_dict(state, strict=True, assign=True)


def _weight_files(folder: Path) -> list[Path]:
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
            if absent := [shard for shard in shards if not (folder / shard).is_file()]:
                raise FileNotFoundError(f"{folder} is incomplete: {', '.join(absent)} of its {len(shards)} weight files are missing.")
            return [folder / shard for shard in shards]
        if (folder / name).is_file():
            return [folder / name]
    raise FileNotFoundError(f"{folder} has no weights (model.safetensors or pytorch_model.bin, whole or with an index).")


def _tensors(file: Path) -> Iterator[tuple[str, Callable[[], Tensor]]]:
    """(key, function that reads the tensor): an unused tensor is never read."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            for key in opened.keys():  # noqa: SIM118 (not a dict)
                yield key, lambda key=key: opened.get_tensor(key)
    else:
        # Only the zip format (torch >= 1.6) can be mapped rather than read whole.
        for key, tensor in torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file)).items():
            yield key, lambda tensor=tensor: tensor
