"""The miniature's text encoders: two small tokenizers, a small Llama and a small CLIP, trained on the world's captions.

They are trained before the diffusion model and alone, in minutes: a diffusion model that must learn to read while it learns
to draw learns neither for a long time. The Llama predicts the next token, and the *state the diffusion model will see* (two layers
below the top, without the final norm) must tell all slots of a scene (subject, motion, background …) apart; so must CLIP's pooled state.

Letters: B captions, N tokens.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.miniature.world import SLOTS, Scene, sample_scene, sometimes_with_unknown_words, with_unknown_words
from hunyuan_video.models.clip import CLIPText, CLIPTextConfig
from hunyuan_video.models.llama import Llama, LlamaConfig, turns
from hunyuan_video.models.text import (
    MAX_CLIP_TOKENS,
    SKIPPED_LAYERS,
    TEMPLATES,
    TextEncoder,
    clip_pooled,
    cut,
    template_prefix,
)

log = logging.getLogger(__name__)

KINDS = tuple(TEMPLATES)
LLM_START, LLM_END = "<|begin_of_text|>", "<|eot_id|>"
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
HEADS = 2  # of either encoder's attention
HELD_OUT_SHARE = 0.1  # of the combinations
PREFIX_TOKENS = 2  # begin of text, and the whole template prefix: see build_llm_tokenizer


@dataclass(frozen=True)
class TextTraining:
    """Settings of the text encoders' training; the defaults take about four minutes of one CPU core."""

    seed: int = 0
    num_steps: int = 600
    batch_size: int = 64
    learning_rate: float = 2e-3
    vocab_size: int = 640
    tokenizer_captions: int = 4000
    fresh_captions: int = 2000
    hidden_size: int = 128
    mlp_size: int = 256
    llm_layers: int = 4
    clip_layers: int = 2

    def __post_init__(self) -> None:
        if self.llm_layers <= SKIPPED_LAYERS:
            raise ValueError(f"llm_layers is {self.llm_layers}; it must be more than {SKIPPED_LAYERS}, which the diffusion model skips.")
        if self.num_steps < 1 or self.batch_size < 1:
            raise ValueError(f"num_steps and batch_size must be positive, not {self.num_steps} and {self.batch_size}.")


def train(config: TextTraining, folder: Path | str) -> dict[str, float]:
    """Train both encoders and write `text_encoder/` and `text_encoder_2/` into `folder`. The same config gives the same weights.

    Returns the share of fresh captions that each saved encoder understands entirely, also among unknown words (see `accuracy`).
    """
    folder = Path(folder)
    captions = [scene.caption for scene in scenes(config.seed, "tokenizer", config.tokenizer_captions)]
    llm_tokenizer = build_llm_tokenizer(captions, config.vocab_size)
    clip_tokenizer = build_clip_tokenizer(captions, config.vocab_size)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        llm, clip = build_llm(config, llm_tokenizer.get_vocab_size()), build_clip(config, clip_tokenizer.get_vocab_size())
        llm_heads, clip_heads = Heads(config.hidden_size), Heads(config.hidden_size)

    parameters = [parameter for module in (llm, clip, llm_heads, clip_heads) for parameter in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, betas=(0.9, 0.97), weight_decay=0.01)
    warmup = min(50, config.num_steps)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / warmup, 2 * (1 - step / config.num_steps)),  # constant, then linear to zero
    )
    bar = tqdm(range(config.num_steps), desc="text encoders", unit="step", mininterval=2.0)
    for step in bar:
        batch = make_batch(config, step, llm_tokenizer, clip_tokenizer)
        states, top = llm_states_and_top(llm, batch.llm_ids)
        scores = top[:, :-1] @ llm.embed_tokens.weight.T
        next_token = F.cross_entropy(scores[batch.text_mask[:, 1:]], batch.llm_ids[:, 1:][batch.text_mask[:, 1:]])
        llm_loss = llm_heads.loss(mean_of_text(states, batch.text_mask), batch.labels)
        clip_loss = clip_heads.loss(clip_pooled(clip, batch.clip_ids), batch.labels)
        optimizer.zero_grad(set_to_none=True)
        (0.5 * next_token + llm_loss + clip_loss).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        bar.set_postfix(next_token=f"{next_token.item():.3f}", llm=f"{llm_loss.item():.3f}", clip=f"{clip_loss.item():.3f}", refresh=False)

    with torch.no_grad():
        sample = make_batch(config, config.num_steps - 1, llm_tokenizer, clip_tokenizer)
        size = llm_states_and_top(llm, sample.llm_ids)[0][sample.text_mask].square().mean().sqrt()
        scale_residual_stream(llm, 1 / size)
        for slot in llm_heads.slots:
            slot.get_parameter("weight").mul_(size)
    save(llm, llm_tokenizer, folder / "text_encoder", (LLM_START, LLM_END))
    save(clip, clip_tokenizer, folder / "text_encoder_2", (CLIP_START, CLIP_END))

    # Judged as it will be used: the saved folders, read by the pipeline's own loader.
    encoder = load_text_encoder(folder / "text_encoder", folder / "text_encoder_2", torch.float32)
    fresh, rng = scenes(config.seed, "fresh", config.fresh_captions), np.random.default_rng(config.seed)
    plain = accuracy(encoder, llm_heads, clip_heads, fresh, [scene.caption for scene in fresh])
    strange = accuracy(encoder, llm_heads, clip_heads, fresh, [with_unknown_words(scene.caption, rng) for scene in fresh])
    log.info("every slot right: %s of fresh captions, %s with unknown words", plain, strange)
    return plain | {f"{name}_unknown_words": value for name, value in strange.items()}


