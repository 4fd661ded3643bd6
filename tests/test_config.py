"""Settings are checked where they enter: one sentence saying what came and what is right."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hunyuan_video.config import MAX_PROMPT_CHARACTERS, Adapter, Output, Runtime, Sampling, check_prompt


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"height": 100}, "height is 100; it must be a positive multiple of 16, such as 96"),
        ({"width": 0}, "width is 0; it must be a positive multiple of 16, such as 16"),
        ({"height": -16}, "height is -16"),
        ({"num_frames": 128}, "num_frames is 128; it must be 4n .* 1, such as 129"),
        ({"num_frames": 0}, "num_frames is 0; .*such as 1"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"shift": 0.0}, "shift is 0.0; it must be above 0"),
        ({"shift": float("nan")}, "shift is nan"),
        ({"cfg_scale": 0.5}, "cfg_scale is 0.5; it must be 1"),
        ({"cfg_scale": float("inf")}, "cfg_scale is inf"),
        ({"guidance": -1.0}, "guidance is -1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed is 9223372036854775808"),
        ({"linear_steps": 50}, "linear_steps is 50; it must be below num_steps, 50"),
        ({"linear_steps": 1}, "at least a fortieth"),
        ({"schedule": "linear-quadratic", "num_steps": 1}, "num_steps of 2 or more"),
        ({"negative_prompt": "x" * (MAX_PROMPT_CHARACTERS + 1)}, "negative prompt has 10001 characters"),
    ],
)
def test_impossible_sampling_is_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Sampling(**setting)


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"fps": 0}, "fps is 0"),
        ({"crf": 60}, "between 0 and 51"),
        ({"format": "webm", "crf": 64}, "between 0 and 63"),
        ({"format": "gif", "crf": 1}, "gif has no such"),
    ],
)
def test_impossible_output_is_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Output(**setting)


@pytest.mark.parametrize(
    ("kind", "setting", "sentence"),
    [
        (Sampling, {"schedule": "cosine"}, "schedule is 'cosine'; it must be shift, linear-quadratic"),
        (Sampling, {"noise": "gpu"}, "noise is 'gpu'"),
        (Sampling, {"height": 64.0}, "height is 64.0; it must be int"),
        (Sampling, {"num_steps": True}, "num_steps is True; it must be int"),
        (Sampling, {"seed": "1"}, "seed is '1'; it must be int or None"),
        (Sampling, {"guidance": "high"}, "guidance is 'high'; it must be float or None"),
        (Runtime, {"dtype": "fp32"}, "dtype is 'fp32'; it must be auto, float32"),
        (Runtime, {"fp8": 1}, "fp8 is 1; it must be bool"),
        (Output, {"format": "avi"}, "format is 'avi'"),
    ],
)
def test_values_of_another_type_or_choice_are_refused(kind, setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        kind(**setting)


def test_to_multiply_in_8_bits_weights_must_be_in_8_bits():
    assert Runtime(fp8_matmul=True) == Runtime(fp8=True, fp8_matmul=True) != Runtime(fp8=True)


def test_a_whole_number_is_a_float():
    assert Sampling(shift=7, guidance=6).shift == 7


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "cuda:-1"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="it must be auto, cpu, cuda"):
        Runtime(device=device)


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
    assert Runtime(lora=(text,)).adapters == [Adapter(Path(path), strength)]
    assert Runtime(lora=[text, text]) == Runtime(lora=(text, text))  # pyright: ignore[reportArgumentType] (as JSON has it)


@pytest.mark.parametrize(
    ("text", "strength", "blocks"),
    [
        ("a.safetensors:0.8,single_blocks=0", 0.8, (("single_blocks", 0.0),)),
        ("a.safetensors:single_blocks.7=-2", 1.0, (("single_blocks.7", -2.0),)),
        ("a.safetensors:0,double_blocks.0-9=1,double_blocks.3=.5", 0.0, (("double_blocks.0-9", 1.0), ("double_blocks.3", 0.5))),
    ],
)
def test_a_lora_may_have_strengths_of_blocks(text, strength, blocks):
    assert Runtime(lora=(text,)).adapters == [Adapter(Path("a.safetensors"), strength, blocks)]


def test_the_last_strength_of_a_block_counts():
    (adapter,) = Runtime(lora=("a.safetensors:0.8,double_blocks.1-2=0.5,double_blocks.2=0,single_blocks=2",)).adapters
    layers = ["double_blocks.0.a", "double_blocks.1.a", "double_blocks.2.a", "double_blocks.12.a", "single_blocks.30.a", "txt_in.a"]
    assert [adapter.at(layer) for layer in layers] == [0.8, 0.5, 0, 0.8, 2, 0.8]


def test_strengths_of_blocks_without_an_adapter_are_refused():
    adapter = Adapter(Path("a.safetensors"), 1.0, (("double_blocks", 1.0), ("single_blocks.3-9", 0.0)))
    adapter.check_layers(["double_blocks.0.a", "single_blocks.9.a"])
    with pytest.raises(ValueError, match=r"strength of single_blocks.3-9, but a\.safetensors adapts nothing there; leave that out"):
        adapter.check_layers(["double_blocks.0.a", "single_blocks.2.a"])


@pytest.mark.parametrize("tail", ["0.8,blocks=1", "0.8,0.5", "0.8,single_blocks.x=1", "0.8,single_blocks=", "single_blocks.1-=1"])
def test_blocks_that_are_not_understood_are_said_to_be_no_file(tail):
    with pytest.raises(FileNotFoundError, match=r"which is no file; give FILE, FILE:STRENGTH, FILE:BLOCKS=STRENGTH or FILE"):
        Runtime(lora=(f"a.safetensors:{tail}",)).check_files()


@pytest.mark.parametrize(
    "lora",
    [
        ("",), (":0.5",), ("a.safetensors:nan",), ("a.safetensors", "b.safetensors:inf"), "a.safetensors", (1,),
        ("a.safetensors:1,single_blocks=nan",),
    ],
)  # fmt: skip
def test_an_impossible_lora_is_refused(lora):
    with pytest.raises(ValueError, match=r"lora is .*; it must be a"):
        Runtime(lora=lora)


@pytest.mark.parametrize("prompt", ["", "  \n\t"])
def test_an_empty_prompt_is_refused(prompt):
    with pytest.raises(ValueError, match="The prompt is empty"):
        check_prompt(prompt)


def test_a_huge_prompt_is_refused_and_the_longest_is_not():
    check_prompt("x" * MAX_PROMPT_CHARACTERS)
    with pytest.raises(ValueError, match="the limit is 10000"):
        check_prompt("x" * (MAX_PROMPT_CHARACTERS + 1))


@pytest.mark.parametrize(
    "module",
    [
        "hunyuan_video",
        "hunyuan_video.config",
        "hunyuan_video.weights",
        "hunyuan_video.files",
        "hunyuan_video.cli",
        "hunyuan_video.apps.official",
    ],
)
def test_what_checks_requests_imports_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
