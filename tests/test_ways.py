"""Videos that begin with a clip or with pictures at any frame, go on from a clip, or lead back to their beginning."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers_peer import transformer_peer, vae_peer
from media_files import LEVEL, at, write_video
from PIL import Image

from hunyuan_video import cli, continuing, weights
from hunyuan_video.beginning import told_clean
from hunyuan_video.checkpoint import load_transformer, load_vae
from hunyuan_video.clips import read_clip
from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.given import shown
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.request import Clip, Continued, Keyframe, Picture, Request
from hunyuan_video.sampling import initial_noise, rest_of, shifted_sigmas, sigmas_of
from hunyuan_video.video import read_metadata, save_video

SMALL = Sampling(height=32, width=48, num_frames=9, num_steps=5, seed=7)
DRAWN = np.random.default_rng(0).integers(0, 256, (13, 32, 48, 3), dtype=np.uint8)
CLIP, CLIP_OF_5, PICTURE = Clip(DRAWN[:9]), Clip(DRAWN[:5]), Picture(DRAWN[0])


@pytest.fixture(scope="module")
def pipe(official_tree) -> HunyuanVideo:
    return HunyuanVideo.load(official_tree)


def start_of(pipe: HunyuanVideo) -> torch.Tensor:
    return initial_noise(pipe.vae.config.latent_shape(9, 32, 48), 7)


# --- From a clip ---


@pytest.mark.parametrize(("share", "steps"), [(1.0, 10), (0.9, 9), (0.7, 7), (0.65, 7), (0.1, 1), (0.01, 1)])
def test_a_strength_is_a_share_of_the_steps(share, steps):
    sigmas = shifted_sigmas(10, 7.0).tolist()
    rest = rest_of(sigmas, share)
    assert len(rest) == steps + 1 and rest[1:] == sigmas[-steps:]
    assert sigmas[-steps - 1] >= rest[0] > rest[1]
    if round(share * 10, 9) == steps:
        assert rest[0] == sigmas[-steps - 1]


def test_the_noise_of_a_strength_grows_with_it_without_a_jump():
    sigmas = shifted_sigmas(10, 7.0).tolist()
    begins = [rest_of(sigmas, share / 1000)[0] for share in range(1, 1001)]
    assert begins == sorted(begins) and begins[-1] == 1 and begins[0] < 0.01
    assert max(after - before for before, after in pairwise(begins)) < 0.01


@torch.no_grad()
@pytest.mark.parametrize(("strength", "cfg_scale"), [(0.6, 1.0), (0.8, 3.0)])
def test_a_clip_made_anew_is_what_diffusers_makes_of_its_noisy_latents(pipe, official_tree, diffusers_transformer, strength, cfg_scale):
    from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline

    options = replace(SMALL, strength=strength, cfg_scale=cfg_scale).over(pipe.defaults)
    video = pipe("a cat", options, negative_prompt="a dog", video=CLIP)
    features = pipe.encode_text(["a cat", "a dog"], options)
    found = weights.locate(official_tree)
    theirs = HunyuanVideoPipeline(
        *(None, None),  # pyright: ignore[reportArgumentType] (features are given)
        transformer=transformer_peer(load_transformer(found.transformer, torch.float32, torch.device("cpu"))),
        vae=vae_peer(load_vae(found.vae, torch.float32, torch.device("cpu"))),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=options.shift),
        **dict.fromkeys(("text_encoder_2", "tokenizer_2")),
    )
    theirs.set_progress_bar_config(disable=True)
    evenly, steps = np.linspace(1, 0, options.num_steps + 1), round(strength * options.num_steps)
    sigma = sigmas_of(options)[-steps - 1]
    rows = (("", 0), ("negative_", 1)) if cfg_scale > 1 else (("", 0),)
    given = {
        f"{which}{name}": getattr(features, ours)[row, None]
        for which, row in rows
        for name, ours in (("prompt_embeds", "states"), ("prompt_attention_mask", "mask"), ("pooled_prompt_embeds", "pooled"))
    }
    expected = theirs(
        **given,
        true_cfg_scale=cfg_scale,
        guidance_scale=options.guidance or 1.0,
        latents=(1 - sigma) * pipe.encode(CLIP.pixels) + sigma * start_of(pipe),
        height=32,
        width=48,
        num_frames=9,
        sigmas=evenly[-steps - 1 : -1].tolist(),
        output_type="latent",
    ).frames
    torch.testing.assert_close(video.latents, expected, atol=2e-5, rtol=1e-5)


def test_at_full_strength_it_is_the_video_of_the_prompt_alone(pipe):
    assert torch.equal(pipe("a cat", SMALL, video=CLIP, strength=1.0).latents, pipe("a cat", SMALL).latents)


def test_at_no_strength_it_is_the_clip_as_the_vae_has_it(pipe):
    """What is done to it is one step, as long as its noise."""
    encoded = pipe.encode(CLIP.pixels)
    apart = [(pipe("a cat", SMALL, video=CLIP, strength=each).latents - encoded).norm() for each in (1e-2, 1e-4, 1e-6)]
    assert apart[0] > 10 * apart[1] > 100 * apart[2] and apart[2] < 1e-3 * encoded.norm()


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m", "unipc"])
def test_it_takes_the_steps_that_are_left(pipe, solver):
    steps = [step for step in pipe.steps("a cat", SMALL, video=CLIP, strength=0.6, solver=solver) if step.stage == "denoise"]
    assert [(step.step, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("given", [{"video": CLIP, "strength": 0.6}, {"keyframes": (Keyframe(-1, PICTURE),)}, {"loop": True}])
def test_a_stopped_video_goes_on_exactly(pipe, given):
    steps = list(pipe.steps("a cat", SMALL, **given))
    after = next(step for step in steps if step.stage == "denoise" and step.step == 2)
    *_, last = pipe.steps("a cat", SMALL, resume=(2, after.latents), **given)
    assert np.array_equal(last.frames, steps[-1].frames)


def test_a_clip_made_anew_begins_on_a_smaller_grid_where_steps_do(official_tree):
    pipe = HunyuanVideo.load(official_tree, Runtime(progressive="space-time", progressive_until=0.4))
    seen = [tuple(step.latents.shape[2:]) for step in pipe.steps("a cat", SMALL, video=CLIP, strength=0.9) if step.stage == "denoise"]
    assert seen[0] != (3, 4, 6) and seen[-1] == (3, 4, 6)


def test_a_step_cache_leaves_out_steps_of_a_clip_made_anew(official_tree):
    pipe = HunyuanVideo.load(official_tree, Runtime(step_cache="drift", cache_threshold=1e9))
    *_, last = (step for step in pipe.steps("a cat", SMALL, video=CLIP, strength=0.8, num_steps=10) if step.stage == "denoise")
    assert last.computed < last.total == 8


def test_a_single_picture_is_made_anew_too(pipe):
    assert pipe("a cat", SMALL, video=DRAWN[:1], num_frames=1, strength=0.5).frames.shape == (1, 32, 48, 3)


# --- Reading clips ---


def test_a_clip_has_the_frames_that_are_shown_at_24_a_second(tmp_path):
    path = write_video(tmp_path / "a.mp4", at(12, 9))
    levels = np.round(read_clip(path).pixels.mean(axis=(1, 2, 3)) / LEVEL)
    assert levels.tolist() == [number // 2 for number in range(17)]


def test_of_a_clip_as_many_frames_are_taken_as_the_video_has_in_its_size(tmp_path, pipe):
    path = write_video(tmp_path / "a.mp4", at(24, 20))
    assert pipe.request("a cat", video=path, height=32, width=48).video.pixels.shape == (17, 32, 48, 3)
    assert pipe.request("a cat", video=path, num_frames=5, height=32, width=48).video.pixels.shape == (5, 32, 48, 3)


def test_a_clip_that_is_too_short_or_none_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"a.mp4 shows 6 frames at 24 a second, but 9 are needed; give a longer clip, or ask for fewer."):
        read_clip(write_video(tmp_path / "a.mp4", at(24, 6)), 9)
    (tmp_path / "b.mp4").write_bytes(b"no video at all")
    with pytest.raises(ValueError, match=r"b.mp4 cannot be read \(.*\): it is cut short, damaged or another kind"):
        read_clip(tmp_path / "b.mp4")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_clip(tmp_path / "c.mp4")
    (tmp_path / "d").mkdir()
    with pytest.raises(ValueError, match=r"cannot be read \(no frames\)"):
        read_clip(tmp_path / "d")


# --- Keyframes ---


@pytest.mark.parametrize(
    ("frames", "trained", "clean"),
    [
        ((0,), ("first",), (0,)),
        ((0,), (), ()),
        ((4,), ("first", "last", "continuation"), ()),
        ((0, 4), ("first",), (0,)),
        ((0, 4), ("first", "last"), (0, 4)),
        ((0, 1, 2), ("first", "last"), (0,)),
        ((0, 1, 2), ("first", "last", "continuation"), (0, 1, 2)),
        ((0, 1, 3), ("first", "last", "continuation"), (0, 1)),
        ((1, 2), ("first", "last", "continuation"), ()),
    ],
)
def test_only_frames_that_weights_were_trained_to_be_given_are_clean(frames, trained, clean):
    assert told_clean(frames, 5, trained) == clean


@pytest.mark.parametrize("solver", ["euler", "heun", "dpm++2m", "unipc"])
def test_a_given_frame_comes_to_what_is_given_with_any_solver(pipe, solver):
    """Whatever the model says, for these weights know text alone."""
    given = (Keyframe(0, PICTURE), Keyframe(-1, Picture(DRAWN[5])))
    latents = pipe("a cat", SMALL, keyframes=given, solver=solver).latents
    torch.testing.assert_close(latents[:, :, :1], pipe.encode(DRAWN[:1]), atol=2e-5, rtol=0)
    still = pipe.encode(np.repeat(DRAWN[5:6], 5, axis=0))[:, :, 1:]
    torch.testing.assert_close(latents[:, :, 2:], still, atol=2e-5, rtol=0)


def test_on_its_way_it_is_as_noisy_as_the_others_by_its_own_noise(pipe):
    seen = [step.latents for step in pipe.steps("a cat", SMALL, keyframes=(Keyframe(0, CLIP_OF_5),)) if step.stage == "denoise"]
    data, noise = pipe.encode(DRAWN[:5]), start_of(pipe)[:, :, :2]
    for sigma, latents in zip(sigmas_of(SMALL.over(pipe.defaults))[1:], seen, strict=True):
        torch.testing.assert_close(latents[:, :, :2], (1 - sigma) * data + sigma * noise, atol=2e-5, rtol=0)


def test_what_is_given_leads_the_frames_beside_it(pipe):
    alone, led = (pipe("a cat", SMALL, keyframes=given).latents for given in ((), (Keyframe(0, CLIP_OF_5),)))
    assert not torch.allclose(alone[:, :, 2:], led[:, :, 2:], atol=1e-3)


def test_trained_weights_are_told_that_both_ends_are_clean(pipe, monkeypatch):
    monkeypatch.setattr(pipe, "origin", replace(pipe.origin, given=("first", "last")))
    told = []
    forward = type(pipe.transformer).forward

    def listening(model, x, t, condition, clean_frames=(), rope=None):
        told.append(clean_frames)
        return forward(model, x, t, condition, clean_frames, rope)

    monkeypatch.setattr(type(pipe.transformer), "forward", listening)
    latents = pipe("a cat", SMALL, image=PICTURE, keyframes=(Keyframe(-1, PICTURE),)).latents
    assert set(told) == {(0, 2)}
    assert torch.equal(latents[:, :, :1], pipe.encode(DRAWN[:1]))


def test_given_frames_keep_their_places_on_smaller_grids(official_tree):
    pipe = HunyuanVideo.load(official_tree, Runtime(progressive="space", progressive_until=0.4))
    latents = pipe("a cat", SMALL, keyframes=(Keyframe(4, PICTURE),)).latents
    still = pipe.encode(np.repeat(DRAWN[:1], 5, axis=0))[:, :, 1:]
    torch.testing.assert_close(latents[:, :, 1:2], still, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"keyframes": (Keyframe(9, PICTURE),)}, "A keyframe is at frame 9, but the video has 9, from 0 on."),
        ({"keyframes": (Keyframe(1, PICTURE), Keyframe(4, PICTURE))}, "Two keyframes are nearer than the model tells apart"),
        ({"image": PICTURE, "keyframes": (Keyframe(0, PICTURE),)}, "Two keyframes are nearer"),
        ({"video": CLIP, "image": PICTURE}, "video is given, which a video is made of; leave out image, keyframes and loop."),
        ({"video": CLIP, "sampling": Sampling(num_frames=5)}, "num_frames is 5, but the clip has 9 frames"),
        ({"video": Clip(DRAWN[:8])}, r"The clip has 8 frames; they must be 4n \+ 1, such as its first 5."),
        ({"sampling": Sampling(strength=0.5)}, "strength is 0.5, which is for a video that is made of another one"),
        ({"sampling": Sampling(loop=True, num_frames=5)}, "num_frames is 5; a loop needs 9 or more."),
        ({"sampling": Sampling(loop=True), "keyframes": (Keyframe(0, CLIP_OF_5),)}, "A loop goes on from its own end, and not from a"),
        ({"sampling": Sampling(loop=True), "keyframes": (Keyframe(8, PICTURE),)}, "A keyframe is at frame 8, but the video has 8"),
    ],
)
def test_what_cannot_be_given_together_is_refused_in_a_sentence(given, sentence):
    with pytest.raises(ValueError, match=sentence):
        Request("a cat", **given).complete(FullSampling(num_frames=9))


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, float("nan")])
def test_a_strength_is_above_0_and_at_most_1(strength):
    with pytest.raises(ValueError, match="it must be above 0, and at most 1"):
        Sampling(strength=strength)


def test_a_clip_stands_at_the_start_alone():
    with pytest.raises(ValueError, match=r"A clip is to stand at frame 4; it can begin a video \(frame 0\), and a picture any frame."):
        Keyframe(4, CLIP)


def test_fewer_frames_first_are_refused_where_frames_have_their_places(official_tree):
    pipe = HunyuanVideo.load(official_tree, Runtime(progressive="time", progressive_until=0.6))
    for given in ({"loop": True}, {"keyframes": (Keyframe(0, PICTURE),)}):
        with pytest.raises(ValueError, match="progressive is 'time', whose first steps have fewer frames"):
            pipe("a cat", SMALL, num_frames=17, **given)


# --- Loops ---


def test_a_loop_has_every_frame_but_the_one_that_would_come_back(pipe):
    video = pipe("a cat", SMALL, loop=True, num_frames=17)
    assert video.latents.shape[2] == 4 and video.frames.shape == (16, 32, 48, 3)


def test_a_loop_is_decoded_with_its_end_before_its_beginning(pipe):
    video = pipe("a cat", SMALL, loop=True, num_frames=17)
    twice = pipe.decode(torch.cat([video.latents, video.latents], dim=2))
    assert np.array_equal(video.frames, twice[13:])


def test_a_loop_is_what_it_is_wherever_it_begins(pipe):
    """Frames of a loop that starts from turned noise are the turned frames, if windows begin anywhere alike."""
    noise = initial_noise((1, 4, 4, 4, 6), 0)
    path = pipe.course(replace(SMALL, loop=True, num_frames=17).over(pipe.defaults))
    assert path.windows is not None

    def seen(part: torch.Tensor, window: tuple[int, ...]) -> torch.Tensor:
        return part.diff(dim=2, prepend=part[:, :, :1])  # of each frame and the one before it

    once = path.windows.whole(seen, noise, 0)
    turned = path.windows.whole(seen, noise.roll(1, dims=2), 3)
    torch.testing.assert_close(turned, once.roll(1, dims=2))


@pytest.mark.parametrize(("frame", "place"), [(0, 0), (7, 1), (-1, 3)])
def test_a_picture_is_seen_at_its_frame_of_a_loop(pipe, frame, place):
    latents = pipe("a cat", SMALL, loop=True, keyframes=(Keyframe(frame, PICTURE),), num_frames=17).latents
    still = pipe.encode(np.repeat(DRAWN[:1], 5, axis=0))[:, :, 1:]
    torch.testing.assert_close(latents[:, :, place : place + 1], still, atol=2e-5, rtol=0)


def test_latents_of_a_loop_are_decoded_as_a_loop(pipe):
    video = pipe("a cat", SMALL, loop=True)
    *_, last = pipe.decoding(video.latents, video.provenance)
    assert np.array_equal(last.frames, video.frames)


def test_what_is_not_shown_is_left_out_of_any_pieces(pipe):
    kept = shown(FullSampling(num_frames=17, loop=True), pipe.transformer.config, pipe.vae.config)
    decoded = np.arange(29, dtype=np.uint8).repeat(3).reshape(-1, 1, 1, 3)
    for size in (1, 3, 29):
        pieces = [kept.of(decoded[start : start + size], start) for start in range(0, 29, size)]
        assert np.array_equal(np.concatenate(pieces), decoded[13:])


# --- What comes after a clip ---


@pytest.mark.parametrize("overlap", [1, 5])
def test_a_clip_goes_on_and_stays_what_it_was(pipe, overlap):
    clip = Clip(DRAWN[:7])
    steps = list(continuing.steps(pipe, Request("a cat", SMALL), clip, Continued(clip.sha256, 3, overlap)))
    frames = steps[-1].frames
    assert len(frames) == 7 + 3 * (9 - overlap) and np.array_equal(frames[:7], clip.pixels)
    shown = [step.new_frames for step in steps if step.new_frames is not None]
    assert np.array_equal(np.concatenate(shown), frames)


def test_each_next_video_begins_with_the_end_of_the_last_and_has_the_next_seed(pipe):
    clip = Clip(DRAWN[:5])
    *_, last = continuing.steps(pipe, Request("a cat", SMALL), clip, Continued(clip.sha256, 2, 5))
    first = pipe("a cat", SMALL, keyframes=(Keyframe(0, clip),)).frames
    once = np.concatenate([clip.pixels, first[5:]])
    second = pipe("a cat", replace(SMALL, seed=8), keyframes=(Keyframe(0, Clip(once[-5:])),)).frames
    assert np.array_equal(last.frames, np.concatenate([once, second[5:]]))


@pytest.mark.parametrize(
    ("stated", "overlap"),
    [
        ({"image_to_video": False}, 9),
        ({"given": ["first"]}, 1),
        ({"given": ["first", "last"]}, 1),
        ({"given": ["first", "continuation"]}, 9),
    ],
)
def test_how_much_is_held_is_what_weights_know(tmp_path, stated, overlap):
    root = tmp_path / "tiny"
    root.mkdir()
    for part in weights.EMBEDDED.iterdir():
        (root / part.name).symlink_to(part)
    settings = json.loads((root / "generation_config.json").read_text())
    (root / "generation_config.json").unlink()
    (root / "generation_config.json").write_text(json.dumps(settings | stated))
    assert weights.locate(root).overlap == overlap


@pytest.mark.parametrize(
    ("continued", "sentence"),
    [
        ({"overlap": 9}, "overlap is 9, but each video has 9 frames; it must be fewer."),
        ({"overlap": 4}, r"overlap is 4; it must be 4n \+ 1 frames, such as 1."),
        ({"overlap": 5}, "The clip has 3 frames, fewer than the overlap of 5"),
        ({"overlap": 1, "times": 0}, "times is 0; it must be between 1 and 1000."),
    ],
)
def test_going_on_in_a_way_that_is_none_is_refused_in_a_sentence(pipe, continued, sentence):
    clip = Clip(DRAWN[:3])
    with pytest.raises(ValueError, match=sentence):
        next(continuing.steps(pipe, Request("a cat", SMALL), clip, Continued(clip.sha256, **{"times": 1} | continued)))


# --- Commands, and files that tell of it ---


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_BASE", raising=False)
    save_video(DRAWN[:9], "clip.mp4")
    Image.fromarray(DRAWN[0]).save("a.png")
    return tmp_path


SIZE = ["--num-steps", "2", "--seed", "3"]


@pytest.mark.parametrize(
    ("arguments", "again", "frames"),
    [
        (["generate", "a cat", "--video", "clip.mp4", "--strength", "0.5", "--height", "32", "--width", "48"], ["--video", "clip.mp4"], 9),
        (
            ["generate", "a cat", "--keyframe", "0=a.png", "--last", "a.png", "--height", "32", "--width", "48", "--num-frames", "9"],
            ["--last", "a.png", "--keyframe", "0=a.png"],
            9,
        ),
        (["continue", "clip.mp4", "--prompt", "a cat", "--num-frames", "9", "--overlap", "5"], ["--video", "clip.mp4"], 13),
        (["generate", "a cat", "--loop", "--height", "32", "--width", "48", "--num-frames", "9"], [], 8),
        (
            ["generate", "a cat", "--loop", "--keyframe", "4=a.png", "--height", "32", "--width", "48", "--num-frames", "9"],
            ["--keyframe", "4=a.png"],
            8,
        ),
    ],
)
def test_commands_write_files_that_are_made_again(here, official_tree, capsys, arguments, again, frames):
    which = ["--weights", str(official_tree)]
    assert cli.main([*arguments, *SIZE, *which]) == 0
    (file,) = here.glob("results/*.mp4")
    assert len(read_clip(file).pixels) == frames
    assert cli.main(["replay", str(file), *again, *which]) == 0
    assert "The frames are identical." in capsys.readouterr().out
    if again:
        assert cli.main(["replay", str(file), *which]) == 2
        assert "give" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["encode", "denoise", "decode"])
def test_an_interrupted_continuation_is_that_of_as_many_videos_as_were_finished(here, official_tree, capsys, caplog, monkeypatch, stage):
    steps, begun = HunyuanVideo.steps, []

    def interrupted(self: HunyuanVideo, request: Request):
        begun.append(request)
        for step in steps(self, request):
            if len(begun) == 3 and step.stage == stage:
                raise KeyboardInterrupt
            yield step

    which = ["--weights", str(official_tree)]
    with monkeypatch.context() as patched:
        patched.setattr(HunyuanVideo, "steps", interrupted)
        line = ["continue", "clip.mp4", "--prompt", "a cat", "--num-frames", "9", "--overlap", "5", "--times", "4"]
        assert cli.main([*line, *SIZE, *which]) == 130
    (file,) = here.glob("results/*")
    assert len(read_clip(file).pixels) == 9 + 2 * 4 and read_metadata(file)["continued"]["times"] == 2
    assert f"Kept: {file.relative_to(here)}, with the first 2 that came after the clip" in caplog.text
    assert cli.main(["replay", str(file), "--video", "clip.mp4", *which]) == 0
    assert "The frames are identical." in capsys.readouterr().out


def test_a_picture_is_gone_on_from_by_its_one_frame(here, official_tree):
    assert weights.locate(official_tree).overlap == 9
    Image.fromarray(DRAWN[0]).save("one.png")
    line = ["continue", "one.png", "--prompt", "a dog", "--num-frames", "9", *SIZE, "--weights", str(official_tree)]
    assert cli.main(line) == 0
    (file,) = here.glob("results/*.mp4")
    assert read_metadata(file)["continued"]["overlap"] == 1 and len(read_clip(file).pixels) == 9


def test_a_clip_goes_on_with_its_own_prompt_for_so_many_seconds(here, official_tree):
    save_video(DRAWN[:9], "told.mp4", metadata={"prompt": "a dog"})
    line = ["continue", "told.mp4", "--seconds", "0.5", "--num-frames", "9", *SIZE, "--weights", str(official_tree)]
    assert cli.main([*line, "--overlap", "5"]) == 0
    (file,) = here.glob("results/*.mp4")
    made = read_metadata(file)
    assert (made["prompt"], made["continued"]["times"]) == ("a dog", 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["generate", "a cat", "--keyframe", "a.png"], "keyframe is 'a.png'; it must be the number of a frame and a picture, such as 16="),
        (["generate", "a cat", "--strength", "0.5"], "strength is 0.5, which is for a video that is made of another one"),
        (["generate", "a cat", "--video", "clip.mp4", "--num-frames", "33"], "clip.mp4 shows 9 frames at 24 a second, but 33 are needed"),
        (["continue", "clip.mp4"], "clip.mp4 does not say what it was made from; say what happens in it by --prompt."),
        (["continue", "clip.mp4", "--prompt", "a", "--times", "2", "--seconds", "3"], "--times and --seconds say the same; give one"),
        (["continue", "clip.mp4", "--prompt", "a", "--height", "32"], "height and width belong together"),
        (
            ["continue", "clip.mp4", "--prompt", "a", "--overlap", "17", "--num-frames", "33"],
            "The clip has 9 frames, fewer than the overlap of",
        ),
        (["continue", "clip.mp4", "--prompt", "a", "--overlap", "9", "--num-frames", "9"], "overlap is 9, but each video has 9 frames; it"),
        (["continue", "clip.mp4", "--prompt", "a", "--format", "latents"], "format is 'latents', but the clip is frames"),
    ],
)
def test_commands_say_in_a_sentence_what_cannot_be(here, official_tree, capsys, arguments, sentence):
    assert cli.main([*arguments, "--weights", str(official_tree)]) == 2
    assert sentence in capsys.readouterr().err


def test_weights_say_what_they_were_trained_to_be_given(official_tree, tmp_path):
    assert weights.locate(weights.EMBEDDED).given == ("first", "last", "continuation")
    assert weights.locate(official_tree).given == ()


def test_weights_of_33_channels_are_given_a_picture_and_nothing_else(tmp_path):
    from tiny_checkpoint import save_official_i2v_tree

    pipe = HunyuanVideo.load(save_official_i2v_tree(tmp_path / "ckpts", True, concat=True))
    for given in ({"video": CLIP}, {"image": PICTURE, "keyframes": (Keyframe(-1, PICTURE),)}, {"image": PICTURE, "loop": True}):
        with pytest.raises(ValueError, match="told of one picture to begin with, on channels of their own, and of nothing else"):
            pipe("a cat", SMALL, **given)
