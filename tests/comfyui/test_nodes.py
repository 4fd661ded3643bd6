"""Nodes of the pack, run by an executor that is not ours, with the embedded miniature."""

from __future__ import annotations

import gc
import re
import weakref
from fractions import Fraction

import numpy as np
import pytest
import torch
from adapters import random_lora

from hunyuan_video import HunyuanVideo
from hunyuan_video.apps.generate import Given, replay
from hunyuan_video.checkpoint import load_transformer
from hunyuan_video.checkpoint.convert import convert
from hunyuan_video.checkpoint.lora import save_lora
from hunyuan_video.config import Output
from hunyuan_video.models.vae import VAEConfig
from hunyuan_video.request import Clip, Keyframe, Picture
from hunyuan_video.video import read_metadata
from hunyuan_video.weights import EMBEDDED, locate

PROMPT = "A dog runs in the snow"
SMALL = {"width": 64, "height": 64, "num_frames": 5, "num_steps": 2, "seed": 3}


@pytest.fixture(scope="module")
def model(comfy):
    return comfy.run("HunyuanVideoLoad", weights="embedded miniature")


@pytest.fixture(scope="module")
def request_(comfy):
    return comfy.run("HunyuanVideoPrompt", prompt=PROMPT)[0]


@pytest.fixture(scope="module")
def sampled(comfy, model, request_):
    return comfy.run("HunyuanVideoSample", model=model, request=request_, **SMALL)


@pytest.fixture(scope="module")
def decoded(comfy, model, sampled):
    latent, record = sampled
    return comfy.run("HunyuanVideoDecode", model=model, latent=latent, record=record)


@pytest.fixture(scope="module")
def expected():
    """What the package makes without ComfyUI."""
    return HunyuanVideo.load(EMBEDDED)(PROMPT, **SMALL)


def frames(number: int = 9, size: int = 64) -> torch.Tensor:
    """An IMAGE."""
    return torch.rand(number, size, size, 3, generator=torch.Generator().manual_seed(0))


# --- What goes in and comes out ---


def test_the_nodes_make_the_packages_own_video(decoded, expected):
    images, video, _ = decoded
    np.testing.assert_array_equal((images * 255).round().byte().numpy(), expected.frames)
    assert video.get_components().images is images
    assert video.get_components().frame_rate == Fraction(24)


def test_an_image_is_of_floats_from_0_to_1(decoded):
    images = decoded[0]
    assert images.shape == (5, 64, 64, 3)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1


def test_a_latent_is_as_comfyui_has_it_and_not_scaled_for_the_transformer(comfy):
    from comfy.latent_formats import HunyuanVideo as Format

    latents = torch.randn(1, 16, 2, 4, 4)
    latent = comfy.pack.values.to_latent(latents, VAEConfig())
    torch.testing.assert_close(Format().process_in(latent["samples"]), latents)
    torch.testing.assert_close(comfy.pack.values.from_latent(latent, VAEConfig()), latents)


def test_a_latent_from_elsewhere_is_decoded_without_a_record(comfy, model, sampled, expected):
    samples = sampled[0]["samples"]
    images, _, record = comfy.run("HunyuanVideoDecode", model=model, latent={"samples": torch.cat([samples, samples])})
    assert record is None
    np.testing.assert_array_equal((images[5:] * 255).round().byte().numpy(), expected.frames)


def test_frames_are_encoded_as_latents_of_comfyuis_shape(comfy, model):
    latent = comfy.run("HunyuanVideoEncode", model=model, images=frames(5))
    assert latent["samples"].shape == (1, 16, 2, 8, 8)


def test_decoding_without_tiles_is_recorded(comfy, model, sampled):
    latent, record = sampled
    _, _, whole = comfy.run("HunyuanVideoDecode", model=model, latent=latent, record=record, tiled=False)
    assert record.made.runtime.vae_tiling and not whole.made.runtime.vae_tiling


def test_all_in_one_node_makes_the_same(comfy, decoded):
    images, video, record = comfy.run("HunyuanVideoGenerate", prompt=PROMPT, weights="embedded miniature", **SMALL)
    assert torch.equal(images, decoded[0])
    assert record.made == decoded[2].made
    assert torch.equal(video.get_components().images, images)


