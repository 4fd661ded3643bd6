"""A tiny random model saved as the official tree: every file, wrapper and name as published, only the sizes are small."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import torch
from measure import randomize
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    PreTrainedTokenizerFast,
)

from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE, VAEConfig

LLM_SPECIALS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
SEEING_SPECIALS = (*LLM_SPECIALS, "\n\n", "assistant", "<image>", "<pad>")  # to the official tokenizer, too, these are one token each


def byte_tokenizer(specials: tuple[str, ...], single: str) -> PreTrainedTokenizerFast:
    """One token a byte, then the special ones."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    ids = [(token, tokenizer.token_to_id(token)) for token in specials]
    tokenizer.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=specials[0], eos_token=specials[-1])


def llama_config() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=260, hidden_size=16, intermediate_size=24, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=1024, bos_token_id=256, eos_token_id=259,
    )  # fmt: skip


def clip_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=258, hidden_size=12, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=256, eos_token_id=257, pad_token_id=257,
    )  # fmt: skip


def save_text_encoders(root: Path) -> tuple[Path, Path]:
    """Both encoders, saved by transformers as the official tool saves them: a Llama with its head, and the whole of CLIP."""
    torch.manual_seed(0)
    LlamaForCausalLM(llama_config()).save_pretrained(root / "text_encoder")
    byte_tokenizer(LLM_SPECIALS, "<|begin_of_text|> $A").save_pretrained(root / "text_encoder")
    vision = {
        "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8, "patch_size": 4
    }  # fmt: skip
    CLIPModel(CLIPConfig(text_config=clip_config().to_dict(), vision_config=vision, projection_dim=8)).save_pretrained(
        root / "text_encoder_2"
    )
    byte_tokenizer(("<|startoftext|>", "<|endoftext|>"), "<|startoftext|> $A <|endoftext|>").save_pretrained(root / "text_encoder_2")
    return root / "text_encoder", root / "text_encoder_2"


def save_llava(text_encoder: Path, folder: Path, body: str, head: str, rest: tuple[str, ...]) -> None:
    """The un-cut LLaVA around a language model, under the names that an older or newer version of transformers gives its parts."""
    shutil.copytree(text_encoder, folder)
    language_model = load_file(folder / "model.safetensors")
    state = {name.replace("model.", body, 1).replace("lm_head.", head, 1): tensor for name, tensor in language_model.items()}
    save_file(state | {f"{part}weight": torch.ones(2, 2) for part in rest}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "llava", "text_config": config, "vision_config": {}}))


def llava_config() -> LlavaConfig:
    """Pictures of 36 tokens."""
    vision = CLIPVisionConfig(
        hidden_size=8, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=24, patch_size=4, projection_dim=8
    )
    text = llama_config().to_dict() | {"vocab_size": 264}
    return LlavaConfig(
        vision_config=vision.to_dict(), text_config=text, image_token_index=262, image_seq_length=36, pad_token_id=263,
        vision_feature_layer=-2, vision_feature_select_strategy="default",
    )  # fmt: skip


def seeing_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = byte_tokenizer(SEEING_SPECIALS, "<|begin_of_text|> $A")
    tokenizer.pad_token, tokenizer.padding_side = "<pad>", "right"
    return tokenizer


def save_seeing_encoder(folder: Path) -> LlavaForConditionalGeneration:
    """The un-cut LLaVA with random weights, as its authors' file names them."""
    torch.manual_seed(2)
    llava = LlavaForConditionalGeneration(llava_config()).eval()
    randomize(llava.model.vision_tower, seed=3, std=0.2)
    randomize(llava.model.multi_modal_projector, seed=4, std=0.2)
    llava.save_pretrained(folder)
    state = load_file(folder / "model.safetensors")
    official = {name.replace("vision_tower.", "vision_tower.vision_model."): tensor for name, tensor in state.items()}
    save_file(official, folder / "model.safetensors", metadata={"format": "pt"})
    seeing_tokenizer().save_pretrained(folder)
    return llava


VAE = VAEConfig(block_out_channels=(4, 4, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=2)
VAE_JSON = {
    "_class_name": "AutoencoderKLCausal3D",
    "block_out_channels": [4, 4, 8, 8],
    "layers_per_block": 1,
    "latent_channels": 4,
    "norm_num_groups": 2,
    "scaling_factor": 0.476986,
    "sample_size": 256,
    "sample_tsize": 64,
    "time_compression_ratio": 4,
    "spatial_compression_ratio": 8,
    "mid_block_add_attention": True,
}


def save_official_tree(root: Path, guidance_embed: bool = True) -> Path:
    """The whole of `ckpts/`, with random weights."""
    save_text_encoders(root)
    return _save_model(root, "hunyuan-video-t2v-720p", guidance_embed, in_channels=4)


def save_official_i2v_tree(root: Path, guidance_embed: bool = True, *, concat: bool = False) -> Path:
    """The same of the image-to-video model, in either of its two releases."""
    save_text_encoders(root)
    shutil.rmtree(root / "text_encoder")
    save_seeing_encoder(root / "text_encoder_i2v")
    return _save_model(root, "hunyuan-video-i2v-720p", guidance_embed, in_channels=9 if concat else 4)


def _save_model(root: Path, name: str, guidance_embed: bool, in_channels: int) -> Path:
    from conftest import TINY

    model = root / name
    (model / "transformers").mkdir(parents=True)
    (model / "vae").mkdir()
    sizes = replace(TINY, in_channels=in_channels, text_dim=16, pooled_dim=12, guidance_embed=guidance_embed)
    transformer = randomize(HunyuanVideoTransformer(sizes))
    torch.save({"module": transformer.state_dict()}, model / "transformers" / "mp_rank_00_model_states.pt")
    vae = randomize(CausalVAE(VAE), seed=1, std=0.2)
    torch.save({f"vae.{name}": tensor for name, tensor in vae.state_dict().items()}, model / "vae" / "pytorch_model.pt")
    (model / "vae" / "config.json").write_text(json.dumps(VAE_JSON))
    return root
