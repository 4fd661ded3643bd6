"""The un-cut LLaVA: prompts beside pictures, against Diffusers' image-to-video pipeline, whose models are the same file's."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_checkpoint import save_seeing_encoder, save_text_encoders, seeing_tokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from hunyuan_video.checkpoint import load_text_encoder
from hunyuan_video.checkpoint.seeing import load_seeing_text_encoder
from hunyuan_video.models.text import MAX_TEXT_TOKENS, TextFeatures
from hunyuan_video.models.vision import HEADER_TOKENS, STRIDES, TEMPLATE, LlavaConfig, SeeingTextEncoder, normalized

CPU = torch.device("cpu")
LONGEST = MAX_TEXT_TOKENS - HEADER_TOKENS - 1  # characters, one token each, behind which the whole of the template's end fits


def picture(seed: int = 0, height: int = 30, width: int = 44) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("seeing")
    return root, save_text_encoders(root)[1], save_seeing_encoder(root / "text_encoder_i2v")


def encoder_of(folders, stride: int) -> SeeingTextEncoder:
    return load_seeing_text_encoder(folders[0] / "text_encoder_i2v", folders[1], torch.float32, CPU, stride=stride)


@pytest.fixture(scope="module")
def encoder(folders) -> SeeingTextEncoder:
    return encoder_of(folders, 4)


def of_diffusers(llava, tokenizer, prompt: str, image: Image.Image, stride: int) -> tuple[torch.Tensor, torch.Tensor]:
    """States and mask as its pipeline makes them, with the places that our tiny tokenizer and tower have."""
    from diffusers import HunyuanVideoImageToVideoPipeline

    prefix = tokenizer(TEMPLATE.partition("{}")[0])["input_ids"]
    start, shown = prefix.index(llava.config.image_token_index), llava.config.image_seq_length
    places = {"crop_start": len(prefix), "image_emb_len": shown, "image_emb_start": start, "image_emb_end": start + shown}
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    own = SimpleNamespace(text_encoder=llava, tokenizer=tokenizer, image_processor=processor)
    with torch.no_grad():
        return HunyuanVideoImageToVideoPipeline._get_llama_prompt_embeds(
            own,  # pyright: ignore[reportArgumentType]
            image,  # pyright: ignore[reportArgumentType] (annotated as a tensor, and given to the processor)
            prompt,
            {"template": TEMPLATE, **places},
            device=CPU,
            dtype=torch.float32,
            image_embed_interleave=stride,
        )


def check_same(found: TextFeatures, states: torch.Tensor, mask: torch.Tensor) -> None:
    """Beside padding, which nothing looks at."""
    assert found.states.shape[1] == mask.sum()
    torch.testing.assert_close(found.states[0], states[0][mask[0].bool()], atol=1e-5, rtol=1e-5)


def test_the_template_is_that_of_diffusers():
    from diffusers.pipelines.hunyuan_video import pipeline_hunyuan_video_image2video as theirs

    assert theirs.DEFAULT_PROMPT_TEMPLATE["template"] == TEMPLATE


@pytest.mark.parametrize("stride", STRIDES.values())
@pytest.mark.parametrize("prompt", ["a cat\n\nturns its head", "", *("x" * (LONGEST + more) for more in range(6)), "x" * 400])
def test_states_and_mask_are_those_of_diffusers(folders, stride, prompt):
    found = encoder_of(folders, stride).encode_seeing([prompt], [picture()])
    check_same(found, *of_diffusers(folders[2], seeing_tokenizer(), prompt, picture(), stride))


def test_a_black_picture_beside_the_negative_prompt_is_as_in_diffusers_alone(folders, encoder):
    together = encoder.encode_seeing(["a cat", "blurry and long"], [picture(), Image.new("RGB", (44, 30))])
    states, mask = of_diffusers(folders[2], seeing_tokenizer(), "blurry and long", Image.new("RGB", (44, 30)), 4)
    second = TextFeatures(together.states[1:], together.mask[1:], together.pooled[1:])
    check_same(second, states, mask)
    assert together.mask.sum(dim=1).tolist() == [9 + 5 + 1, 9 + 15 + 1]  # of the picture, the prompt, and the blank line


def test_the_picture_and_the_prompt_both_matter(encoder):
    first, *others = (encoder.encode_seeing([prompt], [picture(seed)]).states for prompt, seed in (("cat", 0), ("dog", 0), ("cat", 1)))
    assert all((other - first).abs().max() > 1e-3 for other in others)


def test_a_word_of_the_prompt_is_no_second_picture(encoder):
    assert encoder.encode_seeing(["an <image> of a cat"], [picture()]).mask.all()


def test_pooled_is_that_of_the_prompt_alone(folders, encoder):
    blind = load_text_encoder(folders[0] / "text_encoder", folders[1], torch.float32)
    torch.testing.assert_close(encoder.encode_seeing(["a cat"], [picture()]).pooled, blind.encode(["a cat"]).pooled)


@pytest.mark.parametrize(("length", "lost"), [(LONGEST + 1, 0), (LONGEST + 3, 2)])
def test_what_is_cut_of_a_prompt_is_said(encoder, caplog, length, lost):
    with caplog.at_level(logging.WARNING):
        encoder.encode_seeing(["x" * length], [picture()])
    assert ([f"last {lost} tokens were cut (the model reads 252)" in line for line in caplog.messages] or [False]) == [lost > 0]


@pytest.mark.parametrize("prefix", ["vision_tower.vision_model.", "model.vision_tower.vision_model.", "vision_tower."])
def test_the_towers_tensors_are_found_under_every_name_they_had(folders, encoder, tmp_path, prefix):
    from shutil import copytree

    from safetensors.torch import load_file, save_file

    folder = copytree(folders[0] / "text_encoder_i2v", tmp_path / "text_encoder_i2v")
    state = load_file(folder / "model.safetensors")
    renamed = {name.replace("vision_tower.vision_model.", prefix): tensor for name, tensor in state.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    again = load_seeing_text_encoder(folder, folders[1], torch.float32, CPU, stride=4)
    torch.testing.assert_close(again.state_dict(), encoder.state_dict())


def test_a_language_model_that_sees_nothing_is_refused(folders):
    with pytest.raises(ValueError, match="of type 'llama', which sees no picture; image to video needs the un-cut LLaVA"):
        load_seeing_text_encoder(folders[0] / "text_encoder", folders[1], torch.float32, CPU, stride=4)


@pytest.mark.parametrize(("height", "width"), [(30, 44), (44, 30), (24, 24), (25, 24), (97, 31), (12, 17)])
def test_pixels_are_those_of_transformers(height, width):
    processor = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})
    expected = processor(picture(height=height, width=width), return_tensors="pt")["pixel_values"][0]
    torch.testing.assert_close(normalized(picture(height=height, width=width), 24), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 100)])
def test_of_a_narrow_picture_only_the_middle_is_enlarged(size, monkeypatch):
    narrow, sizes, resize = Image.new("RGB", size, (255, 0, 0)), [], Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *more: sizes.append(to) or resize(self, to, *more))
    assert normalized(narrow, 24).shape == (3, 24, 24)
    assert max(sizes[0]) <= 8 * 24


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"vision_config": {"model_type": "siglip_vision_model"}},
            "its tower is of type 'siglip_vision_model'; the official LLaVA's is CLIP's",
        ),
        ({"vision_feature_layer": -1}, r"read at layer -1 \(default\); the official LLaVA's are at -2"),
        ({"vision_feature_select_strategy": "full"}, r"read at layer -2 \(full\)"),
        ({"projector_hidden_act": "relu"}, "its projector's activation is relu; the official LLaVA's is gelu"),
    ],
)
def test_another_llava_than_the_official_one_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        LlavaConfig.from_json(change)


@pytest.mark.parametrize("vision", [{"projection_dim": 768}, {}, None])
def test_what_a_config_leaves_out_is_as_transformers_has_it(vision):
    """The official config.json names little of its text and of its tower."""
    from transformers import LlavaConfig as Theirs

    given = {
        "model_type": "llava",
        "text_config": {"vocab_size": 128320, "num_key_value_heads": 8},
        "vision_config": vision,
    }
    ours, theirs = LlavaConfig.from_json(given), Theirs.from_dict(given)
    for mine, other in ((ours.text, theirs.text_config), (ours.vision, theirs.vision_config)):
        assert (
            vars(mine).items() <= (other.to_dict() | {"rope_theta": other.to_dict().get("rope_parameters", {}).get("rope_theta")}).items()
        )
    assert (ours.image_token, ours.projector_bias) == (theirs.image_token_index, theirs.multimodal_projector_bias)
