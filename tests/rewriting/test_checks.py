"""A rewritten prompt may stand for what was typed only if it means as much."""

from __future__ import annotations

import pytest

from hunyuan_video.rewriting.checks import MAX_TOKENS, estimated_tokens, is_english, numbers, problems


@pytest.mark.parametrize(
    ("original", "text"),
    [
        ("a cat", "A cat sits in a garden. Realistic, natural lighting."),
        ("三只猫", "Three cats play."),
        ("3 cats", "Three cats play."),
        ("three cats", "3 cats play."),
        ("一只猫", "A cat."),
        ("两个人", "A couple walks on the beach."),
        ("二十一只羊", "Twenty-one sheep on a hill."),
        ("80年代的街道", "A street in the 1980s."),
        ("墙上写着“欢迎光临”", 'A wall with the words "欢迎光临" on it.'),
        ('a sign "No entry"', 'A sign that reads "No entry".'),
        ("没有人的街道", "A street without anybody."),
        ("a street with no people", "An empty street."),
        ("a cat that doesn't move", "A motionless cat."),
        ("不锈钢的非洲无人机", "A drone of stainless steel over Africa."),
        ("三明治", "A sandwich."),
        ("the dog's toy", "A toy that belongs to the dog."),
    ],
)
def test_what_means_as_much_passes(original, text):
    assert problems(original, text) == []


@pytest.mark.parametrize(
    ("original", "text", "problem"),
    [
        ("a cat", " ", "it is empty"),
        ("一只猫", "一只猫在草地上", "not in English"),
        ("a cat", "Un gato camina por la hierba y la casa del perro", "not in English"),
        ("a cat", "猫が歩く", "not in English"),
        ("three cats", "Some cats play.", "lacks the number 3"),
        ("三只猫", "Cats play.", "lacks the number 3"),
        ("2 dogs and 12 cats", "Dogs and 12 cats.", "lacks the number 2"),
        ('a sign "Open"', "A sign that reads open.", "lacks the quoted text 'Open'"),
        ("写着「营业中」的牌子", "A sign.", "lacks the quoted text '营业中'"),
        ("a street without people", "A street with people.", "lacks the negation"),
        ("没有人的街道", "A busy street.", "lacks the negation"),
        ('a man says "hello"', 'A man says "no", "hello".', None),
        ("a cat", "a very long sentence " * 90, "of which the model reads 255"),
        ("a cat", "x " * 10**6, "characters"),
    ],
)
def test_what_lacks_something_is_told_what(original, text, problem):
    found = problems(original, text)
    assert found == [] if problem is None else any(problem in clause for clause in found)


def test_a_negation_inside_quotes_denies_nothing():
    assert problems('a sign "No entry" on a door', 'A door with a sign: "No entry".') == []
    assert problems("a dog, no leash", 'A dog with a sign: "No entry".') == ["it lacks the negation"]


def test_quoted_text_may_be_in_any_language():
    assert problems("a sign “营业中”", "A neon sign that reads “营业中” at night.") == []


@pytest.mark.parametrize("text", ["A café in Montréal, Beyoncé style", "La La Land, a musical in the city", "cat", "42", "🐈", "{}"])
def test_names_do_not_make_another_language(text):
    assert is_english(text)


def test_numbers_are_the_same_in_words_digits_and_chinese():
    assert numbers("twelve of 30 birds, 十二只鸟, 三百个人, ３ dogs, one cat") == {"12", "30", "300", "3"}


def test_tokens_are_estimated_for_a_text_of_the_most_that_is_asked_for():
    assert estimated_tokens("A cat walks on the grass, realistic style. " * 12) < MAX_TOKENS < estimated_tokens("A cat walks, " * 70)
