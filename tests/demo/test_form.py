"""From the page's fields to what is asked, and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from desks import OFFER, SMALL, form, provenance

from hunyuan_video.config import FullSampling, Sampling
from hunyuan_video.demo.form import Form
from hunyuan_video.request import Rewriting
from hunyuan_video.serving.jobs import NamedLora, Order


def test_what_stands_in_the_fields_is_asked_for() -> None:
    settings = {"size": "96x64", "num_frames": 9, "num_steps": 7, "seed": "5", "cfg_scale": 2, "shift": 3.5, "guidance": 4}
    asked = form(**settings, negative_prompt="rain").asked(OFFER, None)
    assert asked.sampling == Sampling(
        height=64, width=96, num_frames=9, num_steps=7, seed=5, cfg_scale=2.0, shift=3.5, guidance=4.0, schedule="shift",
        solver="euler", noise="cpu", stability="dynamic",
    )  # fmt: skip
    assert asked.negative_prompt == "rain" and asked.prompt == "a cat" and asked.rewritten is None


@pytest.mark.parametrize("seed", ["", "-1", " -1 "])
def test_no_seed_is_a_random_one(seed: str) -> None:
    assert form(seed=seed).asked(OFFER, None).sampling.seed is None


def test_a_seed_beyond_what_browsers_count_to_stays_exact() -> None:
    assert form(seed=str(2**63 - 1)).asked(OFFER, None).sampling.seed == 2**63 - 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"seed": "seven"}, "seed is 'seven'"),
        ({"seed": "٣"}, "seed is"),
        ({"size": "wide"}, "size is 'wide'; it must be width x height, such as 64x64"),
        ({"size": "100x64"}, "width is 100; it must be a positive multiple of 16, such as 96"),
        ({"loras": ("a", "b"), "strengths": "1 2 3"}, "3 strengths for 2 LoRAs"),
    ],
)
def test_what_cannot_be_is_said(wrong: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        form(**wrong).asked(OFFER, None)


def test_weights_without_embedded_guidance_are_given_none() -> None:
    offer = replace(OFFER, embedded_guidance=False)
    assert form().asked(offer, None).sampling.guidance is None


def test_the_size_of_a_pictures_shape_takes_the_place_of_the_other_and_counts_as_many_pixels() -> None:
    given = form(resolution="360p", stability="stable", shift=7.0)
    asked = given.asked(OFFER, b"")
    assert (asked.resolution, asked.sampling.height, asked.sampling.width, asked.sampling.stability) == ("360p", None, None, "stable")
    assert (given.sampling(OFFER).height, given.sampling(OFFER).width) == (480, 480)


def test_weights_for_text_are_told_no_stability() -> None:
    assert form().asked(replace(OFFER, image_to_video=False), None).sampling.stability is None


def test_one_strength_is_for_all_and_several_are_for_each() -> None:
    assert form(loras=("a", "b"), strengths="0.5").asked(OFFER, None).loras == (NamedLora("a", "0.5"), NamedLora("b", "0.5"))
    each = form(loras=("a", "b"), strengths="0.5 1,single_blocks=0").asked(OFFER, None).loras
    assert each == (NamedLora("a", "0.5"), NamedLora("b", "1,single_blocks=0"))
    assert form(loras=(), strengths="0.5").asked(OFFER, None).loras == ()


def test_a_rewritten_prompt_is_asked_for_with_what_it_was() -> None:
    given = form(rewrite_mode="master", rewritten="A cat, in soft light.", rewriter="offline")
    asked = given.asked(OFFER, None)
    assert asked.prompt == "A cat, in soft light."
    assert asked.rewritten == Rewriting("a cat", "master", "offline")


@pytest.mark.parametrize("plain", [{"rewrite_mode": "off", "rewritten": "old"}, {"rewrite_mode": "normal", "rewritten": "a cat"}])
def test_a_prompt_that_was_not_rewritten_is_none(plain: dict[str, str]) -> None:
    asked = form(**plain).asked(OFFER, None)
    assert asked.prompt == "a cat" and asked.rewritten is None


def test_settings_come_back_from_a_file_as_they_were_given() -> None:
    sampling = FullSampling(
        height=96, width=64, num_frames=9, num_steps=30, shift=5.5, schedule="linear-quadratic", linear_steps=10, guidance=3.0,
        cfg_scale=2.0, seed=2**60 + 1, noise="official",
    )  # fmt: skip
    order = Order("A cat.", SMALL, None, None, (NamedLora("style", "0.8"),), Rewriting("猫", "normal", "x"))
    back = Form.of_made(provenance("A cat.", sampling, "rain"), order)
    asked = back.asked(OFFER, None)
    assert asked.sampling.over(FullSampling()) == sampling
    assert (asked.prompt, asked.negative_prompt, asked.loras, asked.rewritten) == ("A cat.", "rain", order.loras, order.rewritten)
    assert back.prompt == "猫"


def test_the_page_opens_as_the_weights_were_made_for_but_for_what_was_said() -> None:
    opened = Form.at(Sampling(num_steps=9, seed=3), OFFER, "a dog", "rain", "master")
    assert (opened.size, opened.num_frames, opened.num_steps, opened.seed) == ("64x64", 17, 9, "3")
    assert (opened.prompt, opened.negative_prompt, opened.rewrite_mode) == ("a dog", "rain", "master")
    assert Form.at(Sampling(), OFFER).seed == "-1"
