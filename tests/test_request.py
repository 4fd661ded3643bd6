"""What is asked for, and what a file tells of itself: read once, checked, and back again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hunyuan_video.config import MAX_PROMPT_CHARACTERS, FullSampling, Runtime, Sampling
from hunyuan_video.request import Adapted, Adapter, BlockStrength, Picture, Provenance, Request, Rewriting, Strengths

# --- Adapters ---


@pytest.mark.parametrize(
    ("text", "path", "strength"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("loras/a.safetensors:0.8", "loras/a.safetensors", 0.8),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0),
        (r"C:\loras\a.safetensors:.5", r"C:\loras\a.safetensors", 0.5),
    ],
)
def test_a_lora_is_a_file_and_perhaps_a_strength(text, path, strength):
    assert Adapter.parse(text) == Adapter(Path(path), Strengths(strength))


@pytest.mark.parametrize(
    ("text", "everywhere", "blocks"),
    [
        ("a.safetensors:0.8,single_blocks=0", 0.8, [("single_blocks", 0, None, 0.0)]),
        ("a.safetensors:single_blocks.7=-2", 1.0, [("single_blocks", 7, 7, -2.0)]),
        ("a.safetensors:0,double_blocks.0-9=1,double_blocks.3=.5", 0.0, [("double_blocks", 0, 9, 1.0), ("double_blocks", 3, 3, 0.5)]),
    ],
)
def test_a_lora_may_have_strengths_of_blocks(text, everywhere, blocks):
    assert Adapter.parse(text).strengths == Strengths(everywhere, tuple(BlockStrength(*part) for part in blocks))


def test_the_last_strength_of_a_block_counts():
    strengths = Strengths.parse("0.8,double_blocks.1-2=0.5,double_blocks.2=0,single_blocks=2")
    layers = ["double_blocks.0.a", "double_blocks.1.a", "double_blocks.2.a", "double_blocks.12.a", "single_blocks.30.a", "txt_in.a"]
    assert [strengths.at(layer) for layer in layers] == [0.8, 0.5, 0, 0.8, 2, 0.8]


def test_strengths_of_blocks_without_an_adapter_are_refused():
    strengths = Strengths.parse("double_blocks=1,single_blocks.3-9=0")
    strengths.check_layers(["double_blocks.0.a", "single_blocks.9.a"], "a.safetensors")
    with pytest.raises(ValueError, match=r"strength of single_blocks.3-9, but a\.safetensors adapts nothing there; leave that out"):
        strengths.check_layers(["double_blocks.0.a", "single_blocks.2.a"], "a.safetensors")


@pytest.mark.parametrize("tail", ["0.8,blocks=1", "0.8,0.5", "0.8,single_blocks.x=1", "0.8,single_blocks=", "single_blocks.1-=1"])
def test_blocks_that_are_not_understood_are_said_to_be_no_file(tail):
    with pytest.raises(FileNotFoundError, match=r"which is no file or folder; give FILE, FILE:STRENGTH, FILE:BLOCKS=STRENGTH or FILE"):
        Adapter.parse(f"a.safetensors:{tail}").check_file()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "it must be a file"),
        (":0.5", "it must be a file"),
        ("a.safetensors:nan", "the strength is nan; it must be finite"),
        ("b.safetensors:-inf", "the strength is -inf"),
        ("a.safetensors:1,single_blocks=1e999", "the strength of single_blocks is inf"),
        ("a.safetensors:single_blocks.9-3=1", "single_blocks.9-3 are no blocks"),
    ],
)
def test_an_impossible_lora_is_refused(text, sentence):
    with pytest.raises(ValueError, match=rf"^lora is '{text}'[;,].*{sentence}"):
        Adapter.parse(text)


# --- Requests ---


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"prompt": " "}, "The prompt is empty"),
        ({"negative_prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}, "The negative prompt has 10001 characters"),
        ({"prompt": 3}, "prompt is 3; it must be str"),
        ({"image": "cat.png"}, "image is 'cat.png'; it must be Picture or None"),
        ({"adapters": ("a.safetensors",)}, "it must be a tuple of Adapter"),
        ({"sampling": {"height": 64}}, "it must be Sampling"),
    ],
)
def test_an_impossible_request_is_refused(parts, sentence):
    with pytest.raises(ValueError, match=sentence):
        Request(**{"prompt": "A cat."} | parts)


def test_an_empty_negative_prompt_is_one():
    assert Request("A cat.", negative_prompt="").negative_prompt == ""


def test_pictures_of_the_same_pixels_are_equal_and_hash_alike():
    a, b, other = (Picture(np.full((4, 6, 3), level, np.uint8)) for level in (1, 1, 2))
    assert a == b and hash(a) == hash(b) and a != other and a != "a"


@pytest.mark.parametrize(
    ("pixels", "what"),
    [
        (np.zeros((4, 6, 4), np.uint8), "uint8 [4, 6, 4]"),
        (np.zeros((4, 6, 3)), "float64 [4, 6, 3]"),
        (np.zeros((0, 6, 3), np.uint8), "uint8 [0, 6, 3]"),
        ("cat.png", "str"),
    ],
)
def test_what_is_no_picture_is_refused(pixels, what):
    with pytest.raises(ValueError, match=re.escape(f"The picture is {what}; it must be uint8 [H, W, 3]")):
        Picture(pixels)


def test_a_picture_does_not_change_with_the_array_it_was_made_of():
    pixels = np.zeros((4, 6, 3), np.uint8)
    picture = Picture(pixels)
    pixels[:] = 9
    assert picture == Picture(np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(ValueError, match="read-only"):
        picture.pixels[0] = 1


def test_numbered_requests_count_their_seeds_up():
    assert [request.sampling.seed for request in Request("A cat.", Sampling(seed=5)).numbered(3)] == [5, 6, 7]
    assert [request.sampling.seed for request in Request("A cat.").numbered(2)] == [None, None]


def test_what_a_request_leaves_open_is_settled_over_the_weights_settings():
    weights = FullSampling(height=64, width=96, num_frames=33, guidance=None, shift=3.0)
    assert Request("A cat.", Sampling(num_steps=9, seed=7)).complete(weights) == replace(weights, num_steps=9, seed=7)


def test_a_picture_that_nothing_follows_is_refused_also_where_the_weights_say_so():
    request = Request("A cat.", image=Picture(np.zeros((16, 16, 3), np.uint8)))
    with pytest.raises(ValueError, match="image is given, but num_frames is 1"):
        request.complete(FullSampling(num_frames=1))


# --- Provenance ---

MADE = Provenance(
    prompt="A cat.",
    negative_prompt="blurry",
    sampling=FullSampling(height=64, width=96, guidance=None, cfg_scale=2.0, seed=7),
    runtime=Runtime(fp8=True, offload="blocks"),
    model="0123456789abcdef",
    transformer="mp_rank_00_model_states.pt",
    load_key="ema",
    device="cpu",
    hunyuan_video="0.1.0",
    torch="2.13.0",
    image_sha256="00",
    adapters=(Adapted("a.safetensors", "11", Strengths.parse("0.5,single_blocks.1-3=0,double_blocks=2")),),
    frames_sha256="22",
)


def test_a_rewritten_prompt_comes_back_with_what_was_typed():
    made = replace(MADE, rewriting=Rewriting("一只猫", "normal", "offline"))
    assert Provenance.from_json(json.loads(json.dumps(made.to_json())), Path("a.mp4")) == made


def test_a_file_that_knows_nothing_of_rewriting_is_read():
    values = MADE.to_json()
    del values["rewriting"]
    assert Provenance.from_json(values, Path("a.mp4")) == MADE


def test_what_a_file_tells_of_itself_comes_back_as_it_was():
    assert Provenance.from_json(json.loads(json.dumps(MADE.to_json())), Path("a.mp4")) == MADE


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"magic": 1}, "it has 'magic'"),
        ({"prompt": None}, "prompt is None; it must be str"),
        ({"sampling": {"height": 100}}, "height is 100; it must be a positive multiple"),
        ({"sampling": {"image": "/dev/zero"}}, "sampling has 'image'"),
        ({"sampling": 3}, "sampling is a int"),
        ({"runtime": {"lora": ["/dev/zero"]}}, "runtime has 'lora'"),
        ({"adapters": 5}, "not iterable"),
        ({"adapters": [{"name": "a", "sha256": "b", "strengths": {"everywhere": "x", "blocks": []}}]}, "everywhere is 'x'"),
        (
            {"adapters": [{"name": "a", "sha256": "b", "strengths": {"everywhere": 1.0, "blocks": [{"kind": "all"}]}}]},
            "a strength of blocks lacks first, last, strength",
        ),
        ({"adapters": ["a"]}, "an adapter is a str"),
        ({"adapters": [{"name": "a", "sha256": "b", "strengths": {"everywhere": float("nan"), "blocks": []}}]}, "the strength is nan"),
        ({"sampling": {"height": 64}}, "sampling lacks seed"),
        ({"sampling": MADE.to_json()["sampling"] | {"num_steps": None}}, "num_steps is None; it must be int"),
        ({"load_key": "/etc"}, "load_key is '/etc'; it must be module, ema"),
        ({"frames_sha256": 1}, "frames_sha256 is 1"),
        ({"rewriting": "offline"}, "rewriting is a str"),
        ({"rewriting": {"original": "a", "mode": "best", "backend": "b"}}, "mode is 'best'; it must be normal, master"),
    ],
)
def test_settings_of_a_stranger_are_checked_as_a_users_are(change, sentence):
    with pytest.raises(
        ValueError, match=rf"^a\.mp4 holds settings that this version cannot use \(.*{re.escape(sentence)}.*'0\.1\.0', or an"
    ):
        Provenance.from_json(MADE.to_json() | change, Path("a.mp4"))


@pytest.mark.parametrize("missing", ["prompt", "sampling", "model", "device"])
def test_settings_that_are_not_complete_are_refused(missing):
    values = MADE.to_json()
    del values[missing]
    with pytest.raises(ValueError, match=rf"cannot use \(it lacks {missing}\)"):
        Provenance.from_json(values, Path("a.mp4"))


@pytest.mark.parametrize("values", [[], "text", None])
def test_what_is_no_set_of_settings_is_refused(values):
    with pytest.raises(ValueError, match=r"cannot use .*version 'unknown', or an earlier state of it, wrote them"):
        Provenance.from_json(values, Path("a.mp4"))


def test_provenance_of_latents_has_no_frames():
    assert Provenance.from_json(replace(MADE, frames_sha256=None).to_json(), Path("a")).frames_sha256 is None


def test_what_a_stranger_wrote_reaches_no_terminal_as_it_is():
    with pytest.raises(ValueError, match=r"version '\\x1b\[31m9'"):
        Provenance.from_json({"hunyuan_video": "\x1b[31m9"}, Path("a.mp4"))
