"""From prompt to frames, on a tiny random model loaded from the official tree."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import random_lora
from conftest import golden_config, randomize
from forked import python
from PIL import Image
from tiny_checkpoint import VAE, save_official_tree
from torch import nn

from hunyuan_video import denoising, pipeline, plan
from hunyuan_video.checkpoint.lora import read_lora, save_lora
from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.models.text import TextEncoder, TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.models.vae import CausalVAE, VAEConfig
from hunyuan_video.pictures import fill, read_image, read_picture
from hunyuan_video.pipeline import BusyError, HunyuanVideo
from hunyuan_video.request import Adapted, Adapter, Picture, Request, Strengths
from hunyuan_video.sampling import initial_noise, linear_quadratic_sigmas, shifted_sigmas
from hunyuan_video.transforms import fp8, sparse
from hunyuan_video.transforms.fp8 import Fp8Linear
from hunyuan_video.transforms.lora import apply_lora, linear_layers
from hunyuan_video.transforms.offload import on_device
from hunyuan_video.transforms.tiling import TileSizes
from hunyuan_video.video import to_frames, to_tensor
from hunyuan_video.weights import locate

SMALL = Sampling(height=32, width=48, num_frames=5, num_steps=3, seed=7)
MODEL_BASE = os.environ.get("MODEL_BASE")


@pytest.fixture(scope="module")
def pipe(official_tree):
    return HunyuanVideo.load(official_tree)


# --- The numbers ---


class KnownText(TextEncoder):
    """Encodes the prompts it knows as what it was given."""

    def __init__(self, features: dict[str, TextFeatures]):
        nn.Module.__init__(self)
        self.features = features
        self.anchor = nn.Parameter(torch.zeros(1))  # tells the pipeline where this module is

    def encode(self, prompts: list[str], kind: str = "video") -> TextFeatures:
        rows = [self.features[prompt] for prompt in prompts]
        return TextFeatures(*(torch.cat([getattr(row, name) for row in rows]) for name in ("states", "mask", "pooled")))


def test_latents_after_every_step_equal_the_reference(golden, monkeypatch):
    """The whole loop with both guidances: prompts, shifted noise levels, t in [0, 1000], Euler steps."""
    reference = golden("denoise_loop")
    config = reference.info["config"]
    transformer = HunyuanVideoTransformer(golden_config(config)).eval()
    transformer.load_state_dict(reference.state_dict(), strict=True)
    states, mask, pooled = reference["in.text_states"], reference["in.text_mask"].bool(), reference["in.text_states_2"]
    rows = {name: TextFeatures(states[i, None], mask[i, None], pooled[i, None]) for i, name in enumerate(("A dog.", "A cat."))}
    pipe = HunyuanVideo(KnownText(rows), transformer, randomize(CausalVAE(VAE), std=0.2))
    monkeypatch.setattr(denoising, "initial_noise", lambda _shape, _seed: reference["in.latents0"])
    options = Sampling(
        height=32, width=48, num_frames=5, num_steps=config["steps"], shift=config["flow_shift"], seed=0,
        guidance=config["embedded_cfg_scale"], cfg_scale=config["cfg_scale"],
    )  # fmt: skip
    latents = [step.latents for step in pipe.steps(Request("A cat.", options, "A dog.")) if step.stage == "denoise"]
    assert len(latents) == 5
    for i, actual in enumerate(latents, start=1):
        reference.check(actual, f"out.latents{i}")


@pytest.mark.parametrize(("dtype", "expected"), [("float32", 6000.0), ("bfloat16", 6016.0)])
def test_embedded_guidance_is_rounded_before_it_is_multiplied(official_tree, monkeypatch, dtype, expected):
    seen = []
    condition = HunyuanVideoTransformer.condition

    def watched(model, states, mask, pooled, guidance):
        seen.append(guidance.item())
        return condition(model, states, mask, pooled, guidance)

    monkeypatch.setattr(HunyuanVideoTransformer, "condition", watched)
    HunyuanVideo.load(official_tree, Runtime(dtype=dtype))("A cat.", replace(SMALL, num_steps=1, guidance=6.0))
    assert seen == [expected]


def with_tiling(pipe: HunyuanVideo, tiling: bool) -> HunyuanVideo:
    return HunyuanVideo(pipe.text_encoder, pipe.transformer, pipe.vae, runtime=Runtime(vae_tiling=tiling))


@pytest.mark.parametrize("tiling", [False, True])
@torch.no_grad()
def test_decode_divides_by_the_scaling_factor(pipe, tiling):
    latents = initial_noise((1, 4, 2, 4, 6), 3)
    expected, unscaled = (to_frames(pipe.vae.decode(z)[0]) for z in (latents / 0.476986, latents))
    assert np.array_equal(with_tiling(pipe, tiling).decode(latents), expected) and not np.array_equal(unscaled, expected)


@pytest.mark.parametrize("tiling", [False, True])
@torch.no_grad()
def test_encode_is_the_mean_times_the_scaling_factor(pipe, tiling):
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), dtype=np.uint8)
    expected = pipe.vae.encode(to_tensor(frames)[None]).mean * 0.476986
    torch.testing.assert_close(with_tiling(pipe, tiling).encode(frames), expected, atol=1e-6, rtol=1e-6)


# --- Videos ---


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


def test_offload_auto_is_settled_by_load(pipe):
    with pytest.raises(ValueError, match=r"which HunyuanVideo\.load settles"):
        HunyuanVideo(pipe.text_encoder, pipe.transformer, pipe.vae, runtime=Runtime(offload="auto"))


def test_models_whose_blocks_do_not_move_are_no_pipeline_that_moves_blocks(pipe):
    with pytest.raises(ValueError, match="none of these models' tensors come and go"):
        HunyuanVideo(pipe.text_encoder, pipe.transformer, pipe.vae, runtime=Runtime(offload="blocks"))


@pytest.mark.parametrize("offload", ["none", "models", "blocks"])
def test_a_second_prompt_reads_no_file(official_tree, tmp_path, offload):
    tree = shutil.copytree(official_tree, tmp_path / "ckpts")
    pipe = HunyuanVideo.load(tree, Runtime(offload=offload))
    pipe("A cat.", SMALL)
    shutil.rmtree(tree)
    pipe("A dog.", SMALL)


def test_the_same_seed_gives_the_same_frames_and_another_does_not(pipe):
    first, again, other = (pipe("A cat.", replace(SMALL, seed=seed)).frames for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_prompt_matters(pipe):
    assert not np.array_equal(pipe("A cat.", SMALL).frames, pipe("A very different thing.", SMALL).frames)


def test_sampling_starts_from_the_noise_of_the_seed_drawn_on_the_cpu(pipe, monkeypatch):
    monkeypatch.setattr(denoising.Denoiser, "_velocity", lambda *_: lambda x, _sigma: torch.zeros_like(x))
    torch.testing.assert_close(pipe("A cat.", SMALL).latents, initial_noise((1, 4, 2, 4, 6), 7), atol=0, rtol=0)


def test_official_noise_is_float16(pipe, monkeypatch):
    monkeypatch.setattr(denoising.Denoiser, "_velocity", lambda *_: lambda x, _sigma: torch.zeros_like(x))
    latents = pipe("A cat.", replace(SMALL, noise="official")).latents
    assert latents.dtype == torch.float32 and torch.equal(latents, latents.half().float())


def test_sampling_runs_from_noise_to_data(pipe, monkeypatch):
    """A perfect model of one clip: from any noise, its velocity leads to that clip."""
    clip = torch.linspace(-1, 1, 4 * 2 * 4 * 6).view(1, 4, 2, 4, 6)
    monkeypatch.setattr(denoising.Denoiser, "_velocity", lambda *_: lambda x, sigma: (x - clip) / sigma)
    torch.testing.assert_close(pipe("A cat.", SMALL).latents, clip, atol=1e-5, rtol=0)


def test_stages_come_in_order_and_every_step_is_seen(pipe):
    seen = [(step.stage, step.step, step.total) for step in pipe.steps("A cat.", SMALL)]
    assert seen == [("encode", 1, 1), ("denoise", 1, 3), ("denoise", 2, 3), ("denoise", 3, 3), ("decode", 1, 1)]


@pytest.fixture
def small_tiles(pipe, monkeypatch):
    """Of the pipeline's VAE: 32x48 pixels are then two rows of two tiles, and 33 frames three tiles."""
    monkeypatch.setattr(pipe.vae, "config", replace(pipe.vae.config, sample_size=32, sample_tsize=16))


