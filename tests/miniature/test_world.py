"""The rendered world keeps its promises: the same from the same seed, held-out combinations held out, motions as their labels say."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from hunyuan_video.miniature import drawing, world
from hunyuan_video.miniature.drawing import render
from hunyuan_video.miniature.world import MOTIONS, SUBJECTS, Scene, is_held_out, sample_scene, write_caption


def centroid_and_size(frame: np.ndarray, empty: np.ndarray) -> tuple[float, float, float]:
    """x, y and area of what differs from the frame without a subject."""
    y, x = np.nonzero(np.abs(frame.astype(int) - empty).sum(-1) > 60)
    return x.mean(), y.mean(), len(x)


@cache
def trained_on() -> list[Scene]:
    """Some of many."""
    return [sample_scene(seed, "train") for seed in range(800)]


def test_same_seed_same_scene_and_pixels():
    first, second = sample_scene(7, "train"), sample_scene(7, "train")
    assert first == second
    np.testing.assert_array_equal(render(first), render(second))
    assert sample_scene(8, "train") != first


def test_a_tenth_is_held_out_and_every_word_stays_in_training():
    combinations = world.combinations("train")
    assert len(combinations) + len(world.combinations("held_out")) == 32 * 11 * 10
    assert len(world.combinations("held_out")) == 32 * 11
    # Each pair of words is seen together in training too, so a held-out combination is new only as a whole.
    assert len({words[:2] for words in combinations}) == 32 * 11
    assert len({words[1:] for words in combinations}) == 11 * 10
    assert len({words[::2] for words in combinations}) == 32 * 10
    pairs = Counter(subject for pair in world.pairs("train") for subject in pair)
    assert 80 <= len(world.pairs("held_out")) <= 120 and min(pairs[subject] for subject in SUBJECTS) >= 50


def test_held_out_combinations_are_never_sampled_in_training():
    for split, scenes in (("train", trained_on()), ("held_out", [sample_scene(seed, "held_out") for seed in range(200)])):
        for scene in scenes:
            if scene.second is None:
                assert is_held_out(scene.subject, scene.motion, scene.background) == (split == "held_out")
            else:
                assert world.is_held_out_pair(scene.subject, scene.second) == (split == "held_out")


@pytest.mark.parametrize("subject", ["cat", "rocket", "balloon"])
@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_what_the_label_says(subject: str, motion: str, monkeypatch: pytest.MonkeyPatch):
    scene = Scene(subject, motion, "desert", "", seed=3)
    frames = render(scene)
    monkeypatch.setattr(drawing, "_sprite", lambda *_: np.zeros((4, 128, 128), np.float32))
    empty = render(scene)
    (x0, y0, area0), (x1, y1, area1) = (centroid_and_size(frames[i], empty[i]) for i in (0, -1))
    way = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), "pan_left": (1, 0), "pan_right": (-1, 0), "still": (0, 0)}
    if motion in way:
        assert (x1 - x0, y1 - y0) == pytest.approx(np.multiply(way[motion], drawing.TRAVEL), abs=2.0)
    growth = world.SIZES["large"] / world.SIZES["small"]
    growth = dict.fromkeys(("grow", "zoom_in"), growth**2) | dict.fromkeys(("shrink", "zoom_out"), growth**-2)
    assert area1 / area0 == pytest.approx(growth.get(motion, 1.0), rel=0.3)
    # Only the camera moves what stands behind.
    assert np.array_equal(empty[0], empty[-1]) == (motion not in world.CAMERA)


def test_a_pair_stands_side_by_side_the_first_at_the_left():
    alone = [render(Scene(subject, "still", "snow", "", 0), num_frames=1)[0].astype(int) for subject in ("bird", "apple")]
    both = render(Scene("bird", "still", "snow", "", 0, second="apple"), num_frames=1)[0].astype(int)
    blue, red = (np.argwhere((both[..., c] - both[..., 2 - c]) > 90)[:, 1].mean() for c in (2, 0))
    assert blue < 32 < red
    assert all((picture != both).any() for picture in alone)


def test_sizes_colours_and_styles_are_seen():
    def area(**words: str) -> int:
        scene = Scene("star", "still", "night", "", 0, **words)
        yellow = render(scene, num_frames=1)[0].astype(int)
        return int(((yellow[..., 0] > 150) & (yellow[..., 2] < 120)).sum())

    assert area(size="small") < 0.6 * area() < 0.6 * area(size="large")
    blue = render(Scene("star", "still", "night", "", 0, colour="blue"), num_frames=1)[0][32, 32].astype(int)
    assert blue[2] > blue[0] + 60
    drawn, real = (render(Scene("star", "still", "grass", "", 0, style=style), num_frames=1)[0] for style in ("cartoon", "realistic"))
    assert len(np.unique(drawn[0:4].reshape(-1, 3), axis=0)) < len(np.unique(real[0:4].reshape(-1, 3), axis=0))


def test_only_what_keeps_its_size_has_one_named():
    sized = {scene.motion for scene in trained_on() if scene.size != "normal"}
    assert sized == set(MOTIONS) - set(world.RESIZING)


def test_right_moving_subjects_face_right():
    scenes = (Scene("fish", motion, "night", "", seed=0) for motion in ("left", "right"))
    left, right = (render(scene, num_frames=3)[1, 20:44, 20:44].astype(int) for scene in scenes)
    assert np.abs(right - left[:, ::-1]).mean() < 0.2 * np.abs(right - left).mean()


def test_verbs_without_direction_always_mean_left():
    undirected = re.compile(
        r"(?<!camera )(?<!not )\b(walk|run|drive|roll|flie|fly|float|swim|bounce|drift|sail|move)s?\b"
        r"(?! (left|right|up|down|to the|closer|away))"
    )
    meant = Counter(scene.motion for scene in trained_on() if undirected.search(scene.caption))
    assert meant.keys() == {"left"} and meant["left"] > 10


@pytest.mark.parametrize(
    ("scene", "seed", "sentence"),
    [
        (Scene("cat", "left", "grass", "", 0), 967, "A cat walks on the grass, realistic style."),
        (Scene("dog", "right", "snow", "", 0, second="penguin"), 6369, "A dog and a penguin walk to the right in the snow"),
        (Scene("elephant", "zoom_in", "mountains", "", 0), 1486, "An elephant in the mountains, the camera zooms in"),
        (Scene("crab", "pan_left", "sea", "", 0, second="whale"), 8260, "A crab and a whale are at sea and the camera pans left."),
        (Scene("robot", "right", "space", "", 0, second="bee"), 5369, "In space there are a robot and a bee that move right."),
        (
            Scene("turtle", "left", "desert", "", 0, size="small", style="cartoon"),
            49618,
            "A small turtle walks on the sand dunes, a cartoon.",
        ),
    ],
)
def test_known_sentences_can_be_said(scene: Scene, seed: int, sentence: str):
    assert write_caption(scene, np.random.default_rng(seed)) == sentence


def test_not_every_and_announces_a_second_subject():
    assert sum(" and " in scene.caption for scene in trained_on() if scene.second is None) > 80


def test_unknown_words_leave_the_known_ones_in_their_order():
    caption = sample_scene(3, "train").caption
    strange = [world.with_unknown_words(caption, np.random.default_rng(seed)).split() for seed in range(50)]
    for words in strange:
        rest = iter(words)
        assert all(word in rest for word in caption.split())
    assert {len(words) - len(caption.split()) for words in strange} == {1, 2, 3, 4}


def test_captions_vary_and_stay_short():
    captions = {scene.caption for scene in trained_on()[:300]}
    assert len(captions) > 295
    assert max(len(caption.split()) for caption in captions) <= 25
    assert not any(wrong in caption.lower() for caption in captions for wrong in ("a orange", "a automobile", "a elephant", "an red", "  "))


def test_one_frame_is_a_picture_of_any_moment():
    scenes = [Scene("cat", "left", "grass", "", seed) for seed in range(12)]
    shown = [[np.array_equal(render(scene, num_frames=1)[0], frame) for frame in render(scene, num_frames=9)] for scene in scenes]
    assert all(map(any, shown)) and len({moment.index(True) for moment in shown}) > 3


def test_sizes_scale():
    scene = sample_scene(5, "train")
    large = render(scene, height=128, width=128, num_frames=1)[0]
    shrunk = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(shrunk - render(scene, num_frames=1)[0]).mean() < 3.0
    assert render(scene, height=48, width=80, num_frames=9).shape == (9, 48, 80, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Scene("unicorn", "left", "grass", "", 0),
        lambda: Scene("cat", "jump", "grass", "", 0),
        lambda: Scene("cat", "left", "moon", "", 0),
        lambda: Scene("cat", "left", "grass", "", -1),
        lambda: Scene("cat", "left", "grass", "", 0, second="unicorn"),
        lambda: Scene("cat", "left", "grass", "", 0, colour="beige"),
        lambda: sample_scene(-1, "train"),
        lambda: is_held_out("cat", "left", "moon"),
        lambda: render(sample_scene(0, "train"), num_frames=0),
        lambda: render(sample_scene(0, "train"), height=8),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"^[^.]+(\.\d[^.]*)*\.$"):
        wrong()
