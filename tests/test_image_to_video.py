"""Videos that begin with a picture, as the official image-to-video weights make them: the whole loop against Diffusers' pipeline."""

from __future__ import annotations

import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers_peer import transformer_peer, vae_peer
from PIL import Image
from safetensors.torch import load_file, save_file

from hunyuan_video import plan, weights
from hunyuan_video.apps.generate import Given, decode, make_video
from hunyuan_video.apps.inspect import report as inspect
from hunyuan_video.apps.verify import check_names
from hunyuan_video.beginning import Beginning
from hunyuan_video.checkpoint import identity, load_transformer, load_vae
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.config import I2V_NEGATIVE_PROMPT, Conditioning, FullSampling, Output, Runtime, Sampling
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.request import Picture, Request
from hunyuan_video.sampling import initial_noise
from hunyuan_video.video import read_metadata

CPU = torch.device("cpu")
PICTURE = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
SMALL = FullSampling(height=32, width=48, num_frames=9, num_steps=3, seed=7, stability="stable")
BOTH: tuple[Conditioning, ...] = ("first_frame", "latent_concat")


@pytest.fixture(scope="module")
def roots(image_tree) -> dict[tuple[Conditioning, bool], Path]:
    """Of both releases, with and without embedded guidance."""
    return {(told, guided): image_tree(told, guided) for told in BOTH for guided in (True, False)}


@pytest.fixture(scope="module")
def pipes(roots) -> dict[Conditioning, HunyuanVideo]:
    return {told: HunyuanVideo.load(roots[told, True]) for told in BOTH}


def video_of_diffusers(
    pipe: HunyuanVideo, root: Path, told: Conditioning, options: FullSampling, output_type: str
) -> np.ndarray | torch.Tensor:
    """Its loop over its models with our weights, from our noise and our features of the same prompts."""
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoImageToVideoPipeline

    theirs = HunyuanVideoImageToVideoPipeline(
        *(None, None),  # pyright: ignore[reportArgumentType] (features are given)
        transformer=transformer_peer(load_transformer(weights.locate(root).transformer, torch.float32, CPU), told),
        vae=vae_peer(load_vae(weights.locate(root).vae, torch.float32, CPU)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=options.shift),
        **dict.fromkeys(("text_encoder_2", "tokenizer_2", "image_processor")),
    )
    theirs.set_progress_bar_config(disable=True)
    features = pipe.encode_text(["a cat", I2V_NEGATIVE_PROMPT], options, pipe.request("a cat", image=PICTURE).image)
    rows = (("", 0), ("negative_", 1)) if options.cfg_scale > 1 else (("", 0),)
    given = {
        f"{which}{name}": getattr(features, ours)[row, None]
        for which, row in rows
        for name, ours in (("prompt_embeds", "states"), ("prompt_attention_mask", "mask"), ("pooled_prompt_embeds", "pooled"))
    }
    return theirs(
        image=Image.fromarray(PICTURE),
        **given,
        true_cfg_scale=options.cfg_scale,
        guidance_scale=options.guidance or 1.0,
        latents=initial_noise(pipe.vae.config.latent_shape(options.num_frames, options.height, options.width), options.seed),
        height=options.height,
        width=options.width,
        num_frames=options.num_frames,
        num_inference_steps=options.num_steps,
        output_type=output_type,
    ).frames


