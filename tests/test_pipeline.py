"""From prompt to frames, on a tiny random model loaded from the official tree."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_checkpoint import save_official_tree

from hunyuan_video.config import Runtime, Sampling
from hunyuan_video.pipeline import HunyuanVideo, resolve_device
from hunyuan_video.sampling import initial_noise
from hunyuan_video.weights import locate

SMALL = Sampling(height=32, width=48, num_frames=5, num_steps=3, seed=7)


@pytest.fixture(scope="module")
def pipe(official_tree):
    return HunyuanVideo.load(official_tree)


def test_frames_have_the_size_that_was_asked_for(pipe):
    video = pipe("A cat.", SMALL)
    assert video.frames.shape == (5, 32, 48, 3) and video.frames.dtype == np.uint8


def test_a_single_image_works(pipe):
    assert pipe("A cat.", replace(SMALL, num_frames=1)).frames.shape == (1, 32, 48, 3)


def test_an_image_is_described_by_the_image_template(pipe, monkeypatch):
    kinds = []
    encode = pipe.text_encoder.encode
    monkeypatch.setattr(pipe.text_encoder, "encode", lambda prompts, kind: kinds.append(kind) or encode(prompts, kind))
    pipe("A cat.", SMALL)
    pipe("A cat.", replace(SMALL, num_frames=1))
    assert kinds == ["video", "image"]


def test_the_same_seed_gives_the_same_frames_and_another_does_not(pipe):
    first, again, other = (pipe("A cat.", replace(SMALL, seed=seed)).frames for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_prompt_matters(pipe):
    assert not np.array_equal(pipe("A cat.", SMALL).frames, pipe("A very different thing.", SMALL).frames)


def test_sampling_starts_from_the_noise_of_the_seed_drawn_on_the_cpu(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "_velocity", lambda _prompt, _options: lambda x, _sigma: torch.zeros_like(x))
    torch.testing.assert_close(pipe("A cat.", SMALL).latents, initial_noise((1, 4, 2, 4, 6), 7), atol=0, rtol=0)


def test_official_noise_is_float16(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "_velocity", lambda _prompt, _options: lambda x, _sigma: torch.zeros_like(x))
    latents = pipe("A cat.", replace(SMALL, noise="official")).latents
    assert latents.dtype == torch.float32 and torch.equal(latents, latents.half().float())


def test_sampling_runs_from_noise_to_data(pipe, monkeypatch):
    """A perfect model of one clip: from any noise, its velocity leads to that clip."""
    clip = torch.linspace(-1, 1, 4 * 2 * 4 * 6).view(1, 4, 2, 4, 6)
    monkeypatch.setattr(pipe, "_velocity", lambda _prompt, _options: lambda x, sigma: (x - clip) / sigma)
    torch.testing.assert_close(pipe("A cat.", SMALL).latents, clip, atol=1e-5, rtol=0)


def test_stages_come_in_order_and_every_step_is_seen(pipe):
    seen = [(step.stage, step.step, step.total) for step in pipe.steps("A cat.", SMALL)]
    assert seen == [("encode", 1, 1), ("denoise", 1, 3), ("denoise", 2, 3), ("denoise", 3, 3), ("decode", 1, 1)]


@pytest.mark.parametrize("done", [1, 2, 3])
def test_resuming_gives_exactly_the_same_frames(pipe, done):
    whole = list(pipe.steps("A cat.", SMALL))
    *_, last = pipe.steps("A cat.", SMALL, resume=(done, whole[done].latents))
    assert np.array_equal(last.frames, whole[-1].frames)


def test_resuming_with_latents_of_another_size_is_refused(pipe):
    with pytest.raises(ValueError, match="these settings need"):
        next(pipe.steps("A cat.", SMALL, resume=(1, torch.zeros(1, 4, 2, 4, 8))))


def test_negative_prompt_and_cfg_scale_change_the_video(pipe):
    plain = pipe("A cat.", SMALL).frames
    guided = pipe("A cat.", replace(SMALL, cfg_scale=3.0)).frames
    other = pipe("A cat.", replace(SMALL, cfg_scale=3.0, negative_prompt="blurry")).frames
    assert not np.array_equal(plain, guided) and not np.array_equal(guided, other)


def test_an_empty_negative_prompt_is_not_the_official_one(pipe):
    guided = replace(SMALL, cfg_scale=3.0)
    *_, last = pipe.steps("A cat.", replace(guided, negative_prompt=""))
    assert last.settings["sampling"]["negative_prompt"] == ""
    *_, last = pipe.steps("A cat.", guided)
    assert last.settings["sampling"]["negative_prompt"].startswith("Aerial view")


def test_everything_is_settled_in_the_settings(pipe):
    *_, last = pipe.steps("A cat.", replace(SMALL, seed=None))
    assert isinstance(last.settings["sampling"]["seed"], int)
    assert last.settings["prompt"] == "A cat." and len(last.settings["model"]) == 16
    assert last.settings["frames_sha256"] == hashlib.sha256(last.frames.tobytes()).hexdigest()
    again = pipe(last.settings["prompt"], Sampling(**last.settings["sampling"]))
    assert np.array_equal(again.frames, last.frames)


def test_guidance_for_weights_without_it_is_refused_before_any_work(official_tree, tmp_path):
    without = HunyuanVideo.load(save_official_tree(tmp_path / "ckpts", guidance_embed=False))
    with pytest.raises(ValueError, match="no embedded guidance"):
        next(without.steps("A cat.", SMALL))
    assert without("A cat.", replace(SMALL, guidance=None)).frames.shape[0] == 5


def test_missing_guidance_is_refused_before_any_work(pipe):
    with pytest.raises(ValueError, match="need an embedded guidance scale"):
        next(pipe.steps("A cat.", replace(SMALL, guidance=None)))


@pytest.mark.parametrize("schedule", ["shift", "linear-quadratic"])
def test_both_schedules_run(pipe, schedule):
    assert pipe("A cat.", replace(SMALL, num_steps=4, schedule=schedule)).frames.shape[0] == 5


def test_bfloat16_runs_on_cpu_and_stays_close(official_tree, pipe):
    half = HunyuanVideo.load(official_tree, Runtime(dtype="bfloat16", vae_dtype="bfloat16", text_dtype="bfloat16"))
    exact = replace(SMALL, guidance=4.0)  # 4000 is a bfloat16 number; 6.0 becomes 6016 there, which random weights amplify
    low, full = half("A cat.", exact).latents, pipe("A cat.", exact).latents
    assert 0 < (low - full).norm() / full.norm() < 0.05


@pytest.mark.parametrize("runtime", [Runtime(offload="models"), Runtime(attention="matmul")])
def test_how_to_compute_does_not_change_what_comes_out(official_tree, pipe, runtime):
    expected = pipe("A cat.", SMALL).latents
    torch.testing.assert_close(HunyuanVideo.load(official_tree, runtime)("A cat.", SMALL).latents, expected, atol=1e-4, rtol=1e-4)


def test_fp8_weights_stay_close(official_tree, pipe):
    quantized = HunyuanVideo.load(official_tree, Runtime(fp8=True))
    assert quantized.transformer.double_blocks[0].img_mlp.fc1.weight.dtype == torch.float8_e4m3fn
    expected = pipe("A cat.", SMALL).latents
    assert 0 < (quantized("A cat.", SMALL).latents - expected).norm() / expected.norm() < 0.1


def test_a_changed_weight_changes_the_fingerprint(official_tree, tmp_path):
    copy = shutil.copytree(official_tree, tmp_path / "ckpts")
    before = locate(copy).fingerprint()
    assert before == locate(official_tree).fingerprint()
    path = locate(copy).transformer
    state = torch.load(path, weights_only=True)
    state["module"]["img_in.proj.bias"] += 1
    torch.save(state, path)
    assert locate(copy).fingerprint() != before


def test_a_device_that_is_not_there_is_refused():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ValueError, match="this machine has none"):
        resolve_device("cuda")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_seed_means_the_same_video_on_cuda(official_tree, pipe):
    cuda = HunyuanVideo.load(official_tree, Runtime(device="cuda", dtype="float32", vae_dtype="float32", text_dtype="float32"))
    torch.testing.assert_close(cuda("A cat.", SMALL).latents.cpu(), pipe("A cat.", SMALL).latents, atol=1e-3, rtol=1e-3)
