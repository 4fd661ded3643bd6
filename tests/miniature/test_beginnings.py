"""What follows a given picture, lies between two, or continues a clip is counted as it is; and goals are goals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hunyuan_video.apps.evaluate import keyframes
from hunyuan_video.miniature import beginnings, drawing, goals
from hunyuan_video.miniature.beginnings import CONTINUED, GIVEN_SEED, NOTHING_SAID, Asked, Begun
from hunyuan_video.miniature.judge import Score, Words, words_of
from hunyuan_video.miniature.questions import questions
from hunyuan_video.request import Clip, Keyframe, Picture

SIZE = (17, 32, 32)
SCENES = list(questions(3, "held_out", GIVEN_SEED))


def perfect(asked: Asked) -> np.ndarray:
    return drawing.render(next(scene for scene in SCENES if scene.seed == asked.seed), *SIZE[1:], SIZE[0])


class Reader:
    """A judge that knows what was asked for, in turn."""

    def __init__(self, subject: str | None = None):
        self.rest, self.subject = iter(SCENES), subject

    def __call__(self, frames: np.ndarray) -> Words:
        assert len(frames) == SIZE[0] - 1, "the given picture is judged, too"
        words = words_of(next(self.rest))
        return words if self.subject is None else words | {"subject": self.subject}


@pytest.mark.parametrize("kind", beginnings.KINDS)
def test_who_goes_on_as_the_world_does_keeps_everything(kind: beginnings.Kind):
    found = beginnings.evaluate(perfect, Reader(), kind, 3, SIZE)
    assert found.subject == Score(3, 3) and found.psnr_given == 100
    assert (found.motion is None) == (kind == "picture, no description")
    assert found.psnr_last == (100 if kind == "first and last" else None)


def test_what_is_lost_is_seen():
    found = beginnings.evaluate(lambda asked: perfect(asked) // 2, Reader("nobody"), "first and last", 3, SIZE)
    assert found.subject == Score(0, 3) and found.motion == Score(3, 3)
    assert found.psnr_last is not None and found.psnr_last < 20 and found.psnr_given < 20


def test_what_is_given_is_of_the_scene():
    scene = SCENES[0]
    clip = drawing.render(scene, *SIZE[1:], SIZE[0])
    given = {kind: beginnings.asked_for(kind, scene, *SIZE)[0] for kind in beginnings.KINDS}
    assert [len(asked.first) for asked in given.values()] == [1, 1, 1, CONTINUED]
    assert all(np.array_equal(asked.first, clip[: len(asked.first)]) for asked in given.values())
    last = given["first and last"].last
    assert last is not None and np.array_equal(last, clip[-1])
    assert given["picture, no description"].prompt == NOTHING_SAID and given["picture"].prompt == scene.caption


def test_pictures_are_given_where_they_stand():
    clip = drawing.render(SCENES[0], 32, 32, 17)
    first, last = keyframes(Asked("", 0, clip[:CONTINUED], clip[-1]))
    assert first == Keyframe(0, Clip(clip[:CONTINUED])) and last == Keyframe(-1, Picture(clip[-1]))
    assert keyframes(Asked("", 0, clip[:1])) == (Keyframe(0, Picture(clip[0])),)


def result(colours: tuple[int, int] = (45, 50), subject: int = 96, last: float = 25.0, psnr: float = 30.1) -> dict:
    scores = {"subject": {"right": 97, "total": 100}, "colour": {"right": colours[0], "total": colours[1]}}
    kinds = [
        {"kind": "picture", "subject": {"right": 95, "total": 100}, "psnr_last": None},
        {"kind": "picture, no description", "subject": {"right": subject, "total": 100}, "psnr_last": None},
        {"kind": "first and last", "subject": {"right": 1, "total": 100}, "psnr_last": last},
    ]
    report = {"group": "held_out", "scores": scores, "everything": {"right": 95, "total": 100}}
    return {"reports": [report], "psnr_db": [psnr, 0.5], "beginnings": kinds}


def missed(found: dict, before: dict | None = None) -> list[str]:
    return [goal.name for goal in goals.of(found, before) if not goal.is_reached]


def test_goals_are_reached_or_missed_one_by_one():
    assert missed(result()) == []
    assert missed(result(colours=(44, 50), last=23.9)) == ["colours, %", "given last picture reached, dB"]
    assert missed(result(subject=94, psnr=29.9)) == ["VAE, rendered clips, dB", "subject kept from a given picture, no description, %"]


def test_footage_has_a_goal_of_its_own():
    assert missed(result() | {"footage_db": {"bikes": 25.9, "carphone": 26.0}}) == ["VAE, bikes, dB"]


def test_no_number_falls_by_more_than_a_point():
    before = result()
    before["reports"][0]["everything"]["right"] = 96
    assert missed(result(), before) == []
    before["reports"][0]["everything"]["right"] = 97
    assert missed(result(), before) == ["held_out: subjects, motion and background, % (before: 97.0)"]


def test_tables_say_what_is_missed(tmp_path: Path):
    table = goals.markdown_table(goals.of(result(subject=90)))
    assert "| subject kept from a given picture, no description, % | 95.0 | 90.0 | missed |" in table and table.count("missed") == 1
    kept = Begun("first and last", Score(9, 10), Score(8, 10), 30.0, 24.5)
    assert "| first and last | 10 | 90.0 | 80.0 | 30.00 | 24.50 |" in beginnings.markdown_table([kept])
    (tmp_path / "e.json").write_text(json.dumps(result()))
    assert goals.read(tmp_path / "e.json")["psnr_db"] == [30.1, 0.5]
    (tmp_path / "e.json").write_text("{}")
    with pytest.raises(ValueError, match="is no evaluation"):
        goals.read(tmp_path / "e.json")
