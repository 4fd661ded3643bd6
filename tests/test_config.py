"""Settings are checked where they enter: one sentence saying what came and what is right."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hunyuan_video.config import MAX_PROMPT_CHARACTERS, Output, Runtime, Sampling, check_guidance, check_prompt


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"height": 100}, "height is 100; it must be a positive multiple of 16, such as 96"),
        ({"width": 0}, "width is 0; it must be a positive multiple of 16, such as 16"),
        ({"height": -16}, "height is -16"),
        ({"num_frames": 128}, "num_frames is 128; it must be 4n .* 1, such as 129"),
        ({"num_frames": 0}, "num_frames is 0; .*such as 1"),
        ({"num_steps": 0}, "num_steps is 0; it must be between 1 and 1000"),
        ({"num_steps": 1001}, "num_steps is 1001"),
        ({"num_frames": 10_005}, "num_frames is 10005; it must be 10001 or less"),
        ({"width": 8208}, "width is 8208; it must be 8192 or less"),
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


def test_stages_get_patches_to_be_busy_with():
    assert Runtime(pipefusion_stages=3).pipefusion_patches == 12
    assert Runtime(pipefusion_stages=3, pipefusion_patches=2).pipefusion_patches == 2


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ({"pipefusion_stages": 0}, "pipefusion_stages is 0; it must be 1 or more"),
        ({"pipefusion_patches": 0}, "pipefusion_patches is 0; it must be 1"),
        ({"warmup_steps": 0}, "before the first step there are no old keys"),
        ({"pipefusion_patches": 2, "offload": "blocks"}, "patches need every block again and again"),
        ({"pipefusion_stages": 2, "offload": "auto"}, "patches need every block again and again"),
    ],
)
def test_patches_that_cannot_be_are_refused(setting, sentence):
    with pytest.raises(ValueError, match=sentence):
        Runtime(**setting)


def test_a_whole_number_is_a_float():
    assert Sampling(shift=7, guidance=6).shift == 7


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cpu:1", "", "cuda:-1"])
def test_an_unknown_device_is_refused(device):
    with pytest.raises(ValueError, match="it must be auto, cpu, cuda"):
        Runtime(device=device)


@pytest.mark.parametrize(
    ("guidance", "embedded", "sentence"),
    [
        (None, True, "guidance is none, but a.pt need an embedded guidance scale"),
        (6.0, False, "guidance is 6.0, but a.pt have no embedded guidance; set it to none"),
    ],
)
def test_guidance_and_weights_must_agree(guidance, embedded, sentence):
    check_guidance(guidance, not embedded, "a.pt")
    with pytest.raises(ValueError, match=sentence):
        check_guidance(guidance, embedded, "a.pt")


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
        "hunyuan_video.pictures",
        "hunyuan_video.request",
        "hunyuan_video.cli",
        "hunyuan_video.apps.official",
    ],
)
def test_what_checks_requests_imports_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