@pytest.mark.parametrize(
    ("told", "guided", "cfg_scale"),
    [("first_frame", True, 1.0), ("first_frame", False, 3.0), ("latent_concat", False, 1.0), ("latent_concat", True, 3.0)],
)
@torch.no_grad()
def test_latents_are_those_of_diffusers(roots, monkeypatch, diffusers_transformer, told, guided, cfg_scale):
    pipe = HunyuanVideo.load(roots[told, guided])
    options = replace(SMALL, guidance=6.0 if guided else None, cfg_scale=cfg_scale)
    latents = pipe("a cat", options, image=PICTURE).latents
    expected = video_of_diffusers(pipe, roots[told, guided], told, options, "latent")
    kept = latents[:, :, 1:] if told == "latent_concat" else latents  # Diffusers gives no picture's frame there
    torch.testing.assert_close(kept, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(("told", "frames"), [("first_frame", 9), ("latent_concat", 5)])
@torch.no_grad()
def test_frames_are_those_of_diffusers_and_as_many(roots, pipes, diffusers_transformer, told, frames):
    video = pipes[told]("a cat", SMALL, image=PICTURE)
    assert len(video.frames) == frames
    expected = video_of_diffusers(pipes[told], roots[told, True], told, SMALL, "np")[0]
    np.testing.assert_allclose(expected * 255, video.frames, atol=1)


def test_a_stable_video_starts_with_a_trace_of_its_picture_and_a_dynamic_one_with_none():
    noise, picture = initial_noise((1, 4, 3, 4, 6), 0), initial_noise((1, 4, 1, 4, 6), 1)
    begins = Beginning("first_frame", (0,), picture)
    torch.testing.assert_close(begins.start(noise, "stable"), 0.999 * noise + 0.001 * picture.expand_as(noise))
    assert begins.start(noise, "dynamic") is noise and Beginning().start(noise, "stable") is noise


@pytest.mark.parametrize(
    ("asked", "shift"),
    [({}, 7.0), ({"stability": "stable"}, 7.0), ({"stability": "dynamic"}, 17.0), ({"stability": "dynamic", "shift": 5.0}, 5.0)],
)
def test_stability_brings_its_shift_unless_one_is_given(roots, asked, shift):
    own = weights.find(roots["first_frame", True]).sampling()
    assert own.stability == "stable" and Sampling(**asked).over(own).shift == shift


def test_without_a_picture_these_weights_make_no_video(roots, pipes):
    with pytest.raises(ValueError, match=r"begin every video with a picture, and none is given; give one with image \(--image\)"):
        weights.find(roots["first_frame", True]).check(Request("a cat"))
    with pytest.raises(ValueError, match="begin every video with a picture"):
        pipes["latent_concat"]("a cat", SMALL)


def test_the_first_frames_latents_stay_those_of_the_picture(pipes):
    latents = pipes["first_frame"]("a cat", SMALL, image=PICTURE).latents
    assert torch.equal(latents[:, :, :1], pipes["first_frame"].encode(PICTURE[None]))


@pytest.mark.parametrize("told", BOTH)
def test_a_video_that_grows_is_told_of_its_picture_at_every_size(pipes, monkeypatch, told):
    monkeypatch.setattr(pipes[told], "runtime", Runtime(progressive="space", progressive_until=0.7))
    seen = [
        step.latents.shape[-1] for step in pipes[told].steps("a cat", replace(SMALL, num_steps=5), image=PICTURE) if step.stage == "denoise"
    ]
    assert seen[0] == 4 and seen[-1] == 6


@pytest.mark.parametrize("told", BOTH)
def test_a_stopped_video_goes_on_exactly(pipes, told):
    steps = list(pipes[told].steps("a cat", SMALL, image=PICTURE))
    *_, last = pipes[told].steps("a cat", SMALL, image=PICTURE, resume=(1, steps[1].latents))
    assert np.array_equal(last.frames, steps[-1].frames)


# --- Which weights are meant ---


@pytest.fixture(scope="module")
def both(roots, official_tree, tmp_path_factory) -> Path:
    """A tree with the models for text and for pictures."""
    root = shutil.copytree(official_tree, tmp_path_factory.mktemp("both") / "ckpts")
    return Path(shutil.copytree(roots["first_frame", True], root, dirs_exist_ok=True))


@pytest.mark.parametrize(
    ("named", "picture", "sees"),
    [("", False, False), ("", True, True), (weights.I2V, False, True), (weights.T2V, True, False)],
)
def test_of_both_models_the_picture_decides_or_the_folder_that_is_named(both, named, picture, sees):
    found = weights.find(both / named, picture=picture)
    assert (found.sees, found.root, found.text_encoder.name) == (sees, both, "text_encoder_i2v" if sees else "text_encoder")


def test_a_tree_of_the_one_model_is_it(roots):
    assert weights.find(roots["first_frame", True]).sees


def test_the_uncut_encoder_of_the_model_for_text_serves_both(both, tmp_path):
    root = Path(shutil.copytree(both, tmp_path / "ckpts"))
    shutil.rmtree(root / "text_encoder")
    (root / "text_encoder_i2v").rename(root / "text_encoder")
    shutil.rmtree(root / weights.I2V / "vae")
    found = weights.find(root, picture=True)
    assert found.text_encoder == root / "text_encoder" and found.vae == root / weights.T2V / "vae"
    assert HunyuanVideo.load(found)("a cat", replace(SMALL, num_steps=1), image=PICTURE).frames.shape == (9, 32, 48, 3)


def test_a_single_file_of_33_channels_says_what_it_is_beside_the_model_for_text(both, roots, tmp_path):
    """As ComfyUI has it. One of as many channels as a text model's is what the tree is."""
    root = Path(shutil.copytree(both, tmp_path / "ckpts"))
    shutil.rmtree(root / weights.I2V)
    shutil.rmtree(root / "text_encoder")
    (root / "text_encoder_i2v").rename(root / "text_encoder")
    for told, sees in (("latent_concat", True), ("first_frame", False)):
        (file,) = convert(weights.find(roots[told, True]).transformer, tmp_path / f"{told}.safetensors", "single-file")
        found = weights.find(root, file)
        assert (found.sees, found.conditioning == told) == (sees, sees)
        assert weights.find(both, file, picture=True).conditioning == told


def test_what_is_missing_of_it_is_fetched_by_the_flag(roots, tmp_path):
    root = Path(shutil.copytree(roots["first_frame", True], tmp_path / "ckpts"))
    shutil.rmtree(root / "text_encoder_i2v")
    with pytest.raises(FileNotFoundError, match=r"incomplete: looked for \S*text_encoder_i2v; `hunyuan-video download --i2v`"):
        weights.find(root)


def test_its_own_negative_prompt_is_used(roots):
    assert weights.find(roots["first_frame", True]).negative_prompt == I2V_NEGATIVE_PROMPT


# --- Its files ---


@pytest.mark.parametrize(("told", "target"), [("first_frame", "diffusers"), ("latent_concat", "official"), ("latent_concat", "diffusers")])
def test_a_whole_model_becomes_one_of_another_layout_that_makes_the_same_video(roots, pipes, tmp_path, told, target):
    convert(roots[told, True], tmp_path / "ckpts", target)
    found = weights.find(tmp_path / "ckpts")
    assert (found.sees, found.conditioning, found.sampling()) == (True, told, pipes[told].defaults)
    options = replace(SMALL, num_steps=1, cfg_scale=2.0)
    first, second = (pipe("a cat", options, image=PICTURE).frames for pipe in (pipes[told], HunyuanVideo.load(found)))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("told", "theirs"), [("first_frame", "token_replace"), ("latent_concat", "latent_concat")])