def test_it_is_computed_as_usual_in_comfyuis_inference_mode(comfy, model, request_, sampled):
    with torch.inference_mode():
        latent, record = comfy.run("HunyuanVideoSample", model=model, request=request_, **SMALL)
        images, _, _ = comfy.run("HunyuanVideoDecode", model=model, latent=latent, record=record)
    assert torch.equal(latent["samples"], sampled[0]["samples"])
    assert not any(tensor.is_inference() for tensor in (record.latents, *comfy.pack.pipelines.loaded(model).pipe.transformer.parameters()))
    assert comfy.run("HunyuanVideoEncode", model=model, images=images)["samples"].isfinite().all()


# --- Files ---


def test_a_saved_file_is_made_again_by_replay(comfy, decoded, tmp_path):
    _, video, record = decoded
    path = comfy.run("HunyuanVideoSave", images=video, record=record, filename_prefix="clips/dog")
    assert path == str(comfy.output / "clips" / "dog_00001_.mp4")
    assert read_metadata(path)["prompt"] == PROMPT
    assert replay(comfy.output / "clips" / "dog_00001_.mp4", Given(EMBEDDED), None, Output(out=tmp_path))[1]


def test_no_file_is_overwritten(comfy, decoded):
    paths = {comfy.run("HunyuanVideoSave", images=decoded[0], filename_prefix="twice", format="gif") for _ in range(2)}
    assert paths == {str(comfy.output / f"twice_{number:05}_.gif") for number in (1, 2)}


def test_the_saved_file_is_shown_in_the_node(comfy, decoded):
    from comfyui.save import Save

    shown = Save.execute(images=decoded[0], filename_prefix="a/b/seen").ui
    assert shown == {"images": [{"filename": "seen_00001_.mp4", "subfolder": "a/b", "type": "output"}], "animated": (True,)}


# --- While it works ---


class Screen:
    """What ComfyUI is told; after so many steps the user cancels."""

    def __init__(self, comfy, monkeypatch, cancel_after=None):
        from comfy import utils

        self.seen = []

        def hook(value, total, preview, node_id=None):
            self.seen.append((value, total, preview))
            if value == cancel_after:
                comfy.management.interrupt_current_processing()

        monkeypatch.setattr(utils, "PROGRESS_BAR_HOOK", hook)


def test_each_step_is_told_and_seen(comfy, model, request_, monkeypatch):
    screen = Screen(comfy, monkeypatch)
    comfy.run("HunyuanVideoSample", model=model, request=request_, **SMALL | {"num_steps": 3})
    assert [(value, total) for value, total, _ in screen.seen] == [(1, 3), (2, 3), (3, 3)]
    kind, picture, side = screen.seen[-1][2]
    assert (kind, picture.size, side) == ("JPEG", (8, 8), 512)


def test_cancelling_ends_after_the_running_step_and_frees_the_pipeline(comfy, model, request_, sampled, monkeypatch):
    screen = Screen(comfy, monkeypatch, cancel_after=2)
    with pytest.raises(comfy.runtime.NodeExecutionError) as raised:
        comfy.run("HunyuanVideoSample", model=model, request=request_, **SMALL | {"num_steps": 50})
    assert isinstance(raised.value.__cause__, comfy.management.InterruptProcessingException)
    assert [value for value, _, _ in screen.seen] == [1, 2]
    monkeypatch.undo()
    again, _ = comfy.run("HunyuanVideoSample", model=model, request=request_, **SMALL)
    assert torch.equal(again["samples"], sampled[0]["samples"])


# --- Models ---


def test_a_model_stays_loaded_whatever_changes_of_single_videos(comfy, model):
    faster = comfy.run("HunyuanVideoLoad", weights="embedded miniature", speed="fast")
    kept = comfy.pack.pipelines.loaded(model)
    assert comfy.pack.pipelines.loaded(faster) is kept
    assert comfy.pack.pipelines.pipeline(faster).runtime.step_cache == "taylor"


