"""Captions of fields become texts: fields left out, in another order, always the same."""

from __future__ import annotations

import json

import pytest

from hunyuan_video.training.captions import FIELDS, fields_of, texts_of

WHOLE = {name: f"The {name} is said" for name in FIELDS}


def test_a_plain_caption_stays_as_it_is():
    assert texts_of("A cat.", 4) == ["A cat."]
    assert texts_of("{curly} cats", 4) == ["{curly} cats"]
    assert fields_of("A cat.") is None


def test_texts_have_fields_left_out_in_another_order():
    texts = texts_of(json.dumps(WHOLE), 40)
    assert len(set(texts)) == 40
    assert {text.count("is said") for text in texts} >= {2, 3, 4, 5, 6}
    assert all("The short" in text or "The dense" in text for text in texts)
    assert len({text.split()[1] for text in texts}) >= 6  # nearly every field is the first one of some text
    assert all(any(f"The {name} is said." in text for text in texts) for name in FIELDS)


def test_the_same_caption_makes_the_same_texts_and_more_of_them_begin_alike():
    caption, turned = json.dumps(WHOLE), json.dumps(dict(reversed(WHOLE.items())))
    assert texts_of(caption, 4) == texts_of(turned, 4) == texts_of(caption, 8)[:4]


def test_few_fields_make_few_texts():
    assert texts_of('{"short": "A cat!"}', 4) == ["A cat!"]
    assert set(texts_of('{"short": "A cat.", "style": ""}', 4)) == {"A cat."}
    assert len(texts_of('{"short": "A cat.", "style": "Old."}', 9)) == 3


@pytest.mark.parametrize(
    "caption", ['{"title": "A cat."}', '{"style": "Old."}', '{"short": 3}', '{"short": " "}', '{"short": "A", "dense": null}']
)
def test_other_fields_are_refused(caption):
    with pytest.raises(ValueError, match="caption"):
        fields_of(caption)