def test_diffusers_loads_what_is_written_for_it(roots, tmp_path, told, theirs):
    from diffusers import HunyuanVideoImageToVideoPipeline

    convert(roots[told, True], tmp_path / "model", "diffusers")
    pipe = HunyuanVideoImageToVideoPipeline.from_pretrained(tmp_path / "model", dtype=torch.float32)
    assert pipe.transformer.config.image_condition_type == theirs
    assert pipe.image_processor(Image.fromarray(PICTURE), return_tensors="pt")["pixel_values"].shape == (1, 3, 24, 24)


def test_inspect_says_that_it_begins_with_a_picture_and_how(roots, both):
    assert "official tree, image to video (picture and mask on channels of their own)" in inspect(roots["latent_concat", True])
    said = inspect(both)
    assert f"{both / weights.I2V} is there, too: inspect it by this name." in said and "un-cut" not in said
    assert "un-cut LLaVA, which sees the picture" in inspect(both / weights.I2V)


def test_verify_counts_the_towers_tensors(roots):
    texts = [finding.text for finding in check_names(weights.find(roots["first_frame", True]))]
    assert "vision: all 41 tensors have their names and shapes" in texts


@pytest.mark.parametrize("told", BOTH)
def test_the_plan_counts_the_tower_and_the_tokens_of_the_picture(roots, told):
    parts, blind = plan.Parts.of(weights.find(roots[told, True])), plan.Parts()
    assert parts.text_tokens == 252 + (9 if told == "first_frame" else 18) and blind.text_tokens == 256
    assert parts.read_tokens == 103 + 256 + 35 and blind.read_tokens == 351
    (seeing,) = plan.predict(parts, SMALL, [Runtime(offload="models")])
    (without,) = plan.predict(replace(parts, llava=None), SMALL, [Runtime(offload="models")])
    assert seeing.stages["encode"] > without.stages["encode"]


def test_another_tower_is_another_model(roots, tmp_path):
    root = Path(shutil.copytree(roots["first_frame", True], tmp_path / "ckpts"))
    file = root / "text_encoder_i2v" / "model.safetensors"
    state = load_file(file)
    state["multi_modal_projector.linear_2.bias"] += 1
    save_file(state, file, metadata={"format": "pt"})
    first, second = (identity.of_model(weights.find(each)) for each in (roots["first_frame", True], root))
    assert first != second


def test_latents_of_a_concatenated_picture_decode_without_its_frames(roots, pipes, tmp_path):
    request = Request("a cat", SMALL, image=Picture(PICTURE))
    latents = make_video(pipes["latent_concat"], request, Output(out=tmp_path, format="latents"))
    video = decode(latents, Given(roots["latent_concat", True]), Runtime(), Output(out=tmp_path))
    assert read_metadata(video)["frames_sha256"] == pipes["latent_concat"](request).provenance.frames_sha256


# --- A miniature to try it with ---


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("miniature") / "mini-i2v"
    runpy.run_path(str(Path(__file__).parents[1] / "recipes" / "tiny" / "make_image_root.py"))["write_root"](root)
    return root


def test_the_miniature_is_a_model_of_the_official_layout_and_makes_videos(miniature):
    found = weights.find(miniature)
    assert (found.sees, found.conditioning, found.text_encoder.name) == (True, "first_frame", "text_encoder_i2v")
    assert [finding.status for finding in check_names(found)] == ["ok"] * 5
    pipe = HunyuanVideo.load(found)
    options = replace(pipe.defaults, height=64, width=64, num_frames=5, num_steps=1, seed=0)
    assert pipe("a cat", options, image=PICTURE).frames.shape == (5, 64, 64, 3)