# Tokenizers


def build_llm_tokenizer(captions: Sequence[str], vocab_size: int) -> Tokenizer:
    """A tokenizer that knows each official template prefix as *one* token, so the full model's code path costs the miniature two tokens."""
    prefixes = [template_prefix(kind) for kind in KINDS]
    tokenizer = _byte_pairs(captions, vocab_size, specials=[*prefixes, LLM_START, LLM_END])
    start = (LLM_START, tokenizer.token_to_id(LLM_START))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{LLM_START} $A", special_tokens=[start])
    return tokenizer


def build_clip_tokenizer(captions: Sequence[str], vocab_size: int) -> Tokenizer:
    """CLIP's conventions: start and end of text around the caption, the end having the largest id, by which the pooled state is found."""
    tokenizer = _byte_pairs(captions, vocab_size, specials=[CLIP_START, CLIP_END])
    ids = [(token, tokenizer.token_to_id(token)) for token in (CLIP_START, CLIP_END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{CLIP_START} $A {CLIP_END}", special_tokens=ids)
    return tokenizer


def _byte_pairs(captions: Sequence[str], vocab_size: int, specials: Sequence[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])  # case never tells scenes apart
    # The added space makes a word the same token at the start of a caption as inside one.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(  # all 256 bytes are in the vocabulary, so any text has tokens
        vocab_size=vocab_size - len(specials), initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in specials])  # last, so with the largest ids
    return tokenizer


# Models


def build_llm(config: TextTraining, vocab_size: int) -> Llama:
    llm = Llama(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=config.hidden_size,
            intermediate_size=config.mlp_size,
            num_hidden_layers=config.llm_layers,
            num_attention_heads=HEADS,
            num_key_value_heads=HEADS,
            head_dim=config.hidden_size // HEADS,
        )
    )
    for layer in llm.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            layer.weight.data.normal_(0, 0.06)  # the usual 0.02 is for wide models
    return llm


def build_clip(config: TextTraining, vocab_size: int) -> CLIPText:
    """Begun as CLIP was: narrower where residuals add up."""
    width, depth = config.hidden_size, config.clip_layers
    clip = CLIPText(
        CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=width,
            intermediate_size=config.mlp_size,
            num_hidden_layers=depth,
            num_attention_heads=HEADS,
        )
    )
    for name, layer in clip.named_modules():
        if isinstance(layer, nn.Embedding):
            layer.weight.data.normal_(0, 0.02)
        elif isinstance(layer, nn.Linear):
            into_residual = (2 * depth) ** -0.5 if name.endswith(("q_proj", "k_proj", "v_proj", "fc2")) else 1.0
            layer.weight.data.normal_(0, into_residual * ((2 * width) ** -0.5 if name.endswith("fc1") else width**-0.5))
            layer.bias.data.zero_()
    return clip


def llm_states_and_top(llm: Llama, ids: Int[Tensor, "B N"]) -> tuple[Float[Tensor, "B N hidden"], Float[Tensor, "B N hidden"]]:
    """The states that the diffusion model will read, and the normed last ones, from which the next token is predicted."""
    states = [llm.embed_tokens(ids)]
    by = turns(llm.config, ids.shape[1], states[0])
    for layer in llm.layers:
        states.append(layer(states[-1], by))
    return states[-1 - SKIPPED_LAYERS], llm.norm(states[-1])