def test_weights_and_single_files_are_found_in_comfyuis_folders(comfy, model):
    (comfy.models / "hunyuan_video" / "mine").symlink_to(EMBEDDED)
    convert(EMBEDDED, comfy.models / "diffusion_models" / "sub" / "model.gguf", "gguf")
    options = {each.id: each.options for each in comfy.schema("HunyuanVideoLoad").inputs if hasattr(each, "options")}
    assert options["weights"] == ["embedded miniature", "mine"]
    assert options["transformer"] == ["the weights' own", "sub/model.gguf"]
    chosen = comfy.run("HunyuanVideoLoad", weights="mine", transformer="sub/model.gguf")
    assert chosen.weights.transformer == comfy.models / "diffusion_models" / "sub" / "model.gguf"


@pytest.fixture
def lora(comfy):
    transformer = load_transformer(locate(EMBEDDED).transformer, torch.float32, torch.device("cpu"))
    adapter = random_lora(transformer, where=lambda name: name.endswith("img_attn_qkv"))
    save_lora(adapter, comfy.models / "loras" / "style.safetensors", "kohya")
    return "style.safetensors"


def test_loras_follow_each_other(comfy, model, lora):
    one = comfy.run("HunyuanVideoLora", model=model, lora=lora, strength=0.5)
    both = comfy.run("HunyuanVideoLora", model=one, lora=lora, strength=-1.0)
    assert [(each.path.name, each.strengths.everywhere) for each in both.adapters] == [(lora, 0.5), (lora, -1.0)]


def test_a_lora_that_was_trained_on_is_another_one(comfy, model):
    from comfyui.load import Lora

    path = comfy.models / "loras" / "grows.safetensors"
    path.write_bytes(b"1")
    before = Lora.fingerprint_inputs(lora="grows.safetensors", strength=1.0)
    path.write_bytes(b"12")
    assert Lora.fingerprint_inputs(lora="grows.safetensors", strength=1.0) != before


# --- What a video begins with ---


def test_a_first_frame_and_keyframes_stand_in_the_request(comfy, request_):
    image = frames(1)
    seen = Picture((image[0] * 255).round().byte().numpy())
    first = comfy.run("HunyuanVideoFirstFrame", request=request_, image=image)
    assert first.image == seen
    assert comfy.run("HunyuanVideoKeyframe", request=first, image=image, frame=-1).keyframes == (Keyframe(-1, seen),)


def test_a_clip_is_made_anew(comfy, model, request_):
    images = frames(7)
    anew = comfy.run("HunyuanVideoVideoToVideo", request=request_, clip=images, strength=0.5)
    _, record = comfy.run("HunyuanVideoSample", model=model, request=anew, **SMALL | {"num_frames": 0})
    clip = Clip((images[:5] * 255).round().byte().numpy())
    assert (record.made.video_sha256, record.made.sampling.strength, record.made.sampling.num_frames) == (clip.sha256, 0.5, 5)


def test_a_video_is_taken_at_24_frames_a_second(comfy, request_):
    images = frames(9)
    video = comfy.pack.host.video(images, 12)
    slow = comfy.run("HunyuanVideoVideoToVideo", request=request_, clip=video).video
    twice = (images.repeat_interleave(2, dim=0)[:17] * 255).round().byte().numpy()
    np.testing.assert_array_equal(slow.pixels, twice)


def test_a_video_goes_on_from_the_end_of_a_clip(comfy, model, request_):
    images = frames(9)
    last = (images[-5:] * 255).round().byte().numpy()
    request, overlap = comfy.run("HunyuanVideoContinue", model=model, request=request_, clip=images, overlap=5)
    assert (request.keyframes, overlap) == ((Keyframe(0, Clip(last)),), 5)
    own, overlap = comfy.run("HunyuanVideoContinue", model=model, request=request_, clip=images)
    whole = (images * 255).round().byte().numpy()
    assert (own.keyframes, overlap) == ((Keyframe(0, Clip(whole)),), 9)  # these weights know a clip to go on from


# --- Words ---


def test_a_prompt_is_rewritten_and_the_file_says_so(comfy, model):
    request, prompt = comfy.run("HunyuanVideoPrompt", prompt="一只狗在雪地里跑", rewrite="normal")
    assert prompt == request.prompt != "一只狗在雪地里跑"
    assert request.rewriting.original == "一只狗在雪地里跑"