@pytest.mark.usefixtures("small_tiles")
def test_every_row_of_tiles_that_is_decoded_is_a_step_and_the_last_one_holds_the_frames(pipe):
    options = replace(SMALL, num_steps=1, num_frames=33)
    steps = [step for step in pipe.steps("A cat.", options) if step.stage == "decode"]
    assert [(step.step, step.total) for step in steps] == [(number, 6) for number in range(1, 7)]
    assert [step.frames is None for step in steps] == [True] * 5 + [False] and steps[-1].frames.shape == (33, 32, 48, 3)
    assert np.array_equal(steps[-1].frames, pipe.decode(steps[0].latents))
    assert np.array_equal(steps[-1].frames, np.concatenate([step.new_frames for step in steps]))


@pytest.mark.usefixtures("small_tiles")
def test_whoever_stops_while_it_decodes_finds_the_models_where_they_were(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "device", torch.device("cpu:0"))  # another name, to which models are really copied
    home = [tensor.data_ptr() for model in (pipe.text_encoder, pipe.transformer, pipe.vae) for tensor in model.parameters()]
    steps = pipe.steps("A cat.", SMALL)
    while next(steps).stage != "decode":
        pass
    assert [tensor.data_ptr() for tensor in pipe.vae.parameters()] != home[-len(list(pipe.vae.parameters())) :]
    steps.close()
    after = [tensor.data_ptr() for model in (pipe.text_encoder, pipe.transformer, pipe.vae) for tensor in model.parameters()]
    assert after == home and pipe("A dog.", replace(SMALL, num_steps=1)).frames.shape[0] == 5


