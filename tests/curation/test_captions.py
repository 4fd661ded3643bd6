"""Captions come from files beside the footage, or from a model that sees."""

from __future__ import annotations

import base64
import io
import json

import numpy as np
import pytest
from fake_llm import failing, serving
from footage_files import film, moving
from PIL import Image

from hunyuan_video.curation import captions
from hunyuan_video.curation.captions import Asking, beside, describe, with_camera
from hunyuan_video.curation.footage import grey
from hunyuan_video.rewriting.remote import Remote

SAID = {"short": "Squares move.", "dense": "Many coloured squares move to the left.", "style": "Abstract."}


@pytest.fixture
def job(tmp_path) -> Asking:
    return Asking("a", film(tmp_path / "a.mp4", moving(1, 17)), 17)


def test_a_model_is_shown_frames_and_its_fields_are_kept(job):
    with serving(f"```json\n{json.dumps(SAID)}\n```") as llm:
        (found,) = describe([job], Remote(llm.url, "seeing", "secret", purpose="caption"))
    assert found == {"id": "a", "caption": SAID, "by": "remote seeing"}
    words, *shown = llm.requests[0]["messages"][0]["content"]
    assert '"atmosphere"' in words["text"] and len(shown) == 4
    coded = shown[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    picture = grey(np.asarray(Image.open(io.BytesIO(base64.b64decode(coded)))))
    assert np.abs(picture.astype(int) - grey(moving(1, 17)[0])).mean() < 8
    assert llm.headers[0]["Authorization"] == "Bearer secret"


def test_an_answer_that_is_no_caption_is_asked_for_again(job):
    with serving("I cannot see.", json.dumps({"title": "x"}), json.dumps(SAID)) as llm:
        (found,) = describe([job], Remote(llm.url, "seeing"))
    assert found["caption"] == SAID and len(llm.requests) == 3


def test_a_clip_that_cannot_be_described_says_why(job):
    with serving(json.dumps({"short": 3})) as llm:
        (found,) = describe([job], Remote(llm.url, "seeing"))
    assert "caption" not in found and "must be texts" in found["problem"]


def test_a_server_that_refuses_ends_the_work_with_a_sentence(job):
    with serving(failing(401)) as llm, pytest.raises(ConnectionError, match=r"HUNYUAN_VIDEO_CAPTION_KEY.*goes on here"):
        list(describe([job], Remote(llm.url, "seeing", "wrong", purpose="caption")))


def test_a_server_that_is_busy_is_asked_again(job, monkeypatch):
    monkeypatch.setattr(captions, "PAUSE", 0.0)
    with serving(failing(503), json.dumps(SAID)) as llm:
        (found,) = describe([job], Remote(llm.url, "seeing"))
    assert found["caption"] == SAID


def test_a_text_beside_a_clip_counts_before_one_beside_its_footage(tmp_path):
    clip, footage = tmp_path / "clip.mp4", tmp_path / "film.mp4"
    assert beside(clip, footage) is None
    footage.with_suffix(".txt").write_text(" A film. \n")
    assert beside(clip, footage) == "A film."
    clip.with_suffix(".json").write_text(json.dumps(SAID))
    assert beside(clip, footage) == SAID


def test_a_file_with_other_fields_is_named(tmp_path):
    (tmp_path / "film.json").write_text('{"title": "A film."}')
    with pytest.raises(ValueError, match=r"film\.json: a caption has the fields title; it can have short, dense"):
        beside(tmp_path / "film.mp4")


def test_the_camera_becomes_a_field_if_it_is_sure_and_nobody_has_said_it():
    assert with_camera(SAID, "zoom-in", 0.9) == SAID | {"camera": "The camera zooms in."}
    assert with_camera(SAID, "zoom-in", 0.3) == SAID
    assert with_camera(SAID | {"camera": "It flies."}, "zoom-in", 0.9)["camera"] == "It flies."
    assert with_camera("A film.", "zoom-in", 0.9) == "A film."


def test_every_class_of_the_camera_has_words():
    from typing import get_args

    from hunyuan_video.motion.camera import Label

    assert set(captions.WORDS) == set(get_args(Label))
