"""The text encoders: the golden states, templates, batching and cutting. All tiny, none from a file."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from measure import randomize
from tiny_checkpoint import LLM_SPECIALS, byte_tokenizer, clip_config, llama_config
from transformers import CLIPTextConfig as TheirCLIPTextConfig
from transformers import CLIPTextModel, LlamaModel
from transformers import LlamaConfig as TheirLlamaConfig

from hunyuan_video.models.clip import CLIPText, CLIPTextConfig
from hunyuan_video.models.llama import Llama, LlamaConfig
from hunyuan_video.models.text import (
    MAX_TEXT_TOKENS,
    Kind,
    TextEncoder,
    TextFeatures,
    clip_pooled,
    llm_states,
    template_prefix,
    without_skipped_layers,
)


def test_llm_states_match_golden(golden):
    expected = golden("text_llama")
    config = dict(expected.info["config"])
    crop = config.pop("crop_start")
    assert config.pop("hidden_state_skip_layer") == 2
    llm = without_skipped_layers(LlamaConfig.from_json(config))
    weights = expected.state_dict()
    llm.load_state_dict({key: weights[key] for key in llm.state_dict()})
    mask = expected["out.prompt_mask"].bool()
    states = llm_states(llm, expected["in.input_ids"])[:, crop:]
    expected.check(torch.where(mask[:, :, None], states, expected["out.prompt_embeds"]), "out.prompt_embeds")


def test_clip_pooled_matches_golden(golden):
    expected = golden("text_clip")
    config = dict(expected.info["config"])
    config["max_position_embeddings"] = config.pop("max_length")
    clip = CLIPText(CLIPTextConfig.from_json(config)).eval()
    clip.load_state_dict({key.removeprefix("text_model."): value for key, value in expected.state_dict().items()})
    expected.check(clip_pooled(clip, expected["in.input_ids"]), "out.pooled")


@pytest.fixture(scope="module")
def llama() -> LlamaModel:
    torch.manual_seed(0)
    return LlamaModel(llama_config()).eval()


@pytest.fixture(scope="module")
def theirs() -> CLIPTextModel:
    torch.manual_seed(2)
    return CLIPTextModel(clip_config()).eval()


@pytest.fixture(scope="module")
def encoder(llama: LlamaModel, theirs: CLIPTextModel) -> TextEncoder:
    torch.manual_seed(1)
    llm = without_skipped_layers(LlamaConfig.from_json(llama.config.to_dict()))
    llm.load_state_dict({name: llama.state_dict()[name] for name in llm.state_dict()})
    llm_tokenizer = byte_tokenizer(LLM_SPECIALS, "<|begin_of_text|> $A")
    clip_tokenizer = byte_tokenizer(("<|startoftext|>", "<|endoftext|>"), "<|startoftext|> $A <|endoftext|>")
    clip = CLIPText(CLIPTextConfig.from_json(theirs.config.to_dict()))
    clip.load_state_dict(theirs.state_dict())
    return TextEncoder(llm, clip, llm_tokenizer.backend_tokenizer, clip_tokenizer.backend_tokenizer).eval()


def test_states_are_those_of_the_third_last_hidden_state(encoder: TextEncoder, llama: LlamaModel):
    ids = torch.tensor([encoder.llm_tokenizer.encode(template_prefix("video") + "a cat<|eot_id|>").ids])
    expected = llama(ids, output_hidden_states=True).hidden_states[-3][:, encoder.crop("video") :]
    torch.testing.assert_close(encoder.encode(["a cat"]).states, expected)


def test_pooled_is_that_of_transformers(encoder: TextEncoder, theirs: CLIPTextModel):
    ids = torch.tensor([encoder.clip_tokenizer.encode("a cat").ids])
    torch.testing.assert_close(encoder.encode(["a cat"]).pooled, theirs(ids).pooler_output)


def test_batch_mates_change_nothing(encoder: TextEncoder):
    together = encoder.encode(["a cat", "a much longer prompt about a dog", ""])
    assert together.mask.sum(dim=1).tolist() == [6, 33, 1]
    assert together.states.shape == (3, 33, 16)
    for i, prompt in enumerate(["a cat", "a much longer prompt about a dog", ""]):
        alone = encoder.encode([prompt])
        assert alone.mask.all()
        torch.testing.assert_close(together.states[i][together.mask[i]], alone.states[0])
        torch.testing.assert_close(together.pooled[i], alone.pooled[0])


def test_equal_lengths_need_no_mask(encoder: TextEncoder):
    assert encoder.encode(["cat", "dog"]).mask.all()


def test_prompt_is_stripped(encoder: TextEncoder):
    torch.testing.assert_close(encoder.encode(["  a cat\n"]).states, encoder.encode(["a cat"]).states)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_crop_is_the_prefix_with_its_begin_token(encoder: TextEncoder, kind: Kind):
    text = template_prefix(kind)
    for token in LLM_SPECIALS:
        text = text.replace(token, "")
    assert encoder.crop(kind) == 1 + 5 + len(text)  # begin of text, five special tokens in the prefix, and one token a byte


def test_image_template_gives_other_states_and_the_same_length(encoder: TextEncoder):
    video, image = encoder.encode(["a cat"]), encoder.encode(["a cat"], kind="image")
    assert video.states.shape == image.states.shape
    assert not torch.allclose(video.states, image.states)
    torch.testing.assert_close(video.pooled, image.pooled)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_long_prompt_is_cut_with_one_warning(encoder: TextEncoder, kind: Kind, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        features = encoder.encode(["x" * 300], kind=kind)
    assert features.states.shape[1] == MAX_TEXT_TOKENS
    assert len(caplog.records) == 1
    assert "45 tokens were cut" in caplog.text  # 300 and the end of turn, of which 256 stay
    torch.testing.assert_close(features.states, encoder.encode(["x" * 400], kind=kind).states)


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_prompt_that_is_cut_keeps_its_templates_end(encoder: TextEncoder, kind: Kind):
    fits = "x" * (MAX_TEXT_TOKENS - 1)  # and the end of turn
    torch.testing.assert_close(encoder.encode([fits + "y" * 50], kind=kind).states, encoder.encode([fits], kind=kind).states)


def test_longest_prompt_that_fits_gives_no_warning(encoder: TextEncoder, caplog: pytest.LogCaptureFixture):
    encoder.encode(["x" * (MAX_TEXT_TOKENS - 1)])
    assert not caplog.records


def test_no_prompts_are_refused(encoder: TextEncoder):
    with pytest.raises(ValueError, match="at least one"):
        encoder.encode([])


def test_features_move_as_one(encoder: TextEncoder):
    moved = encoder.encode(["a cat"]).to("cpu", torch.bfloat16)
    assert isinstance(moved, TextFeatures)
    assert (moved.states.dtype, moved.mask.dtype, moved.pooled.dtype) == (torch.bfloat16, torch.bool, torch.bfloat16)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_states_of_clip_are_those_of_transformers(act: str):
    torch.manual_seed(3)
    theirs = CLIPTextModel(TheirCLIPTextConfig(**clip_config().to_dict() | {"hidden_act": act})).eval()
    ours = CLIPText(CLIPTextConfig.from_json(theirs.config.to_dict()))
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(0, 258, (2, 9))
    torch.testing.assert_close(ours(ids), theirs(ids).last_hidden_state)


@pytest.mark.parametrize("change", [{"attention_bias": True, "mlp_bias": True}, {"head_dim": 4}, {"rope_parameters": {"rope_theta": 1e6}}])
def test_states_of_a_llama_are_those_of_transformers(change: dict[str, Any]):
    torch.manual_seed(4)
    theirs = LlamaModel(TheirLlamaConfig(**llama_config().to_dict() | change)).eval()
    randomize(theirs)
    ours = Llama(LlamaConfig.from_json(theirs.config.to_dict()))
    ours.load_state_dict(theirs.state_dict())
    ids = torch.randint(0, 260, (2, 300))
    torch.testing.assert_close(ours(ids), theirs(ids).last_hidden_state, atol=1e-5, rtol=1e-4)


def test_what_is_written_of_a_llama_is_read_by_transformers_as_the_same():
    ours = LlamaConfig(hidden_size=48, num_attention_heads=4, num_key_value_heads=2, head_dim=12)
    theirs = TheirLlamaConfig.from_dict(ours.to_json())
    assert LlamaConfig.from_json(theirs.to_dict()) == ours == LlamaConfig.from_json(ours.to_json())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, r"its positions are scaled \(llama3\)"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, r"its positions are scaled \(linear\)"),
        ({"hidden_act": "gelu"}, "its activation is gelu; a Llama has silu"),
        ({"num_key_value_heads": 5}, "32 heads cannot share 5 heads of keys and values alike"),
        ({"hidden_size": 0}, "hidden_size is 0; it must be 1 or more"),
        ({"head_dim": 3}, "head_dim is 3; it must be even"),
    ],
)
def test_another_llama_than_can_be_computed_is_refused(change: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        LlamaConfig.from_json(change)


def test_a_clip_whose_heads_do_not_fit_is_refused():
    with pytest.raises(ValueError, match="512 features cannot be shared by 7 heads alike"):
        CLIPTextConfig.from_json({"num_attention_heads": 7})