@pytest.mark.parametrize("done", [1, 2, 3])
def test_resuming_gives_exactly_the_same_frames(pipe, done):
    whole = list(pipe.steps("A cat.", SMALL))
    *_, last = pipe.steps("A cat.", SMALL, resume=(done, whole[done].latents))
    assert np.array_equal(last.frames, whole[-1].frames)


def test_resuming_with_latents_of_another_size_is_refused(pipe):
    with pytest.raises(ValueError, match="these settings need"):
        next(pipe.steps("A cat.", SMALL, resume=(1, torch.zeros(1, 4, 2, 4, 8))))


GROWING = replace(SMALL, num_frames=9, num_steps=4)


@pytest.fixture
def growing(pipe, monkeypatch):
    """In three stages: half of everything, half the frames, and all."""
    monkeypatch.setattr(pipe, "runtime", Runtime(progressive="space-time", progressive_until=0.7))
    return pipe


def test_a_video_grows_and_its_estimate_is_always_whole(growing):
    steps = [step for step in growing.steps("A cat.", GROWING) if step.stage == "denoise"]
    assert [tuple(step.latents.shape[2:]) for step in steps] == [(2, 2, 4), (2, 4, 6), (3, 4, 6), (3, 4, 6)]
    assert {tuple(step.estimate.shape[2:]) for step in steps} == {(3, 4, 6)}


@pytest.mark.parametrize("done", [1, 2, 3, 4])
def test_resuming_a_video_that_grows_gives_exactly_the_same_frames(growing, done):
    whole = list(growing.steps("A cat.", GROWING))
    *_, last = growing.steps("A cat.", GROWING, resume=(done, whole[done].latents))
    assert np.array_equal(last.frames, whole[-1].frames)
    assert not np.array_equal(last.frames, HunyuanVideo(growing.text_encoder, growing.transformer, growing.vae)("A cat.", GROWING).frames)


def test_a_video_that_grows_begins_with_its_picture(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "runtime", Runtime(progressive="space"))
    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    steps = [step for step in pipe.steps("A cat.", GROWING, image=picture) if step.stage == "denoise"]
    assert steps[0].latents.shape[-1] == 4 and torch.equal(steps[-1].latents[:, :, :1], pipe.encode(picture[None]))


def test_half_the_frames_have_no_picture_among_them(growing):
    with pytest.raises(
        ValueError, match="fewer frames, but frames of this video have their places from the first step on; use 'space' or 'off'"
    ):
        next(growing.steps("A cat.", GROWING, image=np.zeros((32, 48, 3), np.uint8)))


def test_a_density_makes_another_video_and_is_told(pipe, monkeypatch, caplog):
    monkeypatch.setattr(sparse, "block_sizes", lambda _tokens: (4, 4))
    exact = pipe("A cat.", GROWING)
    monkeypatch.setattr(pipe, "runtime", Runtime(attention="sdpa", attention_density=0.4))
    with caplog.at_level(logging.INFO):
        found = pipe("A cat.", GROWING)
    assert not torch.equal(found.latents, exact.latents) and "of its pairs in sparse steps" in caplog.text


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_latents_that_are_not_finite_are_noticed_at_their_step(pipe, monkeypatch, bad):
    whole, seen = pipe.transformer.forward, []

    def forward(x: torch.Tensor, *rest: object) -> torch.Tensor:
        seen.append(None)
        return whole(x, *rest) * (bad if len(seen) == 2 else 1)

    monkeypatch.setattr(pipe.transformer, "forward", forward)
    with pytest.raises(ValueError, match=r"hold NaN or infinity after step 2 of 3.*--dtype bfloat16"):
        pipe("A cat.", SMALL)
    assert len(seen) == 2


def test_negative_prompt_and_cfg_scale_change_the_video(pipe):
    plain = pipe("A cat.", SMALL).frames
    guided = pipe("A cat.", replace(SMALL, cfg_scale=3.0)).frames
    other = pipe(Request("A cat.", replace(SMALL, cfg_scale=3.0), "blurry")).frames
    assert not np.array_equal(plain, guided) and not np.array_equal(guided, other)


