"""Text is read where it is, and leaves are no text."""

from __future__ import annotations

from types import SimpleNamespace

import curation_footage as footage
import numpy as np
import pytest

from hunyuan_video.curation import safety, text
from hunyuan_video.curation.crop import Box
from hunyuan_video.curation.text import area, texts

ELSEWHERE = "NudeNet, under the AGPL, is in an extra of its own"


def test_a_subtitle_is_found_and_a_scene_without_one_has_none():
    scene = footage.filmed(5, 1, "pan-left", height=240, width=424)
    plain, titled = texts(np.concatenate([scene, footage.subtitled(scene, np.random.default_rng(0))]))
    assert plain == [] and len(titled) == 1
    assert titled[0].top > 0.8 and titled[0].left < 0.3 and titled[0].right > 0.7


@pytest.mark.parametrize(("words", "sure", "found"), [("XX", 0.7, 0), ("I", 0.99, 0), ("STOCK", 0.9, 1)])
def test_what_is_hardly_read_is_no_text(monkeypatch, words, sure, found):
    corners = np.array([[[0.0, 0.0], [9.0, 0.0], [9.0, 9.0], [0.0, 9.0]]])
    read = SimpleNamespace(boxes=corners, txts=[words], scores=[sure])
    monkeypatch.setattr(text, "_reader", lambda: lambda *_, **__: read)
    (boxes,) = texts(np.zeros((1, 20, 20, 3), np.uint8))
    assert len(boxes) == found


def test_boxes_that_overlap_are_counted_once():
    assert area([Box(0.0, 0.0, 0.5, 0.5), Box(0.25, 0.0, 0.75, 0.5)]) == pytest.approx(0.375)
    assert area([]) == 0


def test_the_surest_exposed_part_of_any_frame_counts(monkeypatch):
    parts = [{"class": "FACE_FEMALE", "score": 0.9}, {"class": safety.EXPOSED[0], "score": 0.6}, {"class": safety.EXPOSED[1], "score": 0.7}]
    monkeypatch.setattr(safety, "_detector", lambda: SimpleNamespace(detect=lambda _: [parts.pop()]))
    assert safety.unsafe(np.zeros((3, 8, 8, 3), np.uint8)) == 0.7


@pytest.mark.slow
def test_what_is_called_exposed_is_so_called_by_nudenet():
    assert set(safety.EXPOSED) <= set(
        pytest.importorskip("nudenet.nudenet", reason="NudeNet, under the AGPL, is in an extra of its own").__labels
    )


@pytest.mark.slow
def test_a_scene_of_leaves_is_safe():
    pytest.importorskip("nudenet", reason=ELSEWHERE)
    assert safety.unsafe(footage.filmed(5, 2, "pan-left", height=240, width=424)) < 0.5
