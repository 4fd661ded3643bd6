"""What the rules read from prompts of our own."""

from __future__ import annotations

import numpy as np
import pytest

from hunyuan_video.evaluation.tags import CAMERA, tags_of, values
from hunyuan_video.miniature import world


@pytest.mark.parametrize(
    ("prompt", "tags"),
    [
        ("A red kite over a lake, the camera pans slowly to the left.", {"camera:left", "colour:red", "about:nature"}),
        ("Zooming in on two dogs", {"camera:in", "count:2", "about:animal"}),
        ("A tailor sews, close-up, handheld, black and white", {"shot:close-up", "camera:handheld", "style:black-and-white"}),
        ("A neon sign that says “OPEN” in the rain", {"text:render", "style:cyberpunk"}),
        ("An orange car, tilt up, anime style", {"colour:orange", "camera:up", "style:anime", "about:vehicle"}),
        ("A spoon on the left of a bowl", {"place:left-right"}),
        ("In a still frame, a clock", {"camera:static", "pace:still"}),
        ("Time-lapse of clouds; the camera orbits around a tower", {"pace:time-lapse", "camera:around"}),
        ("Three women walk through a crowd", {"count:3", "count:many", "about:person"}),
        ("A drone shot of a blue bay, cinematic", {"shot:aerial", "colour:blue", "style:cinematic"}),
    ],
)
def test_what_a_prompt_asks_for_is_found(prompt, tags):
    assert tags <= {*tags_of(prompt)}


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("A black-and-white film of a street", "colour"),
        ("An apple beside an orange", "colour"),
        ("She turns left at the corner", "camera"),
        ("A bored man reads", "colour"),
        ("A dog in the forest", "pace"),
        ("The camera pans to the left", "place"),
        ("一只红色的猫", "colour"),
    ],
)
def test_what_it_does_not_ask_for_is_not(prompt, kind):
    assert not values(tags_of(prompt), kind)


def test_lines_of_a_prompt_are_one_text():
    assert "camera:in" in tags_of("A hall.\nThe camera zooms\nin.")


def test_all_words_for_the_camera_in_the_drawn_world_are_known():
    right = {"pan_left": "left", "pan_right": "right", "zoom_in": "in", "zoom_out": "out"}
    said = [(motion, f"The camera {phrase}, a cat in the snow.") for motion, phrases in world.CAMERA.items() for phrase in phrases]
    assert [values(tags_of(prompt), "camera") for _, prompt in said] == [(right[motion],) for motion, _ in said]


def test_who_moves_in_the_drawn_world_is_not_taken_for_the_camera():
    scenes = [world.sample_scene(seed, "train") for seed in range(60)]
    captions = [world.write_caption(scene, np.random.default_rng(0)) for scene in scenes if scene.motion not in world.CAMERA]
    assert not any({*values(tags_of(caption), "camera")} & {*CAMERA} for caption in captions)