def test_an_empty_negative_prompt_is_not_the_official_one(pipe):
    guided = replace(SMALL, cfg_scale=3.0)
    assert pipe(Request("A cat.", guided, "")).provenance.negative_prompt == ""
    official = pipe("A cat.", guided).provenance.negative_prompt
    assert official is not None and official.startswith("Aerial view")


def test_everything_is_settled_in_the_provenance(pipe):
    video = pipe("A cat.", replace(SMALL, seed=None))
    made = video.provenance
    assert isinstance(made.sampling.seed, int)
    assert made.prompt == "A cat." and len(made.model) == 16
    assert made.frames_sha256 == hashlib.sha256(video.frames.tobytes()).hexdigest()
    assert np.array_equal(pipe(made.prompt, made.sampling).frames, video.frames)


@pytest.mark.parametrize("kind", ["array", "Pillow's", "file", "Picture"])
def test_settings_are_given_by_name_and_pictures_as_whatever_one_has(pipe, tmp_path, kind):
    pixels = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    given = {"array": pixels, "Pillow's": Image.fromarray(pixels), "file": tmp_path / "a.png", "Picture": Picture(pixels)}[kind]
    request = pipe.request("A cat.", SMALL, seed=9, num_steps=1, negative_prompt="blurry", image=given)
    assert request == Request("A cat.", replace(SMALL, seed=9, num_steps=1), "blurry", Picture(pixels))
    assert pipe.request("A cat.", seed=9) == Request("A cat.", Sampling(seed=9))


def test_what_is_no_request_is_refused_in_a_sentence(tmp_path):
    """In a process of its own: in this one, tests check the types of all arguments."""
    asked = {
        "pipe(None)": "The prompt is None; it must be a text",
        "pipe(b'cat')": "The prompt is b'cat'; it must be a text",
        "pipe(['A cat.', 3], num_steps=1, height=32, width=48, num_frames=1)": "The prompt is 3; it must be a text",
        "pipe('A cat.', {'seed': 1})": "sampling is {'seed': 1}; it must be a Sampling",
        "pipe(prompt='A cat.', frames=3)": "There is no setting frames; perhaps num_frames was meant",
        "pipe('A cat.', xyz=3)": "loop, negative_prompt, image, keyframes, video",
        "pipe(Request('A cat.'), seed=3)": "a request has its own (dataclasses.replace",
        "HunyuanVideo.load(adapters=['a.safetensors'])": "adapters hold 'a.safetensors'; each must be an Adapter",
    }
    code = f"""
from hunyuan_video import HunyuanVideo, Request
pipe = HunyuanVideo.load()
for ask, sentence in {asked}.items():
    try:
        eval(ask)
    except ValueError as error:
        assert sentence in str(error), (ask, error)
    else:
        raise AssertionError(ask)
"""
    process = python("-c", code, says=tmp_path / "said")
    assert process.ended(60) == 0, process.error.read_text()


def test_a_video_is_shown_without_its_numbers(pipe):
    assert len(repr(pipe("A cat.", replace(SMALL, num_steps=1)))) < 2000


@pytest.fixture(scope="module")
def made_for_small(official_tree, tmp_path_factory):
    """A pipeline of weights that say what they were made for."""
    root = shutil.copytree(official_tree, tmp_path_factory.mktemp("made") / "ckpts")
    settings = {"height": 32, "width": 48, "num_frames": 5, "num_steps": 2, "shift": 3.0, "guidance": 4.0}
    (root / "generation_config.json").write_text(json.dumps(settings))
    return HunyuanVideo.load(root, sampling=Sampling(seed=7))


@pytest.mark.parametrize(
    "ask",
    [
        lambda pipe: pipe("A cat.", Sampling(seed=7)),
        lambda pipe: pipe("A cat.", seed=7),
        lambda pipe: pipe(Request("A cat.", Sampling(seed=7))),
        lambda pipe: pipe("A cat.", replace(pipe.defaults, seed=7)),
    ],
)
def test_what_is_left_open_is_what_the_weights_were_made_for(made_for_small, ask):
    made = ask(made_for_small)
    assert made.provenance.sampling == FullSampling(height=32, width=48, num_frames=5, num_steps=2, shift=3.0, guidance=4.0, seed=7)
    assert made.frames.shape == (5, 32, 48, 3)


def test_the_largest_video_of_a_load_is_by_default_what_the_weights_were_made_for(official_tree, monkeypatch):
    seen = []
    monkeypatch.setattr(plan, "choose", lambda _parts, sampling, runtime, *_: seen.append(sampling) or replace(runtime, offload="none"))
    for sampling in (None, Sampling(seed=7), Sampling(num_frames=5)):
        HunyuanVideo.load(official_tree, Runtime(offload="auto"), sampling)
    assert [replace(sampling, seed=0) for sampling in seen] == [FullSampling(), FullSampling(), FullSampling(num_frames=5)]


