"""Velocities through windows in time, and around rings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hunyuan_video import plan, weights, windows
from hunyuan_video.config import FullSampling, Runtime, Sampling
from hunyuan_video.pipeline import HunyuanVideo
from hunyuan_video.windows import Windows

LONG = Sampling(height=32, width=48, num_frames=33, num_steps=3, seed=7)
KINDS = [Windows(9, 5), Windows(9, 4), Windows(10, 3), Windows(4, 5, ring=True), Windows(8, 5, ring=True), Windows(7, 3, ring=True)]


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_through_windows_a_pointwise_velocity_is_itself(kind: Windows):
    x = torch.randn(1, 2, kind.frames, 2, 3, generator=torch.Generator().manual_seed(0))
    for turn in range(12):
        torch.testing.assert_close(kind.whole(lambda part, _: part.square(), x, turn), x.square())


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_what_is_seen_first_counts_only_where_it_is_the_videos_first_frame(kind: Windows):
    x = torch.zeros(1, 1, kind.frames, 1, 1)

    def wrong_of_the_first(part: torch.Tensor, _: windows.Window) -> torch.Tensor:
        said = torch.zeros_like(part)
        said[:, :, 0] = 1
        return said

    for turn in range(12):
        said = kind.whole(wrong_of_the_first, x, turn)[0, 0, :, 0, 0]
        assert said.tolist() == ([0.0] * kind.frames if kind.ring else [1.0] + [0.0] * (kind.frames - 1))


def test_around_a_ring_every_frame_is_seen_first_sooner_or_later():
    ring = Windows(8, 9, ring=True)
    (windows_of_turn,) = {len(ring.at(turn)) for turn in range(20)}
    assert windows_of_turn == 1 and {ring.at(turn)[0][0] for turn in range(20)} == set(range(8))


def test_windows_overlap_by_half_and_are_no_longer_than_asked():
    assert Windows(9, 5).at(3) == [tuple(range(start, start + 5)) for start in (0, 2, 4)]


@pytest.fixture(scope="module")
def pipe(official_tree) -> HunyuanVideo:
    return HunyuanVideo.load(official_tree)


def test_a_window_as_long_as_the_video_changes_nothing(official_tree, pipe):
    assert torch.equal(HunyuanVideo.load(official_tree, Runtime(window=33))("a cat", LONG).latents, pipe("a cat", LONG).latents)


def test_the_model_never_sees_more_than_a_window(official_tree, monkeypatch):
    pipe = HunyuanVideo.load(official_tree, Runtime(window=17))
    seen = []
    forward = type(pipe.transformer).forward

    def listening(model, x, *given, **more):
        seen.append(x.shape[2])
        return forward(model, x, *given, **more)

    monkeypatch.setattr(type(pipe.transformer), "forward", listening)
    assert pipe("a cat", LONG).frames.shape == (33, 32, 48, 3)
    assert seen == [5] * 3 * 3


@pytest.mark.parametrize("given", [{"cfg_scale": 2.0}, {"solver": "heun"}])
def test_windows_go_with_guidance_and_solvers_and_a_stopped_video_goes_on(official_tree, given):
    pipe = HunyuanVideo.load(official_tree, Runtime(window=17))
    steps = list(pipe.steps("a cat", LONG, **given))
    *_, last = pipe.steps("a cat", LONG, resume=(1, steps[1].latents), **given)
    assert np.array_equal(last.frames, steps[-1].frames)


def test_given_frames_keep_their_places_in_windows(official_tree, pipe):
    from hunyuan_video import Keyframe, Picture

    picture = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    windowed = HunyuanVideo.load(official_tree, Runtime(window=17))
    latents = windowed("a cat", LONG, keyframes=(Keyframe(-1, Picture(picture)),)).latents
    still = pipe.encode(np.repeat(picture[None], 5, axis=0))[:, :, 1:]
    torch.testing.assert_close(latents[:, :, -1:], still, atol=2e-5, rtol=0)


@pytest.mark.parametrize("runtime", [Runtime(window=17, step_cache="first-block"), Runtime(window=17, pipefusion_patches=2)])
def test_what_remembers_where_tokens_were_is_refused(official_tree, runtime):
    with pytest.raises(ValueError, match="remembers where tokens were a step ago, but with window they move"):
        HunyuanVideo.load(official_tree, runtime)("a cat", LONG)


@pytest.mark.parametrize("window", [0, 5, 10, -3])
def test_a_window_is_4n_and_1_frames(window):
    with pytest.raises(ValueError, match=rf"window is {window}; it must be 4n \+ 1 frames, 9 or more."):
        Runtime(window=window)


def test_a_plan_says_that_any_length_takes_the_memory_of_a_window(official_tree):
    parts, video = plan.Parts.of(weights.locate(official_tree)), FullSampling(height=64, width=96)
    alike = [
        plan.predict(parts, replace(video, num_frames=frames), [Runtime(device="cuda", window=33, offload="models")])[0]
        for frames in (33, 129)
    ]
    (whole,) = plan.predict(parts, replace(video, num_frames=129), [Runtime(device="cuda", offload="models")])
    short, long = (prediction.stages["denoise"] for prediction in alike)
    assert short == long < whole.stages["denoise"]
    assert alike[0].seconds < alike[1].seconds < whole.seconds