def test_an_empty_negative_prompt_is_the_weights_own(comfy):
    assert comfy.run("HunyuanVideoPrompt", prompt=PROMPT, negative_prompt="  ")[0].negative_prompt is None
    assert comfy.run("HunyuanVideoPrompt", prompt=PROMPT, negative_prompt="blurry")[0].negative_prompt == "blurry"


# --- Bad input ---

EMBEDDED_ONE = {"prompt": PROMPT, "weights": "embedded miniature"}


@pytest.mark.parametrize(
    ("node", "inputs", "says"),
    [
        ("Load", {"weights": "../secret"}, "weights is '../secret', which is not here"),
        ("Load", {"weights": "embedded miniature", "transformer": "/etc/passwd"}, "transformer is '/etc/passwd', which is not here"),
        ("Lora", {"model": None, "lora": "../x.safetensors"}, "lora is '../x.safetensors', which is not here"),
        ("Prompt", {"prompt": " "}, "The prompt is empty"),
        ("Prompt", {"prompt": PROMPT, "rewrite": "normal", "rewrite_url": "http://localhost"}, "without rewrite_model"),
        ("Generate", EMBEDDED_ONE | {"width": 100}, "width is 100; it must be a positive multiple of 16"),
        ("Generate", EMBEDDED_ONE | {"num_frames": 6}, "num_frames is 6; it must be 4n + 1"),
        ("Generate", EMBEDDED_ONE | {"offload": "disk"}, "offload is 'disk'"),
        ("Save", {"images": frames(1), "format": "avi"}, "format is 'avi'"),
        ("Save", {"images": frames(1)[..., 0]}, "The images have the shape [1, 64, 64]"),
    ],
)
def test_bad_input_gets_one_sentence(comfy, node, inputs, says):
    with pytest.raises(comfy.runtime.NodeExecutionError, match=re.escape(says)) as raised:
        comfy.run(f"HunyuanVideo{node}", **inputs)
    assert isinstance(raised.value.__cause__, ValueError)
    assert "\n" not in str(raised.value)


def test_what_does_not_belong_together_is_refused(comfy, model, request_, sampled, decoded):
    (latent, record), (images, _, made) = sampled, decoded
    changed, foreign = {"samples": latent["samples"] + 1}, {"samples": torch.zeros(1, 4, 8, 8)}
    for node, inputs, says in [
        ("Decode", {"model": model, "latent": changed, "record": record}, "The latent is not what the record"),
        ("Decode", {"model": model, "latent": foreign}, "The latent is [1, 4, 8, 8]"),
        ("Encode", {"model": model, "images": frames(6)}, "There are 6 frames"),
        ("Save", {"images": images * 0.5, "record": made}, "The frames are not what the record tells of"),
        ("Continue", {"model": model, "request": request_, "clip": frames(3), "overlap": 5}, "The clip has 3 frames"),
        ("Continue", {"model": model, "request": request_, "clip": frames(9), "overlap": 4}, "overlap is 4; it must be 4n + 1"),
    ]:
        with pytest.raises(comfy.runtime.NodeExecutionError, match=re.escape(says)):
            comfy.run(f"HunyuanVideo{node}", **inputs)


# --- Last, for it lets go of what the others use ---


def test_one_model_is_loaded_at_a_time_and_comfyui_can_free_it(comfy, model, request_, sampled, lora):
    pipelines = comfy.pack.pipelines
    first = weakref.ref(pipelines.loaded(model).pipe.transformer)
    with_lora = comfy.run("HunyuanVideoLora", model=model, lora=lora, strength=0.5)
    latent, record = comfy.run("HunyuanVideoSample", model=with_lora, request=request_, **SMALL)
    assert not torch.equal(latent["samples"], sampled[0]["samples"])
    assert [(each.name, each.strengths.everywhere) for each in record.made.adapters] == [(lora, 0.5)]
    second = weakref.ref(pipelines.loaded(with_lora).pipe.transformer)
    gc.collect()
    assert first() is None and second() is not None
    comfy.management.unload_all_models()
    gc.collect()
    assert second() is None