def test_a_call_with_settings_makes_that_video(pipe):
    (first, second), expected = pipe(["A cat.", "A dog."], SMALL, seed=3), pipe("A dog.", replace(SMALL, seed=3))
    assert first.provenance.prompt == "A cat." and np.array_equal(second.frames, expected.frames)


def test_a_setting_that_does_not_exist_is_refused_with_the_nearest_one(pipe):
    with pytest.raises(ValueError, match="There is no setting num_step; perhaps num_steps was meant"):
        pipe("A cat.", num_step=3)
    with pytest.raises(ValueError, match="A request and settings were given"):
        pipe(Request("A cat.", SMALL), seed=3)


def test_a_second_video_at_the_same_time_is_refused_and_one_afterwards_is_not(pipe):
    first = pipe.steps("A cat.", SMALL)
    next(first)
    with pytest.raises(BusyError, match="makes one at a time"):
        pipe("A dog.", SMALL)
    assert len(list(first)) == 4  # which it does not disturb
    assert pipe("A dog.", SMALL).frames.shape[0] == 5


@pytest.mark.parametrize("end", ["closed", "failed"])
def test_a_video_that_ends_early_leaves_the_pipeline_free(pipe, monkeypatch, end):
    steps = pipe.steps("A cat.", SMALL)
    next(steps)
    if end == "closed":
        steps.close()
    else:
        with monkeypatch.context() as patch:
            patch.setattr(denoising.Denoiser, "_velocity", lambda *_: pytest.fail("broken"))
            with pytest.raises(pytest.fail.Exception):
                list(steps)
    assert pipe("A dog.", SMALL).frames.shape[0] == 5


def test_guidance_for_weights_without_it_is_refused_before_any_work(official_tree, tmp_path):
    without = HunyuanVideo.load(save_official_tree(tmp_path / "ckpts", guidance_embed=False))
    with pytest.raises(ValueError, match="these weights have no embedded guidance"):
        next(without.steps("A cat.", replace(SMALL, guidance=6.0)))
    made = without("A cat.", SMALL)
    assert made.provenance.sampling.guidance is None and made.frames.shape[0] == 5


def test_weights_that_say_nothing_of_their_guidance_are_asked_themselves(tmp_path):
    """As in a transformer whose names could not be read before it was loaded."""
    loaded = HunyuanVideo.load(save_official_tree(tmp_path / "ckpts", guidance_embed=False))
    bare = HunyuanVideo(loaded.text_encoder, loaded.transformer, loaded.vae)
    assert bare.defaults == FullSampling(guidance=None)


def test_missing_guidance_is_refused_before_any_work(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "origin", replace(pipe.origin, sampling=FullSampling(guidance=None)))
    with pytest.raises(ValueError, match="these weights need an embedded guidance scale"):
        next(pipe.steps("A cat.", SMALL))


def test_the_model_sees_the_noise_levels_of_the_schedule(pipe, monkeypatch):
    def seen(**changes) -> list[float]:
        sigmas = []
        monkeypatch.setattr(denoising.Denoiser, "_velocity", lambda *_: lambda x, sigma: sigmas.append(sigma) or torch.zeros_like(x))
        pipe("A cat.", replace(SMALL, num_steps=4, **changes))
        return sigmas

    assert seen() == shifted_sigmas(4, 7.0)[:-1].tolist()
    assert seen(shift=3.0) == shifted_sigmas(4, 3.0)[:-1].tolist()
    assert seen(schedule="linear-quadratic") == linear_quadratic_sigmas(4)[:-1].tolist()
    assert seen(schedule="linear-quadratic", linear_steps=1) == linear_quadratic_sigmas(4, 1)[:-1].tolist()
    assert len({tuple(seen()), tuple(seen(shift=3.0)), tuple(seen(schedule="linear-quadratic"))}) == 3


def test_bfloat16_runs_on_cpu_and_stays_close(official_tree, pipe):
    half = HunyuanVideo.load(official_tree, Runtime(dtype="bfloat16", vae_dtype="bfloat16", text_dtype="bfloat16"))
    exact = replace(SMALL, guidance=4.0)  # 4000 is a bfloat16 number; 6.0 becomes 6016 there, which random weights amplify
    low, full = half("A cat.", exact).latents, pipe("A cat.", exact).latents
    assert 0 < (low - full).norm() / full.norm() < 0.05


