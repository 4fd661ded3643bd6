"""The training of the miniature's text encoders, in miniature: a few steps, then everything that does not depend on quality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.miniature.text import PREFIX_TOKENS, TextTraining, build_llm, scale_residual_stream, train
from hunyuan_video.models.text import Kind, TextEncoder

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
        assert "一只猫 qwzx" in tokenizer.decode(tokenizer("一只猫 qwzx")["input_ids"])


def test_case_does_not_matter(encoder: TextEncoder):
    torch.testing.assert_close(encoder.encode(["A CAT"]).states, encoder.encode(["a cat"]).states)


def test_end_of_text_has_the_largest_clip_id(encoder: TextEncoder):
    tokenizer = encoder.clip_tokenizer
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == len(tokenizer) - 1
    ids = tokenizer("word " * 200, truncation=True)["input_ids"]
    assert len(ids) == 77
    assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)


def test_scaling_the_stream_scales_every_state_and_no_prediction(encoder: TextEncoder):
    torch.manual_seed(0)
    llm = build_llm(SHORT, encoder.llm_tokenizer)
    for module in llm.modules():
        if isinstance(module, LlamaRMSNorm):
            module.variance_epsilon = 0.0  # the one constant in the network that has a size
    ids = torch.arange(10)[None]
    before = llm(ids, output_hidden_states=True)
    scale_residual_stream(llm, torch.tensor(3.0))
    after = llm(ids, output_hidden_states=True)
    for old, new in zip(before.hidden_states[:-1], after.hidden_states[:-1], strict=True):
        torch.testing.assert_close(new, 3 * old, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(after.last_hidden_state, before.last_hidden_state, atol=1e-4, rtol=1e-4)


def test_too_few_layers_are_refused():
    with pytest.raises(ValueError, match="llm_layers is 2"):
        TextTraining(llm_layers=2)
