"""Without a language model: every given word, in its order, and what was left open in plain words behind it."""

from __future__ import annotations

import re

import pytest

from hunyuan_video.rewriting import rewrite
from hunyuan_video.rewriting.checks import MAX_TOKENS, estimated_tokens, problems

ENGLISH = [
    "a cat",
    "A dog runs in the snow",
    "two men, one umbrella; no rain",
    "{x} a robot {y} paints 🐈‍⬛",
    'A shop sign "Open 24h" at night, pan left, anime style',
    "Mount Fuji, ukiyo-e",
    "x" * 9000,
]
CHINESE = ["一只猫", "三只没有尾巴的猫在月亮上跳舞", "墙上写着“欢迎光临”的咖啡馆", "两辆红色的汽车，油画"]


@pytest.mark.parametrize("mode", ["normal", "master"])
@pytest.mark.parametrize("prompt", ENGLISH)
def test_every_given_word_is_kept_in_its_order(prompt, mode):
    rewritten = rewrite(prompt, mode)
    assert rewritten.prompt.lower().startswith(prompt.lower()) and rewritten.notice is None


@pytest.mark.parametrize("mode", ["normal", "master"])
@pytest.mark.parametrize("prompt", ENGLISH[:-1] + CHINESE)
def test_the_checks_of_language_models_hold_for_it_too(prompt, mode):
    assert problems(prompt, rewrite(prompt, mode).prompt) == []


@pytest.mark.parametrize(
    ("prompt", "closing"),
    [
        ("a cat", "Realistic, Natural lighting, Peaceful"),
        ("a kitchen", "Realistic, Indoor lighting, Casual"),
        ("a rocket in orbit", "Realistic, Dramatic lighting, Mysterious"),
        ("a lighthouse in a storm", "Realistic, Dramatic lighting, Tense"),
        ("a city at midnight", "Realistic, Night lighting, Casual"),
        ("a beach at sunset", "Realistic, Warm lighting, Peaceful"),
        ("a sad cat in neon light, anime style", None),
        ("a cat, oil painting", "Natural lighting, Peaceful"),
    ],
)
def test_style_light_and_mood_are_added_where_they_are_open(prompt, closing):
    text = f"A{prompt[1:]}."
    assert rewrite(prompt).prompt == (text if closing is None else f"{text} {closing}")


def test_master_adds_framing_light_camera_and_finish():
    prompt = rewrite("A cat sleeps on a sofa", "master").prompt
    assert all(re.search(word, prompt) for word in ("shot", "light", "camera", "depth of field"))
    assert 40 < len(prompt.split()) < 120


def test_master_leaves_a_given_camera_and_light_alone():
    assert rewrite("A cat in moonlight, zoom in", "master").prompt == (
        "A cat in moonlight, zoom in. Shallow depth of field, rich texture, fine detail and harmonious colors, in a cinematic style."
    )


def test_chinese_becomes_english_with_the_same_closing():
    assert rewrite("一只猫在草地上走").prompt == "A cat walks on grass. Realistic, Natural lighting, Peaceful"


def test_what_could_not_be_translated_is_kept_and_said():
    rewritten = rewrite("一只饕餮在草地上走")
    assert "饕餮" in rewritten.prompt
    assert rewritten.notice == "Not translated, and kept as they are: 饕餮. A language model could (docs/rewriting.md)."


@pytest.mark.parametrize("prompt", ["猫が歩く", "Кошка идёт", "Un gato camina por la hierba y la casa del perro"])
def test_other_languages_stay_as_they_are_with_a_notice(prompt):
    rewritten = rewrite(prompt, "master")
    assert rewritten.prompt == prompt and rewritten.record is None
    assert rewritten.notice is not None and "only Chinese can be translated" in rewritten.notice


@pytest.mark.parametrize("mode", ["normal", "master"])
def test_nothing_is_added_that_the_model_would_not_read(mode):
    fits, full = "A cat walks on the grass." + " It purrs." * 50, "A cat walks on the grass." + " It purrs." * 82
    assert estimated_tokens(full) < MAX_TOKENS
    assert rewrite(fits, mode).prompt.startswith(f"{fits} ") and rewrite(full, mode).prompt == full


def test_far_too_much_chinese_is_said_and_none_of_it_lost():
    rewritten = rewrite("一只猫在草地上走。" * 300)
    assert rewritten.notice is not None and "all after 500 characters" in rewritten.notice
    assert rewritten.prompt.startswith("A cat walks on grass. A cat walks") and rewritten.prompt.count("猫") > 200


def test_what_would_be_no_prompt_any_more_stays_as_it_is():
    rewritten = rewrite("一只猫在草地上走。" * 1100)
    assert rewritten.record is None and rewritten.notice is not None and "far longer" in rewritten.notice


@pytest.mark.parametrize("prompt", ["。。。", "!!! ... ,,,", "🐱"])
def test_what_has_no_word_stays_as_it_is_with_a_notice(prompt):
    made = rewrite(prompt, "normal")
    assert made.prompt == prompt and "no word" in (made.notice or "")


def test_an_address_keeps_its_letters():
    assert rewrite("https://example.com", "normal").prompt.startswith("https://example.com. ")