@pytest.mark.parametrize("kernel", ["matmul", "chunked"])
def test_the_attention_kernel_does_not_change_what_comes_out(official_tree, pipe, kernel):
    expected = pipe("A cat.", SMALL).latents
    other = HunyuanVideo.load(official_tree, Runtime(attention=kernel))
    torch.testing.assert_close(other("A cat.", SMALL).latents, expected, atol=1e-4, rtol=1e-4)


def test_one_model_after_the_other_is_on_the_device(pipe, monkeypatch):
    events = []

    @contextmanager
    def watched(module: nn.Module, *where: object, **how: bool):
        whole = isinstance(module, TextEncoder | HunyuanVideoTransformer | CausalVAE)  # some parts visit it before the first step
        events.extend([("in", type(module))] * whole)
        with on_device(module, *where, **how):
            yield
        events.extend([("out", type(module))] * whole)

    monkeypatch.setattr(pipeline, "on_device", watched)
    pipe("A cat.", replace(SMALL, cfg_scale=2.0))
    assert events == [(way, kind) for kind in (TextEncoder, HunyuanVideoTransformer, CausalVAE) for way in ("in", "out")]


def test_fp8_weights_stay_close(official_tree, pipe):
    quantized = HunyuanVideo.load(official_tree, Runtime(fp8=True))
    assert quantized.transformer.double_blocks[0].img_mlp.fc1.weight.dtype == torch.float8_e4m3fn
    expected = pipe("A cat.", SMALL).latents
    assert 0 < (quantized("A cat.", SMALL).latents - expected).norm() / expected.norm() < 0.1


def test_multiplying_in_8_bits_stays_close_and_is_recorded(official_tree, pipe, monkeypatch):
    monkeypatch.setattr(fp8, "check_multiplies", lambda _device: None)  # slow on a CPU, but it works
    quantized = HunyuanVideo.load(official_tree, Runtime(fp8_matmul=True))
    assert quantized.transformer.double_blocks[0].img_mlp.fc1.product is fp8.scaled
    video, expected = quantized("A cat.", SMALL), pipe("A cat.", SMALL).latents
    assert 0 < (video.latents - expected).norm() / expected.norm() < 0.1
    assert video.provenance.runtime.fp8 and video.provenance.runtime.fp8_matmul