def mean_of_text(states: Float[Tensor, "B N hidden"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B hidden"]:
    weights = mask.to(states.dtype)
    return torch.einsum("bnh,bn->bh", states, weights) / weights.sum(dim=1, keepdim=True)


@torch.no_grad()
def scale_residual_stream(llm: Llama, factor: Float[Tensor, ""]) -> None:
    """Multiply every hidden state by `factor` and change nothing else: each layer reads the stream through an RMSNorm, which forgets scale.

    The diffusion model reads the raw stream, whose size training leaves to chance.
    """
    llm.embed_tokens.weight.mul_(factor)
    for layer in llm.layers:
        layer.get_parameter("self_attn.o_proj.weight").mul_(factor)
        layer.get_parameter("mlp.down_proj.weight").mul_(factor)


class Heads(nn.Module):
    """One linear classifier a slot of a scene; they are thrown away after training."""

    def __init__(self, hidden_size: int):
        super().__init__()
        self.slots = nn.ModuleList(nn.Linear(hidden_size, len(values)) for values in SLOTS.values())

    def forward(self, features: Float[Tensor, "B hidden"]) -> list[Float[Tensor, "B _"]]:
        return [slot(features) for slot in self.slots]

    def loss(self, features: Float[Tensor, "B hidden"], labels: Int[Tensor, "B slots"]) -> Float[Tensor, ""]:
        return torch.stack([F.cross_entropy(scores, label) for scores, label in zip(self(features), labels.T, strict=True)]).sum()


# Captions


def scenes(seed: int, purpose: str, count: int) -> list[Scene]:
    """Scenes of every combination: the text encoders may know those that the videos never show, as any language model does."""
    rng = random.Random(f"{seed} {purpose}")
    return [sample_scene(rng.randrange(2**31), "held_out" if rng.random() < HELD_OUT_SHARE else "train") for _ in range(count)]


class Batch(NamedTuple):
    """Captions for both encoders; `text_mask` is True at the real tokens that the diffusion model reads, so not at the template's."""

    llm_ids: Int[Tensor, "B N"]
    text_mask: Bool[Tensor, "B N"]
    clip_ids: Int[Tensor, "B M"]
    labels: Int[Tensor, "B slots"]


def make_batch(config: TextTraining, step: int, llm_tokenizer: Tokenizer, clip_tokenizer: Tokenizer) -> Batch:
    """The captions of one training step, a function of seed and step; half of them ask for an image."""
    rng = random.Random(f"{config.seed} batch {step}")
    drawn = scenes(config.seed, f"batch {step}", config.batch_size)
    words = np.random.default_rng([config.seed, step])
    captions = [sometimes_with_unknown_words(scene.caption, words) for scene in drawn]
    llm_ids = [llm_tokenizer.encode(TEMPLATES[rng.choice(KINDS)].format(caption)).ids for caption in captions]
    clip_ids = [clip_tokenizer.encode(caption).ids for caption in captions]
    clip_ids = [cut(row, MAX_CLIP_TOKENS, row[-1:]) for row in clip_ids]
    text_mask = pad_sequence([torch.ones(len(row), dtype=torch.bool) for row in llm_ids], batch_first=True)
    text_mask[:, :PREFIX_TOKENS] = False
    return Batch(
        pad_sequence([torch.tensor(row) for row in llm_ids], batch_first=True),
        text_mask,
        pad_sequence([torch.tensor(row) for row in clip_ids], batch_first=True),
        labels(drawn),
    )


def labels(drawn: Sequence[Scene]) -> Int[Tensor, "B slots"]:
    return torch.tensor([[values.index(getattr(scene, slot)) for slot, values in SLOTS.items()] for scene in drawn])


# The end of training


@torch.no_grad()
def accuracy(encoder: TextEncoder, llm_heads: Heads, clip_heads: Heads, drawn: Sequence[Scene], captions: list[str]) -> dict[str, float]:
    """The share of captions of which an encoder says every slot correctly."""
    features = encoder.encode(captions)
    found = {"llm": llm_heads(mean_of_text(features.states, features.mask)), "clip": clip_heads(features.pooled)}
    truth = labels(drawn)
    return {
        name: (torch.stack([s.argmax(dim=1) for s in scores], dim=1) == truth).all(dim=1).float().mean().item()
        for name, scores in found.items()
    }


def save(model: Llama | CLIPText, tokenizer: Tokenizer, folder: Path, ends: tuple[str, str]) -> None:
    """A Hugging Face folder with the weights in float16; of a text's first and last token transformers wants to know. The last one pads."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "model.safetensors"
    save_file({name: tensor.half() for name, tensor in model.state_dict().items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)  # safetensors makes it private; these weights are packaged for everybody
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = dict(zip(("bos_token", "eos_token", "pad_token"), (*ends, ends[1]), strict=True))
    ids = {f"{name}_id": tokenizer.token_to_id(token) for name, token in tokens.items()}
    config, settings = model.config.to_json() | ids | {"dtype": "float16"}, tokens | {"tokenizer_class": "PreTrainedTokenizerFast"}
    for name, content in (("config.json", config), ("tokenizer_config.json", settings)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
