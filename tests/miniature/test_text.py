"""The training of the miniature's text encoders, in miniature: a few steps, then everything that does not depend on quality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer, CLIPTextModel

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.miniature.text import (
    CLIP_END,
    CLIP_START,
    PREFIX_TOKENS,
    TextTraining,
    build_llm,
    llm_states_and_top,
    scale_residual_stream,
    train,
)
from hunyuan_video.models.text import Kind, TextEncoder
from hunyuan_video.models.transformer import RMSNorm

SHORT = TextTraining(num_steps=5, batch_size=8, tokenizer_captions=200, fresh_captions=20, hidden_size=32, mlp_size=32)
KINDS = ("video", "image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    accuracies = train(SHORT, folder)
    assert all(0 <= value <= 1 for value in accuracies.values())
    return folder


@pytest.fixture(scope="module")
def encoder(folder: Path) -> TextEncoder:
    return load_text_encoder(folder / "text_encoder", folder / "text_encoder_2", torch.float32)


def test_saved_folders_encode(encoder: TextEncoder):
    features = encoder.encode(["A cat walks on the grass, realistic style.", "a dog"])
    assert features.states.shape[2] == features.pooled.shape[1] == SHORT.hidden_size
    assert not torch.allclose(features.pooled[0], features.pooled[1])


def test_states_have_unit_size(encoder: TextEncoder):
    features = encoder.encode(["A boat sails to the left over the sea", "a red car rolls right in the desert"])
    assert 0.7 < features.states[features.mask].square().mean().sqrt() < 1.4


def test_training_is_deterministic(folder: Path, tmp_path: Path):
    train(SHORT, tmp_path / "again")
    for file in sorted(folder.rglob("*.*")):
        assert (tmp_path / "again" / file.relative_to(folder)).read_bytes() == file.read_bytes(), file


def test_seed_matters(folder: Path, tmp_path: Path):
    train(replace(SHORT, seed=1), tmp_path)
    name = "text_encoder/model.safetensors"
    assert not torch.equal(
        load_file(folder / name)["layers.0.mlp.up_proj.weight"], load_file(tmp_path / name)["layers.0.mlp.up_proj.weight"]
    )


@pytest.mark.parametrize("kind", KINDS)
def test_template_is_one_token(encoder: TextEncoder, kind: Kind):
    assert encoder.crop(kind) == PREFIX_TOKENS == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("prompt", ["a xylophone qwzx", "一只猫在草地上走", "Ünïcödé 🐈\n\ttabs", "", "{braces} <|eot_id|>"])
def test_any_text_has_tokens_and_finite_features(encoder: TextEncoder, prompt: str, kind: Kind):
    features = encoder.encode([prompt], kind=kind)
    assert features.states.isfinite().all()
    assert features.pooled.isfinite().all()
    assert features.mask.sum() >= 1


def test_bytes_are_never_lost(encoder: TextEncoder):
    for tokenizer in (encoder.llm_tokenizer, encoder.clip_tokenizer):
        assert "一只猫 qwzx" in tokenizer.decode(tokenizer.encode("一只猫 qwzx").ids)


def test_case_does_not_matter(encoder: TextEncoder):
    torch.testing.assert_close(encoder.encode(["A CAT"]).states, encoder.encode(["a cat"]).states)


def test_end_of_text_has_the_largest_clip_id(encoder: TextEncoder):
    tokenizer = encoder.clip_tokenizer
    end = tokenizer.token_to_id(CLIP_END)
    assert end == tokenizer.get_vocab_size() - 1
    ids = tokenizer.encode("a word").ids
    assert (ids[0], ids[-1]) == (tokenizer.token_to_id(CLIP_START), end)


def test_scaling_the_stream_scales_every_state_and_no_prediction(encoder: TextEncoder):
    torch.manual_seed(0)
    llm = build_llm(SHORT, encoder.llm_tokenizer.get_vocab_size())
    for module in llm.modules():
        if isinstance(module, RMSNorm):
            module.eps = 0.0  # the one constant in the network that has a size
    ids = torch.arange(10)[None]
    states, top = llm_states_and_top(llm, ids)
    scale_residual_stream(llm, torch.tensor(3.0))
    scaled, same = llm_states_and_top(llm, ids)
    torch.testing.assert_close(scaled, 3 * states, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(same, top, atol=1e-4, rtol=1e-4)


def test_too_few_layers_are_refused():
    with pytest.raises(ValueError, match="llm_layers is 2"):
        TextTraining(llm_layers=2)


def test_what_is_saved_is_to_transformers_what_it_is_to_us(encoder: TextEncoder, folder: Path):
    """Its tokenizers pad, and its CLIP finds the end of a text."""
    prompts = ["a cat", "a much longer prompt"]
    llm_words, clip_words = (AutoTokenizer.from_pretrained(folder / name) for name in ("text_encoder", "text_encoder_2"))
    assert llm_words(prompts, padding=True)["attention_mask"][0][-1] == 0
    clip = CLIPTextModel.from_pretrained(folder / "text_encoder_2", dtype=torch.float32)
    pooled = clip(**clip_words(prompts, padding=True, return_tensors="pt")).pooler_output
    torch.testing.assert_close(pooled, encoder.pooled(prompts), atol=1e-5, rtol=1e-4)