def test_a_device_that_cannot_multiply_in_8_bits_is_refused_before_weights_are_read(official_tree, monkeypatch):
    monkeypatch.setattr(pipeline.checkpoint, "load_text_encoder", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(ValueError, match=r"fp8_matmul needs a GPU .*8\.9.*, but this is cpu; leave it out"):
        HunyuanVideo.load(official_tree, Runtime(device="cpu", fp8_matmul=True))


def test_a_language_model_in_8_bits_stays_close_and_leaves_the_rest_alone(official_tree, pipe):
    quantized = HunyuanVideo.load(official_tree, Runtime(text_fp8=True)).text_encoder
    assert {layer.weight.dtype for layer in quantized.llm.layers[0].mlp.children() if hasattr(layer, "weight")} == {torch.float8_e4m3fn}
    assert quantized.llm.embed_tokens.weight.dtype == torch.float32
    features, expected = (encoder.encode(["A cat."]) for encoder in (quantized, pipe.text_encoder))
    assert torch.equal(features.pooled, expected.pooled)
    assert 0 < (features.states - expected.states).norm() / expected.states.norm() < 0.1


@pytest.mark.parametrize(
    ("adapted", "bits", "tiling"),
    [
        ("", (), False), ("", (), True), ("merged", ("fp8", "text_fp8"), False), ("merged", ("fp8_matmul",), True),
        ("live", ("fp8",), True), ("live", ("fp8_matmul", "text_fp8"), False),
    ],
)  # fmt: skip
def test_offload_changes_no_frame_whatever_else_is_on(official_tree, lora_file, monkeypatch, adapted, bits, tiling):
    monkeypatch.setattr(fp8, "check_multiplies", lambda _device: None)
    monkeypatch.setattr(TileSizes, "of", lambda _config: TileSizes(32, 16))  # so that there are several
    runtime = Runtime(**dict.fromkeys(bits, True), vae_tiling=tiling)
    adapters = (Adapter(lora_file),) if adapted == "merged" else ()
    videos = []
    for offload in ("none", "models", "blocks"):
        pipe = HunyuanVideo.load(official_tree, replace(runtime, offload=offload), adapters=adapters)
        if adapted == "live":
            apply_lora(pipe.transformer, read_lora(lora_file, pipe.transformer.config), 0.7)
        if offload != "none":
            pipe.device = torch.device("cpu:0")  # another name, so that everything is really copied
        videos.append(pipe("A cat.", replace(SMALL, num_steps=2)))
    for video in videos[1:]:
        assert torch.equal(video.latents, videos[0].latents) and np.array_equal(video.frames, videos[0].frames)


@pytest.fixture
def lora_file(pipe, tmp_path) -> Path:
    path = tmp_path / "style.safetensors"
    save_lora(random_lora(pipe.transformer), path, "kohya", torch.float32)
    return path


def adapted(tree: Path, *lora: str) -> HunyuanVideo:
    return HunyuanVideo.load(tree, adapters=tuple(map(Adapter.parse, lora)))


def test_a_lora_changes_the_video_by_its_strength_and_is_recorded(official_tree, pipe, lora_file):
    plain = pipe("A cat.", SMALL).latents
    off, half, full = (adapted(official_tree, f"{lora_file}:{s}")("A cat.", SMALL) for s in (0, 0.5, 1))
    twice = adapted(official_tree, f"{lora_file}:0.5", f"{lora_file}:0.5")("A cat.", SMALL)
    assert torch.equal(off.latents, plain)
    assert 1e-3 < (half.latents - plain).norm() < (full.latents - plain).norm()
    torch.testing.assert_close(twice.latents, full.latents, atol=1e-3, rtol=1e-3)
    assert full.provenance.adapters == (Adapted("style.safetensors", hashlib.sha256(lora_file.read_bytes()).hexdigest(), Strengths(1.0)),)


def test_a_folder_of_a_trainer_is_a_lora_and_recorded_by_its_weights(official_tree, pipe, lora_file, tmp_path):
    (tmp_path / "epoch10").mkdir()
    inside = lora_file.rename(tmp_path / "epoch10" / "adapter_model.safetensors")
    named, in_folder = (adapted(official_tree, str(path))("A cat.", SMALL) for path in (inside, inside.parent))
    assert np.array_equal(named.frames, in_folder.frames)
    assert in_folder.provenance.adapters == (Adapted("epoch10", hashlib.sha256(inside.read_bytes()).hexdigest(), Strengths()),)


def test_a_lora_may_act_in_some_blocks_alone_and_is_recorded_so(official_tree, pipe, lora_file):
    text = f"{lora_file}:0,double_blocks=1,single_blocks.1=0.5"
    some = adapted(official_tree, text)
    changed = {
        name.rpartition(".weight")[0]
        for (name, weight), before in zip(some.transformer.named_parameters(), pipe.transformer.parameters(), strict=True)
        if not torch.equal(weight, before)
    }
    assert changed == {name for name in linear_layers(pipe.transformer) if name.startswith(("double_blocks.", "single_blocks.1."))}
    assert [known.strengths for known in some("A cat.", SMALL).provenance.adapters] == [Adapter.parse(text).strengths]
    with pytest.raises(ValueError, match=r"strength of single_blocks\.2, but .*adapts nothing there"):
        adapted(official_tree, f"{lora_file}:single_blocks.2=1")


def test_a_request_for_other_adapters_than_the_loaded_ones_is_refused(official_tree, pipe, lora_file):
    with pytest.raises(ValueError, match=r"for other adapters \(style\.safetensors\) than this pipeline was loaded with \(none\)"):
        pipe(Request("A cat.", SMALL, adapters=(Adapter(lora_file),)))
    with pytest.raises(ValueError, match=r"for other adapters \(none\)"):
        adapted(official_tree, str(lora_file))(Request("A cat.", SMALL))


def test_a_lora_is_in_the_weights_before_they_go_to_8_bits(official_tree, lora_file):
    both = HunyuanVideo.load(official_tree, Runtime(fp8=True), adapters=[Adapter(lora_file)])
    assert isinstance(both.transformer.double_blocks[0].img_attn_qkv, Fp8Linear)
    expected = adapted(official_tree, str(lora_file))("A cat.", SMALL).latents
    assert 0 < (both("A cat.", SMALL).latents - expected).norm() / expected.norm() < 0.2


def test_a_missing_lora_is_named_before_weights_are_read(official_tree, monkeypatch):
    monkeypatch.setattr(pipeline.checkpoint, "load_text_encoder", lambda *_: pytest.fail("weights were read"))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.safetensors"):
        adapted(official_tree, "nowhere.safetensors")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_seed_means_the_same_video_on_cuda(official_tree, pipe):
    cuda = HunyuanVideo.load(official_tree, Runtime(device="cuda", dtype="float32", vae_dtype="float32", text_dtype="float32"))
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # by default PyTorch's convolutions round float32 to 10 bits
        video = cuda("A cat.", SMALL)
    torch.testing.assert_close(video.latents.cpu(), pipe("A cat.", SMALL).latents, atol=1e-3, rtol=1e-3)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("offload", ["models", "blocks", "auto"])
def test_everything_that_saves_memory_together_stays_close_on_cuda(official_tree, pipe, offload):
    types = {"dtype": "bfloat16", "vae_dtype": "float16", "text_dtype": "float16"}
    runtime = Runtime(device="cuda", **types, fp8=True, text_fp8=True, offload=offload)
    small = HunyuanVideo.load(official_tree, runtime)
    exact = replace(SMALL, guidance=4.0)  # see test_bfloat16_runs_on_cpu_and_stays_close
    video, expected = small("A cat.", exact), pipe("A cat.", exact).latents
    assert video.latents.is_cuda and video.frames.shape == (5, 32, 48, 3)
    assert 0 < (video.latents.cpu() - expected).norm() / expected.norm() < 0.05
    home = "cuda" if offload == "auto" else "cpu"  # so small a model fits
    assert {p.device.type for model in (small.text_encoder, small.transformer, small.vae) for p in model.parameters()} == {home}


@pytest.mark.weights
@pytest.mark.skipif(MODEL_BASE is None or bool(locate(Path(MODEL_BASE)).missing()), reason="needs the official weights, at $MODEL_BASE")
def test_the_official_weights_make_an_image():
    assert MODEL_BASE is not None
    official = HunyuanVideo.load(Path(MODEL_BASE), Runtime(offload="models"))
    assert official.transformer.config == TransformerConfig() and official.vae.config == VAEConfig()
    video = official("A cat walks on the grass, realistic style.", Sampling(height=256, width=256, num_frames=1, num_steps=2, seed=0))
    assert video.latents.shape == (1, 16, 1, 32, 32) and video.latents.isfinite().all()
    assert video.frames.shape == (1, 256, 256, 3) and video.frames.std() > 1  # an image, not one colour


def test_the_callers_gradients_are_on_between_steps(pipe):
    assert all(torch.is_grad_enabled() for _ in pipe.steps("A cat.", SMALL)) and torch.is_grad_enabled()


def test_a_video_begins_with_the_given_picture(pipe: HunyuanVideo):
    red, options = Picture(np.full((60, 100, 3), (255, 0, 0), np.uint8)), replace(SMALL, num_steps=2)
    given = pipe.encode(fill(Image.fromarray(red.pixels), options.height, options.width)[None])
    video = pipe(Request("a cat", options, image=red))
    torch.testing.assert_close(video.latents[:, :, :1], given, rtol=0, atol=0)
    assert video.provenance.image_sha256 == red.sha256
    assert not torch.equal(pipe("a cat", options).latents[:, :, 1:], video.latents[:, :, 1:])  # and it goes on differently


def test_a_picture_is_known_by_its_pixels_whatever_the_file(tmp_path: Path):
    colours = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
    for name in ("a.png", "b.bmp"):
        Image.fromarray(colours).save(tmp_path / name)
    assert read_picture(tmp_path / "a.png") == read_picture(tmp_path / "b.bmp") == Picture(colours) != Picture(colours.reshape(10, 6, 3))


def test_a_picture_is_upright_opaque_and_fills_the_frame(tmp_path: Path):
    halves = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    halves.paste((255, 0, 0, 255), (0, 0, 20, 20))
    exif = halves.getexif()
    exif[274] = 6  # to be turned right by a quarter: left becomes top
    halves.save(tmp_path / "turned.png", exif=exif)
    frame = fill(read_image(tmp_path / "turned.png"), 32, 16)
    assert frame.shape == (32, 16, 3)
    assert frame[4, 8].tolist() == [255, 0, 0] and frame[28, 8].tolist() == [255, 255, 255]


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n cut"])
def test_a_damaged_picture_is_refused_in_one_sentence(content: bytes, tmp_path: Path):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.png cannot be read"):
        read_image(tmp_path / "bad.png")


def test_weights_trained_for_text_alone_refuse_a_picture(tmp_path: Path):
    grey = Picture(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match="text alone"):
        locate(tmp_path).check(Request("A cat.", image=grey))
    with pytest.raises(ValueError, match="num_frames is 1"):
        Request("A cat.", Sampling(num_frames=1), image=grey)


@pytest.mark.parametrize(
    ("rank", "runtime", "said"),
    [
        (0, Runtime(), ["Ulysses 2: each of 2 ranks has 12 of 24 heads, and sends every token once."]),
        (1, Runtime(), []),
        (0, Runtime(ring_degree=2), []),
    ],
)
def test_the_first_rank_says_which_degrees_were_chosen(monkeypatch, caplog, rank, runtime, said):
    for name, value in {"is_initialized": True, "get_world_size": 4, "get_rank": rank}.items():
        monkeypatch.setattr(pipeline.dist, name, lambda value=value: value)
    with caplog.at_level(logging.INFO, "hunyuan_video"):
        assert pipeline.degrees_of(runtime, FullSampling(cfg_scale=6.0), TransformerConfig()).ranks in (2, 4)
    assert caplog.messages == said
