"""The text encoders: the golden states, batching, cutting, and loading from Hugging Face folders. All tiny, all offline."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_checkpoint import LLM_SPECIALS, save_text_encoders
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
)

from hunyuan_video.models.text import (
    MAX_TEXT_TOKENS,
    Kind,
    TextEncoder,
    TextFeatures,
    clip_pooled,
    llm_states,
    load_text_encoder,
    template_prefix,
    without_skipped_layers,
)


def test_llm_states_match_golden(golden):
    expected = golden("text_llama")
    config = dict(expected.info["config"])
    crop = config.pop("crop_start")
    assert config.pop("hidden_state_skip_layer") == 2
    llm = without_skipped_layers(LlamaConfig(**config, bos_token_id=1, eos_token_id=2))
    weights = expected.state_dict()
    llm.load_state_dict({key: weights[key] for key in llm.state_dict()})
    mask = expected["out.prompt_mask"].bool()
    states = llm_states(llm, expected["in.input_ids"])[:, crop:]
    expected.check(torch.where(mask[:, :, None], states, expected["out.prompt_embeds"]), "out.prompt_embeds")


def test_clip_pooled_matches_golden(golden):
    expected = golden("text_clip")
    config = dict(expected.info["config"])
    config["max_position_embeddings"] = config.pop("max_length")
    clip = CLIPTextModel(CLIPTextConfig(**config, bos_token_id=48, eos_token_id=49, pad_token_id=49)).eval()
    clip.load_state_dict({key.removeprefix("text_model."): value for key, value in expected.state_dict().items()})
    expected.check(clip_pooled(clip, expected["in.input_ids"]), "out.pooled")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return save_text_encoders(tmp_path_factory.mktemp("ckpts"))


@pytest.fixture(scope="module")
def encoder(folders: tuple[Path, Path]) -> TextEncoder:
    return load_text_encoder(*folders, dtype=torch.float32)


def copy_of(folder: Path, to: Path, *, without: str = "") -> Path:
    to.mkdir()
    for file in folder.iterdir():
        if file.name != without:
            (to / file.name).write_bytes(file.read_bytes())
    return to


def test_loading_prints_and_logs_nothing(folders: tuple[Path, Path], capfd: pytest.CaptureFixture[str]):
    load_text_encoder(*folders)
    assert capfd.readouterr() == ("", "")


def test_states_are_those_of_the_third_last_hidden_state(encoder: TextEncoder, folders: tuple[Path, Path]):
    whole = LlamaModel.from_pretrained(folders[0])
    ids = torch.tensor([encoder.llm_tokenizer(template_prefix("video") + "a cat<|eot_id|>")["input_ids"]])
    expected = whole(ids, output_hidden_states=True).hidden_states[-3][:, encoder.crop("video") :]
    torch.testing.assert_close(encoder.encode(["a cat"]).states, expected)


def test_pooled_is_that_of_transformers(encoder: TextEncoder, folders: tuple[Path, Path]):
    ids = torch.tensor([encoder.clip_tokenizer("a cat")["input_ids"]])
    expected = CLIPTextModel.from_pretrained(folders[1])(ids).pooler_output
    torch.testing.assert_close(encoder.encode(["a cat"]).pooled, expected)


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


def test_longest_prompt_that_fits_gives_no_warning(encoder: TextEncoder, caplog: pytest.LogCaptureFixture):
    encoder.encode(["x" * (MAX_TEXT_TOKENS - 1)])
    assert not caplog.records


def test_no_prompts_are_refused(encoder: TextEncoder):
    with pytest.raises(ValueError, match="at least one"):
        encoder.encode([])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_low_precision_is_near_float32(folders: tuple[Path, Path], encoder: TextEncoder, dtype: torch.dtype):
    features = load_text_encoder(*folders, dtype=dtype).encode(["a cat", "a big dog"])
    assert features.states.dtype == features.pooled.dtype == dtype
    exact = encoder.encode(["a cat", "a big dog"])
    features = features.to("cpu", torch.float32)
    torch.testing.assert_close(features.states[features.mask], exact.states[exact.mask], atol=0.02, rtol=0.05)
    torch.testing.assert_close(features.pooled, exact.pooled, atol=0.05, rtol=0.05)


def test_features_move_as_one(encoder: TextEncoder):
    moved = encoder.encode(["a cat"]).to("cpu", torch.bfloat16)
    assert isinstance(moved, TextFeatures)
    assert (moved.states.dtype, moved.mask.dtype, moved.pooled.dtype) == (torch.bfloat16, torch.bool, torch.bfloat16)


def test_bin_weights_load_alike(folders: tuple[Path, Path], encoder: TextEncoder, tmp_path: Path):
    dirs = [copy_of(folder, tmp_path / folder.name, without="model.safetensors") for folder in folders]
    for folder, to in zip(folders, dirs, strict=True):
        torch.save(load_file(folder / "model.safetensors"), to / "pytorch_model.bin")
    loaded = load_text_encoder(*dirs, dtype=torch.float32)
    torch.testing.assert_close(loaded.encode(["a cat"]).states, encoder.encode(["a cat"]).states)
    torch.testing.assert_close(loaded.encode(["a cat"]).pooled, encoder.encode(["a cat"]).pooled)


def test_sharded_weights_load_alike(folders: tuple[Path, Path], encoder: TextEncoder, tmp_path: Path):
    sharded = copy_of(folders[0], tmp_path / "sharded", without="model.safetensors")
    LlamaForCausalLM.from_pretrained(folders[0]).save_pretrained(sharded, max_shard_size="20KB")
    assert (sharded / "model.safetensors.index.json").is_file()
    loaded = load_text_encoder(sharded, folders[1], dtype=torch.float32)
    torch.testing.assert_close(loaded.encode(["a cat"]).states, encoder.encode(["a cat"]).states)
    next(sharded.glob("model-*.safetensors")).unlink()
    with pytest.raises(FileNotFoundError, match="incomplete"):
        load_text_encoder(sharded, folders[1])


def test_uncut_llava_is_refused_with_the_tool_to_use(folders: tuple[Path, Path], tmp_path: Path):
    llava = copy_of(folders[0], tmp_path / "llava")
    (llava / "config.json").write_text(json.dumps({"model_type": "llava"}))
    with pytest.raises(ValueError, match=r"preprocess_text_encoder_tokenizer_utils\.py"):
        load_text_encoder(llava, folders[1])


def test_swapped_folders_are_refused(folders: tuple[Path, Path]):
    with pytest.raises(ValueError, match="'llama'"):
        load_text_encoder(folders[1], folders[0])


def test_missing_folder_is_named(folders: tuple[Path, Path], tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"There is no text encoder folder .*absent"):
        load_text_encoder(tmp_path / "absent", folders[1])


@pytest.mark.parametrize(
    ("name", "message"),
    [("config.json", "no config.json"), ("tokenizer.json", "no tokenizer"), ("model.safetensors", "no weights")],
)
def test_missing_file_is_named(folders: tuple[Path, Path], tmp_path: Path, name: str, message: str):
    with pytest.raises(FileNotFoundError, match=message):
        load_text_encoder(copy_of(folders[0], tmp_path / "broken", without=name), folders[1])


def test_missing_or_surplus_weights_are_an_error(folders: tuple[Path, Path], tmp_path: Path):
    broken = copy_of(folders[0], tmp_path / "broken", without="model.safetensors")
    weights = load_file(folders[0] / "model.safetensors")
    torch.save({key: value for key, value in weights.items() if "layers.1.mlp" not in key}, broken / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"lack 3 tensors .* layers\.1\.mlp"):
        load_text_encoder(broken, folders[1])
    torch.save(weights | {"model.adapter.weight": torch.zeros(1)}, broken / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"have 1 tensors .* adapter\.weight"):
        load_text_encoder(broken, folders[1])
