"""The score is right for a perfect, a wrong and a half-wrong generator; the judge is faked here."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hunyuan_video.miniature import drawing, evaluation, world
from hunyuan_video.miniature.evaluation import Report, contact_sheet, markdown_table, questions, vae_psnr
from hunyuan_video.miniature.judge import Score, Words, words_of
from hunyuan_video.miniature.world import SLOTS


def scenes(group: evaluation.Group, num_clips: int) -> dict[tuple[str, int], world.Scene]:
    return {(scene.caption, scene.seed): scene for scene in questions(num_clips, group)}


def write_in_pixels(words: Words) -> np.ndarray:
    """A fake video that carries its words as numbers, for the fake judge to read."""
    numbers = [SLOTS[slot].index(word) for slot, word in words.items()] + [0, 0]
    return np.broadcast_to(np.array(numbers, np.uint8).reshape(1, 1, 3, 3), (5, 64, 3, 3)).copy()


def read_pixels(frames: np.ndarray) -> Words:
    return {slot: values[number] for (slot, values), number in zip(SLOTS.items(), frames[0, 0].flat, strict=False)}


@pytest.mark.parametrize("group", ["train", "held_out", "pair"])
def test_a_perfect_generator_scores_all(group: evaluation.Group):
    asked = scenes(group, 60)
    report = evaluation.evaluate(lambda prompt, seed: write_in_pixels(words_of(asked[prompt, seed])), read_pixels, 60, group)
    assert report.everything == Score(60, 60)
    assert all(score.right == score.total for score in report.scores.values())
    assert report.mistakes == ()


def test_both_subjects_of_a_pair_must_be_right():
    asked = scenes("pair", 20)
    report = evaluation.evaluate(
        lambda prompt, seed: write_in_pixels(words_of(asked[prompt, seed]) | {"second": None}), read_pixels, 20, "pair"
    )
    assert report.scores["subject"] == Score(0, 20) and report.everything == Score(0, 20)
    assert report.scores["motion"] == Score(20, 20)


def test_size_and_colour_count_only_where_they_were_asked_for():
    asked = scenes("held_out", 80)
    report = evaluation.evaluate(lambda prompt, seed: write_in_pixels(words_of(asked[prompt, seed])), read_pixels, 80, "held_out")
    assert report.scores["size"].total == sum(scene.size != "normal" for scene in asked.values())
    assert report.scores["colour"].total == sum(scene.colour is not None for scene in asked.values()) > 0


def test_a_constant_generator_fails():
    constant = words_of(world.Scene("cat", "left", "grass", "", 0))
    report = evaluation.evaluate(lambda prompt, seed: write_in_pixels(constant), read_pixels, 350, "held_out")
    assert report.everything.right == 0
    assert 0 < report.scores["subject"].rate < 0.1
    assert len(report.mistakes) == 350


def test_questions_cover_every_held_out_combination_and_are_repeatable():
    every = set(world.combinations("held_out"))
    asked = list(questions(len(every), "held_out"))
    assert {(scene.subject, scene.motion, scene.background) for scene in asked} == every
    assert asked == list(questions(len(every), "held_out"))
    assert [scene.caption for scene in asked] != [scene.caption for scene in questions(len(every), "held_out", seed=1)]


def test_prompts_of_the_exam_are_built_as_no_training_caption_is():
    captions = [world.sample_scene(seed, "train").caption.lower() for seed in range(400)]
    for template in (*world.UNSEEN_TEMPLATES, *world.UNSEEN_CAMERA_TEMPLATES):
        built = re.compile(re.sub(r"\\{\w+\\}", ".+", re.escape(template)))
        assert built.match(template) and not any(built.match(caption) for caption in captions)


def test_psnr_through_the_vae_is_that_of_the_clips():
    mean, half_width = vae_psnr(lambda clip: np.where(clip > 127, clip - 10, clip + 10).astype(np.uint8), 2, 5, 64, 64)
    assert mean == pytest.approx(20 * math.log10(255 / 10)) and half_width == pytest.approx(0)


def test_contact_sheet_has_a_row_of_frames_for_each_prompt(tmp_path: Path):
    clip = drawing.render(world.sample_scene(0, "train"))
    contact_sheet([("one", clip), ("two", clip), ("three", clip)], tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width >= 2 * 5 * 128
        assert sheet.height >= 2 * 128
        assert len(np.unique(np.asarray(sheet)[30:140])) > 50


def test_table_shows_rates_intervals_and_psnr():
    score = Score(95, 100)
    table = markdown_table([Report("held_out", {"subject": score}, score, ())], (27.34, 0.25), Score(420, 420))
    assert "| combinations and sentences never seen | 100 | 95.0 (88.8 to 97.8) |" in table
    assert "27.34 ± 0.25 dB" in table


def test_main_writes_table_json_and_sheet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "load_judge", lambda folder: (read_pixels, Score(420, 420)))
    asked = scenes("train", 4) | scenes("held_out", 4) | scenes("pair", 4)
    cat = world.Scene("cat", "left", "grass", "", 0)
    table = evaluation.main(
        lambda prompt, seed: write_in_pixels(words_of(asked.get((prompt, seed), cat))), lambda frames: frames // 2, (5, 64, 64), tmp_path, 4
    )
    assert (tmp_path / "evaluation.md").read_text() == table
    assert json.loads((tmp_path / "evaluation.json").read_text())["reports"][1]["everything"] == {"right": 4, "total": 4}
    assert (tmp_path / "contact_sheet.png").exists()


def test_main_refuses_no_clips_before_it_trains_a_judge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(evaluation, "load_judge", lambda folder: pytest.fail("a judge was asked for"))
    with pytest.raises(ValueError, match="num_clips is 0; it must be at least 1"):
        evaluation.main(lambda prompt, seed: np.zeros((5, 64, 64, 3), np.uint8), lambda frames: frames, (5, 64, 64), tmp_path, 0)


def test_sheet_begins_with_the_first_prompt_of_the_readme():
    assert evaluation.SHEET_PROMPTS[0] == "A cat walks on the grass, realistic style."
