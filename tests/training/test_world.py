"""The rendered world keeps its promises: the same from the same seed, held-out combinations held out, motions as their labels say."""

from __future__ import annotations

import re
from collections import Counter

import numpy as np
import pytest

from hunyuan_video.training import world
from hunyuan_video.training.world import BACKGROUNDS, MOTIONS, SUBJECTS, Scene, is_held_out, render, sample_scene, write_caption


def centroid_and_size(frame: np.ndarray, empty: np.ndarray) -> tuple[float, float, float]:
    """x, y and area of what differs from the frame without a subject."""
    y, x = np.nonzero(np.abs(frame.astype(int) - empty).sum(-1) > 60)
    return x.mean(), y.mean(), len(x)


def test_same_seed_same_scene_and_pixels():
    first, second = sample_scene(7, "train"), sample_scene(7, "train")
    assert first == second
    np.testing.assert_array_equal(render(first), render(second))
    assert sample_scene(8, "train") != first


def test_a_tenth_is_held_out_and_every_word_stays_in_training():
    combinations = world.combinations("train")
    assert len(combinations) + len(world.combinations("held_out")) == 420
    assert 38 <= len(world.combinations("held_out")) <= 46
    counts = Counter(word for words in combinations for word in words)
    assert min(counts[subject] for subject in SUBJECTS) >= 30
    assert min(counts[word] for word in (*MOTIONS, *BACKGROUNDS)) >= 50
    # Each pair of words is seen together in training too, so a held-out combination is new only as a whole.
    assert len({words[:2] for words in combinations}) == 12 * 7
    assert len({words[1:] for words in combinations}) == 7 * 5


def test_held_out_combinations_are_never_sampled_in_training():
    for seed in range(1000):
        scene = sample_scene(seed, "train")
        assert not is_held_out(scene.subject, scene.motion, scene.background)
        scene = sample_scene(seed, "held_out")
        assert is_held_out(scene.subject, scene.motion, scene.background)


@pytest.mark.parametrize("subject", ["cat", "rocket", "balloon"])
@pytest.mark.parametrize("motion", MOTIONS)
def test_motion_is_what_the_label_says(subject: str, motion: str, monkeypatch: pytest.MonkeyPatch):
    scene = Scene(subject, motion, "desert", "", seed=3)
    frames = render(scene)
    monkeypatch.setattr(world, "_sprite", lambda subject, side: np.zeros((4, side, side), np.float32))
    empty = render(scene, num_frames=1)[0]
    (x0, y0, area0), (x1, y1, area1) = (centroid_and_size(frames[i], empty) for i in (0, -1))
    direction = {"left": (-20, 0), "right": (20, 0), "up": (0, -20), "down": (0, 20)}.get(motion, (0, 0))
    if motion not in ("grow", "shrink"):
        assert (x1 - x0, y1 - y0) == pytest.approx(direction, abs=2.0)
    expected_growth = {"grow": 2.6**2, "shrink": 2.6**-2}.get(motion, 1.0)
    assert area1 / area0 == pytest.approx(expected_growth, rel=0.3)


def test_right_moving_subjects_face_right():
    left, right = (render(Scene("fish", motion, "night", "", seed=0), num_frames=1)[0] for motion in ("left", "right"))
    assert not np.array_equal(left, right)


def test_verbs_without_direction_always_mean_left():
    rng = np.random.default_rng(0)
    undirected = re.compile(r"\b(walks|runs|drives|rolls|flies|floats|swims|bounces|drifts|sails|moves)\b(?! (left|right|up|down|to the))")
    meant = set()
    for _ in range(4000):
        motion = MOTIONS[rng.integers(7)]
        caption = write_caption(SUBJECTS[rng.integers(12)], motion, BACKGROUNDS[rng.integers(5)], rng)
        if undirected.search(caption):
            meant.add(motion)
    assert meant == {"left"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("cat", "left", "grass"), "A cat walks on the grass, realistic style."),
        (("car", "left", "desert"), "A red car drives to the left in the desert"),
        (("heart", "shrink", "snow"), "A heart gets smaller in the snow"),
    ],
)
def test_known_sentences_can_be_said(words: tuple[str, str, str], sentence: str):
    noun, verb = world.NOUNS[words[0]], (*world.VERBS[words[0]], "moves")
    sentences = {
        world.TEMPLATES[0].format(subject=f"A {n}", motion=p.format(verb=v), place=place) + style + stop
        for n in noun
        for p in world.PHRASES[words[1]]
        for v in verb
        for place in world.PLACES[words[2]]
        for style in world.STYLES
        for stop in ("", ".")
    }
    assert sentence in sentences


def test_captions_vary_and_stay_short():
    rng = np.random.default_rng(0)
    captions = {write_caption("car", "right", "snow", rng) for _ in range(200)}
    assert len(captions) > 150
    assert max(len(caption.split()) for caption in captions) <= 17
    assert not any("a automobile" in caption for caption in captions)


def test_one_frame_is_an_image_and_sizes_scale():
    scene = sample_scene(5, "train")
    assert render(scene, num_frames=1).shape == (1, 64, 64, 3)
    np.testing.assert_array_equal(render(scene, num_frames=1)[0], render(scene, num_frames=5)[2])
    large = render(scene, height=128, width=128, num_frames=1)[0]
    shrunk = large.reshape(64, 2, 64, 2, 3).mean((1, 3))
    assert np.abs(shrunk - render(scene, num_frames=1)[0]).mean() < 3.0
    assert render(scene, height=48, width=80, num_frames=9).shape == (9, 48, 80, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Scene("elephant", "left", "grass", "", 0),
        lambda: Scene("cat", "jump", "grass", "", 0),
        lambda: Scene("cat", "left", "moon", "", 0),
        lambda: Scene("cat", "left", "grass", "", -1),
        lambda: sample_scene(-1, "train"),
        lambda: is_held_out("cat", "left", "moon"),
        lambda: render(sample_scene(0, "train"), num_frames=0),
        lambda: render(sample_scene(0, "train"), height=8),
    ],
)
def test_wrong_arguments_are_refused_in_one_sentence(wrong):
    with pytest.raises(ValueError, match=r"^[^.]+(\.\d[^.]*)*\.$"):
        wrong()
