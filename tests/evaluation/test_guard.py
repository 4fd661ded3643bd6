"""No black, blank, frozen or noisy clip passes, and every sound one does."""

from __future__ import annotations

import numpy as np
import pytest
from rendered_cameras import film, path

from hunyuan_video.evaluation.guard import faults
from hunyuan_video.evaluation.seen import Film, read, see
from hunyuan_video.miniature import drawing, world
from hunyuan_video.video import save_video

T, H, W = 9, 64, 64
RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 255, (T, H, W, 3), np.uint8)
SOUND = film(path("tilt-left", 1, T), 1)
BROKEN = {
    "black": np.zeros((T, H, W, 3), np.uint8),
    "blank": np.repeat(np.linspace(90, 140, T, dtype=np.uint8), H * W * 3).reshape(T, H, W, 3),
    "stripes": np.broadcast_to(NOISE[:, :1], NOISE.shape).copy(),
    "noise": NOISE,
    "frozen": np.repeat(SOUND[:1], T, axis=0),
    "flashing": NOISE[:, :8, :8].repeat(8, axis=1).repeat(8, axis=2),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_clip_has_its_fault(fault):
    assert fault in faults(BROKEN[fault])


@pytest.mark.parametrize("fault", ["black", "noise", "frozen"])
def test_it_has_it_after_compression(fault, tmp_path):
    assert fault in faults(read(save_video(BROKEN[fault], tmp_path / "clip.mp4")).frames)


def test_a_scene_that_a_camera_films_is_sound():
    assert faults(SOUND) == () == faults(film(path("handheld", 2, T), 2))


def test_what_the_drawn_world_shows_is_sound_unless_nothing_moves():
    scenes = [world.sample_scene(seed, "train") for seed in range(20)]
    found = {scene.motion == "still": set() for scene in scenes}
    for scene in scenes:
        found[scene.motion == "still"].add(faults(np.asarray(drawing.render(scene, num_frames=9))))
    assert found == {True: {("frozen",)}, False: {()}}


def test_a_video_in_the_dark_is_sound():
    assert faults(SOUND // 4) == ()


@pytest.mark.parametrize("fault", BROKEN)
def test_nothing_that_was_asked_for_is_there_in_a_broken_clip(fault):
    asked = see(Film(BROKEN[fault], 24.0), ("colour:black", "colour:grey", "camera:static", "style:black-and-white")).asked
    assert len(asked) == 4 and not any(asked.values())
